"""`kedge train` with `num_processes: 2` on the CPU: two processes train as one with twice the batch, register each
checkpoint once, end at the same step, refuse rows that were not audited, and none of them outlives its command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curation import checkpoints
from curation.catalog import Catalog, write_parquet
from curation.config import find_project
from tests.trl_runs import make_project, train_here, write_run

# Two processes add up their gradients in another order than one does: float32 keeps seven digits, three steps of Adam
# cost one or two (3e-6 was seen).
TOLERANCE = 2e-5
OPTIONS = {"max_steps": 3, "save_steps": 2, "eval_strategy": "no", "lr_scheduler_type": "constant"}
ONE, TWO = {"per_device_train_batch_size": 2}, {"per_device_train_batch_size": 1}
SFT = OPTIONS | {"assistant_only_loss": True}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Pairs, and conversations whose answers have one to sixteen sentences."""
    from curation import cli
    from curation.quickstart.journey import inside

    root = make_project(tmp_path_factory.mktemp("two"), tiny_model)
    talks = [[{"role": "user", "content": f"{n} times 2?"}, {"role": "assistant", "content": f"It is {2 * n}. " * n}]
             for n in range(1, 17)]  # fmt: skip
    (root / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    (root / "catalogs" / "mixtures" / "talks.sql").write_text(
        "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\nrendering: trl_assistant\n--- */\n"
        "SELECT row_id FROM kept"
    )
    with inside(root):
        for command in (["add", "talks.jsonl", "--stage", "sft"], ["mix", "build", "talks"], ["mix", "build", "pairs"]):
            assert cli.run(command) == 0
    return root


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.chdir(project)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Catalog(find_project(project))


def trained_by_one(kedge: Callable[..., tuple[int, str, str]], name: str) -> None:
    assert kedge("audit", name)[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        assert kedge("train", name)[0] == 0


def logged(catalog: Catalog, run: str, name: str = "loss") -> dict[int, float]:
    lines = next(catalog.folder("runs", run).glob("*/log.jsonl")).read_text().splitlines()
    return {line["step"]: line[name] for line in map(json.loads, lines) if name in line}


def assert_equal(catalog: Catalog, two: str, one: str) -> None:
    """The first three steps of two runs."""
    for name in ("loss", "grad_norm", "num_tokens"):
        found, wanted = ([logged(catalog, run, name)[step] for step in (1, 2, 3)] for run in (two, one))
        assert found == pytest.approx(wanted, rel=TOLERANCE)
        assert len(set(wanted)) == 3


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pairs_are_trained_by_two_processes_as_by_one(inside: Catalog, project: Path, kedge, tiny_model: Path):
    write_run(project, "one", tiny_model, "trl_dpo", "pairs", OPTIONS | ONE, {})
    write_run(project, "two", tiny_model, "trl_dpo", "pairs", OPTIONS | TWO, {"num_processes": 2})
    trained_by_one(kedge, "one")
    assert kedge("audit", "two")[0] == 0
    code, _, err = kedge("train", "two")
    assert code == 0, err
    assert_equal(inside, "two", "one")
    assert [item.step for item in checkpoints.every(inside, "two")] == [2, 3]


def test_conversations_too_though_the_command_was_killed_and_then_stopped(
    inside: Catalog, project: Path, kedge, tiny_model: Path
):
    write_run(project, "talk", tiny_model, "trl_sft", "talks", SFT | TWO | {"max_steps": 99_999}, {"num_processes": 2})
    assert kedge("audit", "talk")[0] == 0
    killed_with_everything(inside, project, "talk")
    last, before = checkpoints.every(inside, "talk")[-1].step, set(psutil.Process().children(recursive=True))

    log = next(inside.folder("runs", "talk").glob("*/log.jsonl"))
    stopper = threading.Thread(target=stop_behind, args=(log, last), daemon=True)
    stopper.start()
    code, _, err = kedge("train", "talk")
    stopper.join()
    assert code == 1 and "a monitor stopped talk" in err and "going on from" in err, err
    end = checkpoints.every(inside, "talk")[-1].step
    assert last < end == max(logged(inside, "talk")) < 99_999
    assert set(psutil.Process().children(recursive=True)) <= before

    write_run(project, "alone", tiny_model, "trl_sft", "talks", SFT | ONE, {})
    trained_by_one(kedge, "alone")
    assert_equal(inside, "talk", "alone")


def killed_with_everything(catalog: Catalog, project: Path, run: str) -> None:
    """`kill -9` of the command alone, once a checkpoint is registered: the processes that it started end too."""
    command = [sys.executable, "-m", "curation.cli", "train", run]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: process.poll() is not None or max(logged(catalog, run), default=0) > 3
          if checkpoints.every(catalog, run) else process.poll() is not None)  # fmt: skip
    started = psutil.Process(process.pid).children(recursive=True)
    assert sum("trainers.process" in item.cmdline() for item in started) == 3, "a launcher and two that train"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive, [item.cmdline() for item in alive]


def stop_behind(log: Path, step: int) -> None:
    """What a monitor of level stop does, once a step behind `step` is logged anew."""
    size = log.stat().st_size
    until(lambda: log.stat().st_size > size and f'"step": {step + 1},' in log.read_text()[size:])
    log.with_name("stop").touch()


def test_both_processes_refuse_rows_that_are_not_those_of_the_audit(inside: Catalog, project: Path, kedge, tiny_model):
    write_run(project, "other", tiny_model, "trl_sft", "talks", SFT | TWO, {"num_processes": 2})
    assert kedge("audit", "other")[0] == 0
    path = next(inside.folder("audits", "other").rglob("fates.parquet"))
    fates = pq.read_table(path)
    place, changed = fates.schema.get_field_index("kept_tokens"), pc.add(fates["kept_tokens"], 1)
    path.unlink()
    write_parquet(path, fates.set_column(place, "kept_tokens", changed))
    code, _, err = kedge("train", "other")
    said = " ".join(err.split())
    assert code == 4 and "the trainer's rows are not those of the audit: row " in said and "and 11 more" in said
    assert "Traceback" not in err and not checkpoints.every(inside, "other")
    log = next(inside.folder("runs", "other").glob("*/process.log")).read_text()
    assert "exitcode  : 4" in log, log[-3000:]
