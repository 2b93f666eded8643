"""verl's runs rehearsed on their longest rows, and bundled for a machine without kedge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import checkpoints, cli, environments
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from curation.quickstart.journey import inside
from tests.bundled import without_kedge
from tests.trl_runs import make_teacher
from tests.verl_cpu import kedge_project
from tests.verl_cpu.kedge_project import CRITIC, LIMIT, RL, SFT, write_run
from trainers.process import verl_data, verl_rehearsal
from trainers.rehearsing import longest_rows
from trainers.training import job_of, prepared
from trainers.verl_rl import PRESETS

try:
    PYTHON = environments.python("verl")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

pytestmark = [pytest.mark.verl, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def root(verl_project: Path, tiny_model: Path) -> Path:
    """An SFT and a GRPO run, audited."""
    write_run(verl_project, "sft", tiny_model, SFT | {"trainer.total_epochs": 2, "trainer.save_freq": 4})
    write_run(verl_project, "grpo", tiny_model, PRESETS["grpo"] | RL | {"trainer.total_training_steps": 2})
    with inside(verl_project):
        for name in ("sft", "grpo"):
            assert cli.run(["audit", name]) == 0
    return verl_project


def test_a_rehearsal_trains_three_steps_and_its_figures_replace_the_planned_ones(
    root: Path, kedge, monkeypatch: pytest.MonkeyPatch
):
    name = "sft"
    monkeypatch.chdir(root)
    catalog = Catalog(find_project(root))
    before = checkpoints.every(catalog)
    code, out, err = kedge("train", name, "--rehearse", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["seconds"]) == len(found["losses"]) == 3 and found["seconds_per_step"] > 0
    assert found["peak_memory_bytes"] > 1 << 27 and found["device"] == "cpu" and found["num_rows"] == 12
    assert found["checkpoint_same"] and found["checkpoint_difference"] is not None
    assert len(found["answers"]) == 5 and all(item["tokens"] for item in found["answers"])
    assert checkpoints.every(catalog) == before, "nothing is registered"
    assert not list((root / "lake" / "runs" / name).glob("*/rehearsal/verl/state"))
    code, out, err = kedge("plan", name, "--json")
    assert code == 0, err
    (planned,) = json.loads(out)["plans"]
    assert planned["rehearsed"]["hours"] == pytest.approx(planned["steps"] * found["seconds_per_step"] / 3600)
    assert planned["rehearsed"]["memory_bytes"] == found["peak_memory_bytes"]


def test_the_longest_rows_that_verl_takes_are_rehearsed(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    training = prepared(Catalog(find_project(root)), "grpo")
    job = job_of(training)
    fates = pq.read_table(training.fates, columns=["position", "tokens"]).to_pylist()
    allowed = verl_data.taken(job, "rl")
    assert allowed == [row["position"] for row in fates if row["tokens"] <= LIMIT] and len(allowed) < len(fates)
    tokens = {row["position"]: row["tokens"] for row in fates}
    chosen = longest_rows(training.fates, 5, allowed)
    assert len(chosen) == 5 and set(chosen) <= set(allowed)
    assert min(tokens[item] for item in chosen) >= max(tokens[item] for item in allowed if item not in chosen)


@pytest.mark.parametrize(("entry", "lora"), [("rl", True), ("rl", False), ("sft", True), ("sft", False)])
def test_a_rehearsal_saves_at_its_end_and_judges_nothing(entry: str, lora: bool):
    name = "actor_rollout_ref.model.lora_rank" if entry == "rl" else "model.lora_rank"
    contents = f"{verl_rehearsal.CHECKPOINT[entry]}.save_contents"
    config = {"trainer.total_epochs": 1, "trainer.test_freq": 5, "trainer.save_freq": 20} | ({name: 8} if lora else {})
    found = verl_rehearsal.settings(config, entry, 3)
    assert (found["trainer.total_training_steps"], found["trainer.save_freq"], found["trainer.test_freq"]) == (3, 3, -1)
    assert ("hf_model" in found[contents]) is not lora and found[contents][:3] == ["model", "optimizer", "extra"]
    assert config["trainer.save_freq"] == 20, "the run's own options stay"


@pytest.mark.parametrize("harmed", [False, True])
def test_a_rehearsal_of_rl_tells_what_verl_measured_and_whether_the_merged_weights_are_the_trained_ones(
    root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmed: bool
):
    monkeypatch.chdir(root)
    job = job_of(prepared(Catalog(find_project(root)), "grpo"))
    job |= {"output": str(tmp_path / "weights"), "progress": str(tmp_path / "log.jsonl"),
            "rehearsal": {"only": [0], "report": str(tmp_path / "rehearsal.json")}}  # fmt: skip
    state = tmp_path / "verl" / "state"
    shutil.copytree(tiny_model, tmp_path / "weights" / "checkpoint-3")
    (make_teacher if harmed else shutil.copytree)(tiny_model, state / "global_step_3" / "actor" / "huggingface")
    (state / "latest_checkpointed_iteration.txt").write_text("3")
    lines = [{"step": 1, "timing_s/step": 9.0, "actor/pg_loss": 0.5, "actor/perf/max_memory_allocated_gb": 2.0},
             {"step": 2, "timing_s/step": 3.0, "actor/pg_loss": 0.4, "actor/perf/max_memory_allocated_gb": 2.5},
             {"step": 3, "timing_s/step": 7.0, "timing_s/save_checkpoint": 3.0, "actor/pg_loss": 0.3}]  # fmt: skip
    Path(job["progress"]).write_text("".join(json.dumps(line) + "\n" for line in lines))
    verl_rehearsal.report(job, {"entry": "rl", "gpus": 2, "nodes": 1}, [20.0, 23.0, 27.0], 1 << 20)
    found = json.loads((tmp_path / "rehearsal.json").read_text())
    assert found["seconds"] == [9.0, 3.0, 4.0] and found["losses"] == [0.5, 0.4, 0.3] and found["num_processes"] == 2
    assert (found["peak_memory_bytes"], found["device"]) == (int(2.5 * 2**30), "cuda")
    assert found["checkpoint_same"] is not harmed and (found["checkpoint_difference"] == 0) is not harmed
    assert all(0 < item["tokens"] <= 8 for item in found["answers"]), "max_response_length"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kedge is not: an environment of verl, and one of what rewards need."""
    folder = tmp_path_factory.mktemp("elsewhere")
    without_kedge(PYTHON, folder / "verl")
    without_kedge(sys.executable, folder / "rewards")
    return folder


def trained(bundle: Path, elsewhere: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(elsewhere / "verl" / "bin" / "python"), "train.py", "--model", str(model), *more]
    return subprocess.run(command, cwd=bundle, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(("name", "steps"), [("sft", [4, 8]), ("grpo", [2])])
def test_a_bundle_trains_where_kedge_is_not_and_its_checkpoints_come_home(
    root: Path, kedge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: Path, tiny_model: Path, name: str,
    steps: list[int],
):  # fmt: skip
    monkeypatch.chdir(root)
    code, _, err = kedge("train", name, "--bundle", tmp_path / "bundle")
    assert code == 0, err
    bundle = (tmp_path / "bundle").rename(tmp_path / "moved to another place")
    told = "".join(path.read_text() for path in bundle.glob("*.json") if path.stem != "kedge")
    assert str(root) not in told and str(tiny_model) not in told, "a place of this machine"
    more = ["--rewards-python", str(elsewhere / "rewards" / "bin" / "python")] if name == "grpo" else []
    done = trained(bundle, elsewhere, tiny_model, *more)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "verl.trainer" in (bundle / "out" / "command.txt").read_text()
    made = [bundle / "out" / f"checkpoint-{step}" for step in steps]
    assert sorted(path.name for path in (bundle / "out").glob("checkpoint-*")) == [path.name for path in made]
    weights = checkpoints.weights_of(made[0])
    shutil.rmtree(made[0])
    again = trained(bundle, elsewhere, tiny_model, *more)
    assert again.returncode == 0 and len(list((bundle / "out").glob("metrics-*.jsonl"))) == 1, (
        "nothing is trained twice"
    )
    assert checkpoints.weights_of(made[0]) == weights, "what was not merged is"
    code, out, err = kedge("checkpoint", "add", *made, "--run", name)
    assert code == 0, err
    catalog = Catalog(find_project(root))
    found = checkpoints.every(catalog, name)
    assert [item.step for item in found] == steps
    (item, *_) = found
    assert (item.weights, item.base_path, str(item.parent)[:5]) == ("full", None, "base-")
    assert str(item.mixture).startswith(("told@", "asked@")) and None not in (item.audit, item.template, item.tokenizer)
    assert (made[0] / "chat_template.jinja").read_bytes() == (tiny_model / "chat_template.jinja").read_bytes()
    if name == "grpo":
        assert f"{2 * 4 * 2} rollouts" in out


def test_a_bundle_needs_no_rollout_engine_here_and_asks_for_every_weight_and_file(
    root: Path, kedge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
):
    critic, script = root / "critic", Path(kedge_project.__file__).with_name("vowels.py")
    shutil.copytree(tiny_model, critic)
    own = {"actor_rollout_ref.rollout.name": "vllm", "actor_rollout_ref.rollout.n": 1, "critic.model.path": str(critic),
           "reward.custom_reward_function.path": str(script),
           "reward.custom_reward_function.name": "share"}  # fmt: skip
    write_run(root, "served", tiny_model, PRESETS["ppo"] | RL | CRITIC | own, rewards=[])
    monkeypatch.chdir(root)
    assert kedge("audit", "served")[0] == 0
    code, _, err = kedge("train", "served")
    assert code == 2 and "vllm is not installed in verl's environment" in err
    target = tmp_path / "bundle"
    code, _, err = kedge("train", "served", "--bundle", target)
    assert code == 0, err
    assert (target / "files" / "vowels.py").read_bytes() == script.read_bytes()
    needed = (target / "requirements.txt").read_text()
    assert "verl[vllm]==" in needed and "\ntorch==" not in needed and not (target / "source").exists()
    command = [sys.executable, "train.py", "--model", "some/model", "--print"]
    done = subprocess.run(command, cwd=target, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and "--critic.model.path" in done.stderr
    done = subprocess.run([*command, "--critic.model.path", str(critic)], cwd=target, text=True, capture_output=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for expected in ("actor_rollout_ref.model.path=some/model", f"critic.model.path={critic}",
                     f"reward.custom_reward_function.path={target}/files/vowels.py", "ray_init.num_cpus="):  # fmt: skip
        assert expected in done.stdout
    assert not (target / "out" / "command.txt").exists(), "it was printed alone"


def test_what_verl_would_not_take_leaves_no_bundle(
    root: Path, kedge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
):
    write_run(root, "wrong", tiny_model, SFT | {"engine.strategy": "fdsp2"})
    monkeypatch.chdir(root)
    assert kedge("audit", "wrong")[0] == 0
    code, _, err = kedge("train", "wrong", "--bundle", tmp_path / "bundle")
    assert code == 2 and "did you mean 'fsdp2'" in err and not list(tmp_path.iterdir())
