"""verl's trainers behind `kedge train`, without an accelerator: GRPO, PPO with a critic, SFT; checkpoints that load,
rows that are left out, a run that goes on after kill -9 and one that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from curation import checkpoints, cli, environments
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import EXIT_FAILED, UserError
from curation.quickstart.journey import inside
from tests.verl_cpu import kedge_project
from tests.verl_cpu.kedge_project import CRITIC, LIMIT, RL, SFT, write_run
from trainers.verl_rl import PRESETS

try:
    PYTHON = environments.python("verl")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

pytestmark = [pytest.mark.verl, pytest.mark.timeout(1500)]

PATIENCE_SECONDS = 600
SAVED = 30  # steps between checkpoints: more of them than can be merged meanwhile would have to be waited for


@pytest.fixture(scope="module")
def root(verl_project: Path, tiny_model: Path) -> Path:
    return verl_project


@pytest.fixture(scope="module")
def grpo(root: Path, tiny_model: Path) -> Path:
    """The folder of a GRPO run of two steps, each saved."""
    more = {"trainer.total_training_steps": 2, "trainer.save_freq": 1, "trainer.test_freq": 2}
    write_run(root, "grpo", tiny_model, PRESETS["grpo"] | RL | more)
    return train(root, "grpo")


def train(root: Path, name: str) -> Path:
    """Audit and train a run; returns its folder."""
    with inside(root):
        assert cli.run(["audit", name]) == 0
        assert cli.run(["train", name]) == 0
    return folder_of(root, name)


def test_marks_of_a_thought_that_verl_would_not_decode_are_told_before_it_starts(
    root: Path, special_thoughts_model: Path, kedge
):
    write_run(root, "hidden", special_thoughts_model, PRESETS["grpo"] | RL)
    with inside(root):
        assert kedge("audit", "hidden")[0] == 0
        code, _, err = kedge("train", "hidden")
    assert code == 2 and "<think> and </think>" in err and '"special": false' in err


def folder_of(root: Path, name: str) -> Path:
    (job,) = (root / "lake" / "runs" / name).glob("*/job.json")
    return job.parent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def registered(root: Path, run: str) -> list[checkpoints.Checkpoint]:
    return checkpoints.every(Catalog(find_project(root)), run)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes, other than this one, that name the run's folder or were started for its verl."""
    found = []
    for process in psutil.process_iter():
        try:
            named = " ".join(process.cmdline()) + process.environ().get("VERL_FILE_LOGGER_PATH", "")
        except psutil.Error:
            continue
        if process.pid != os.getpid() and str(folder) in named and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for(what: Callable[[], Any], among: subprocess.Popen[Any] | None = None) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline
        assert among is None or among.poll() is None, "it ended before"
        time.sleep(0.2)
    return found


def test_overlong_prompts_are_left_out_with_their_reasons_before_verl_sees_them(grpo: Path, root: Path):
    out = lines(grpo / "verl" / "left_out.jsonl")
    assert len(out) == kedge_project.NUM_LONG
    assert all(row["tokens"] > LIMIT and f"more than max_prompt_length {LIMIT}" in row["reason"] for row in out)
    assert {row["split"] for row in out} <= {"train", "val"}
    train = pq.read_table(grpo / "verl" / "train.parquet").to_pylist()
    val = pq.read_table(grpo / "verl" / "val.parquet").to_pylist()
    assert len(train) + len(val) + len(out) == kedge_project.NUM_ROWS
    assert json.loads((grpo / "verl" / "answer.json").read_text())["run"]["lengths"] == {
        "train": len(train), "val": len(val)}  # fmt: skip
    assert list(train[0]) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    seen = [row for path in (grpo / "rollouts").glob("*.jsonl") for row in lines(path)]
    trained = [row["row_id"] for row in seen if row["split"] == "train"]
    assert len(trained) == 2 * 4 * 2, "two steps of four prompts with two responses"
    assert set(trained) <= {row["extra_info"]["row_id"] for row in train}
    assert sorted(row["row_id"] for row in seen if row["split"] == "val") == sorted(
        row["extra_info"]["row_id"] for row in val), "one validation"  # fmt: skip
    assert {name for row in seen for name in row["components"]} == {"answer", "function"}
    assert not {row["outcome"] for row in seen} & {"exception", "timeout", "died"}


def test_the_exact_command_is_stored_and_verls_metrics_become_the_log_of_the_run(grpo: Path):
    text = (grpo / "verl" / "command.txt").read_text()
    assert text.startswith(f"{PYTHON} -m verl.trainer.main_ppo ") and "++algorithm.adv_estimator=grpo" in text
    log = lines(grpo / "log.jsonl")
    assert [line["step"] for line in log] == [1, 2]
    for line in log:
        assert line["max_steps"] == 2
        assert {"actor/kl_loss", "actor/grad_norm", "critic/score/mean", "response_length/clip_ratio"} <= set(line)
    assert "val-core/asked/acc/mean@1" in log[1]


def test_merged_checkpoints_are_registered_and_load_with_the_audited_template(grpo: Path, root: Path, tiny_model: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = registered(root, "grpo")
    assert [item.step for item in found] == [1, 2]
    assert len({item.weights_hash for item in found}) == 2
    assert {item.weights for item in found} == {"full"} and found[0].parent.startswith("base-")
    folder = found[-1].folder(Catalog(find_project(root)))
    assert (folder / "chat_template.jinja").read_bytes() == (tiny_model / "chat_template.jinja").read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    asked = [{"role": "user", "content": "What is 1+2?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model.generate(**ids, max_new_tokens=3).shape[1] > ids["input_ids"].shape[1]


def test_nothing_of_verl_is_left_running(grpo: Path):
    assert processes_of(grpo) == []


def test_ppo_trains_a_critic_that_starts_from_the_policy(root: Path, tiny_model: Path):
    more = {"trainer.total_training_steps": 1, "trainer.save_freq": 1, "actor_rollout_ref.rollout.n": 1}
    write_run(root, "ppo", tiny_model, PRESETS["ppo"] | RL | CRITIC | more)
    folder = train(root, "ppo")
    (line,) = lines(folder / "log.jsonl")
    assert {"critic/vf_loss", "critic/grad_norm", "actor/pg_loss", "actor/reward_kl_penalty"} <= set(line)
    assert list((folder / "verl" / "state" / "global_step_1" / "critic").glob("model_*.pt"))
    settings = json.loads((folder / "verl" / "settings.json").read_text())
    assert settings["critic.model.path"] == settings["actor_rollout_ref.model.path"] == str(tiny_model)
    assert [item.step for item in registered(root, "ppo")] == [1]


def test_sft_goes_on_after_kill_9_with_no_process_left_and_stops_when_told(root: Path, tiny_model: Path):
    write_run(root, "sft", tiny_model, SFT | {"trainer.total_epochs": 1000, "trainer.save_freq": SAVED})
    command = [sys.executable, "-m", "curation.cli", "train", "sft"]
    assert subprocess.run([*command[:3], "audit", "sft"], cwd=root, check=False).returncode == 0
    first = subprocess.Popen(command, cwd=root)
    wait_for(lambda: registered(root, "sft"), first)
    folder = folder_of(root, "sft")
    assert processes_of(folder)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not processes_of(folder))
    saved = int((folder / "verl" / "state" / "latest_checkpointed_iteration.txt").read_text())
    second = subprocess.Popen(command, cwd=root)
    metrics = folder / "verl" / "metrics-2.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 2, second)
    (folder / "stop").touch()
    assert second.wait(PATIENCE_SECONDS) == EXIT_FAILED, "as when a monitor stops it"
    assert lines(metrics)[0]["step"] == saved + 1, "verl went on from what it had saved"
    steps = [item.step for item in registered(root, "sft")]
    assert steps == list(range(SAVED, steps[-1] + 1, SAVED)), "what was saved before the kill is merged too"
    assert steps[-1] > saved and not processes_of(folder)
    losses = [line["train/loss"] for line in lines(folder / "log.jsonl") if "train/loss" in line]
    assert losses[-1] < losses[0]


def test_verl_is_ended_when_the_hours_of_the_run_are_over(
    root: Path, tiny_model: Path, kedge: Any, monkeypatch: pytest.MonkeyPatch
):
    write_run(root, "brief", tiny_model, SFT | {"trainer.total_epochs": 1000}, max_hours=0.001)
    monkeypatch.chdir(root)
    assert kedge("audit", "brief")[0] == 0
    code, _, err = kedge("train", "brief")
    assert code == 4 and "max_hours 0.001 are over" in err
    assert registered(root, "brief") == []
    assert processes_of(root / "lake" / "runs" / "brief") == []


def test_names_that_verl_takes_in_silence_are_refused_before_anything_starts(
    root: Path, tiny_model: Path, kedge: Any, monkeypatch: pytest.MonkeyPatch
):
    wrong = {"trainer.logger": ["banana"], "engine.strategy": "fdsp2", "optim.learning_rate": 1}
    write_run(root, "wrong", tiny_model, SFT | wrong)
    monkeypatch.chdir(root)
    assert kedge("audit", "wrong")[0] == 0
    code, _, err = kedge("train", "wrong")
    assert code == 2
    for expected in ("verl has no logger 'banana'", "did you mean 'fsdp2'", "trainer.optim.learning_rate"):
        assert expected in err
    assert "Traceback" not in err and not list((root / "lake" / "runs" / "wrong").glob("*/process.log"))
