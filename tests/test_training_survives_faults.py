"""Rewards that fail, monitors that stop, kills in the middle of a save, changed bases: what a real run makes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from tests.trl_runs import RL, make_project, train_here, write_run

FAULTS = """
import time

def by_step(samples):
    fault = (samples[0].step or 0) % 5
    if fault == 0:
        raise RuntimeError("no reward today")
    if fault == 1:
        return [float("nan")] * len(samples)
    if fault == 2:
        return [1.0]
    if fault == 3:
        time.sleep(600)
    return [0.25] * len(samples)

def never(samples):
    raise RuntimeError("no reward ever")
"""
OUTCOMES = {0: "exception", 1: "nan", 2: "wrong_length", 3: "timeout", 4: "scored"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Pairs and prompts, a base model of the project's own, and functions that fail."""
    root = make_project(tmp_path_factory.mktemp("faults"), tiny_model)
    shutil.copytree(tiny_model, root / "base")
    (root / "faults.py").write_text(FAULTS)
    return root


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.chdir(project)
    train_here(monkeypatch)
    return Catalog(find_project(project))


def grpo(project: Path, name: str, options: dict[str, Any], **more: Any) -> None:
    rewards = [{"name": "answer"}, {"name": "function", "path": "faults.py:by_step", "weight": 0.5}]
    write_run(project, name, project / "base", "trl_grpo", "prompts", RL | options, {"rewards": rewards, **more})


def asked(kedge: Callable[..., tuple[int, str, str]], query: str) -> list[dict[str, Any]]:
    code, out, err = kedge("sql", query, "--json")
    assert code == 0, err
    return json.loads(out)


def audited(kedge: Callable[..., tuple[int, str, str]], name: str) -> None:
    code, out, err = kedge("audit", name)
    assert code == 0, out + err


def test_a_run_goes_on_where_its_reward_fails_and_every_failure_is_evidence(inside: Catalog, project: Path, kedge):
    limits = {"value": -1.0, "max_share": 1.0, "wall_seconds": 0.5}
    two = {"num_generations": 2, "per_device_train_batch_size": 2}
    grpo(project, "failing", {"max_steps": 5, "save_steps": 5, **two}, reward_failures=limits)
    audited(kedge, "failing")
    code, _, err = kedge("train", "failing")
    assert code == 0, err
    rows = asked(kedge, "SELECT step, outcomes->>'function' AS outcome, components->>'function' AS value, "
                 "any_value(reward - coalesce((components->>'answer')::DOUBLE, 0)) AS rest, count(*) AS num_rows "
                 "FROM rollouts WHERE run = 'failing' AND split = 'train' GROUP BY ALL ORDER BY step")  # fmt: skip
    assert {row["step"]: row["outcome"] for row in rows} == OUTCOMES
    assert [row["num_rows"] for row in rows] == [2] * 5
    assert [row["value"] for row in rows] == [None] * 4 + ["0.25"]
    assert [row["rest"] for row in rows] == [-0.5] * 4 + [0.125]
    (rates,) = asked(kedge, "SELECT count(*) AS num_rows, sum(num_rollouts)::BIGINT AS rollouts, "
                     "count(*) FILTER (k.row_id IS NOT NULL) AS known FROM pass_rates p LEFT JOIN rows k "
                     "USING (row_id) WHERE run = 'failing'")  # fmt: skip
    assert rates["rollouts"] == 10 and rates["known"] == rates["num_rows"] <= 5
    assert checkpoints.find(inside, "failing@5").weights == "full"


def test_a_reward_that_fails_too_often_ends_the_run_with_its_own_words(inside: Catalog, project: Path, kedge):
    rewards = [{"name": "function", "path": "faults.py:never"}]
    grpo(project, "hopeless", {"max_steps": 6, "save_steps": 1}, rewards=rewards)
    audited(kedge, "hopeless")
    code, _, err = kedge("train", "hopeless")
    assert code == 4 and "Traceback" not in err
    said = " ".join(err.split())
    assert "the reward 'function' failed for 8 of 8 rollouts (exception 8)" in said
    assert "no reward ever" in said and "process.log" in said
    assert [item.step for item in checkpoints.every(inside, "hopeless")] == [1]
    (evidence,) = asked(kedge, "SELECT count(*) AS num_rows FROM rollouts WHERE run = 'hopeless'")
    assert evidence["num_rows"] >= 4, "what came before the end is evidence too"


def test_a_monitor_that_stops_a_run_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    inside: Catalog, project: Path, kedge
):
    told = 'echo "$KEDGE_MONITOR $KEDGE_STEP $KEDGE_RUN" >> stopped.txt'
    monitor = {"name": "truncation_share", "level": "stop", "limit": 0.01, "steps": 2, "command": told}
    options = {"max_steps": 40, "save_steps": 40, "max_completion_length": 2}
    grpo(project, "watched", options, rewards=[{"name": "answer"}], monitors=[monitor])
    audited(kedge, "watched")
    code, _, err = kedge("train", "watched")
    assert code == 1 and "a monitor stopped watched" in err and "Traceback" not in err, err
    (saved,) = checkpoints.every(inside, "watched")
    assert 2 <= saved.step < 40 and checkpoints.weights_of(saved.folder(inside))[1] == saved.weights_hash
    name, step, run = (project / "stopped.txt").read_text().split()
    assert (name, run) == ("truncation_share", "watched") and int(step) <= saved.step
    code, _, err = kedge("train", "watched")
    assert code == 0 and "going on from" in err, err
    assert [item.step for item in checkpoints.every(inside, "watched")] == [saved.step, 40]
    log = next(inside.folder("runs", "watched").glob("*/log.jsonl")).read_text().splitlines()
    assert [line["step"] for line in map(json.loads, log) if "loss" in line] == list(range(1, 41))


def test_hours_that_are_over_end_a_run_with_a_checkpoint(inside: Catalog, project: Path, kedge):
    write_run(project, "short", project / "base", "trl_dpo", "pairs", {"max_steps": 50}, {"max_hours": 1e-9})
    audited(kedge, "short")
    code, _, err = kedge("train", "short")
    assert code == 4 and "max_hours 1e-09 are over after step 1" in " ".join(err.split())
    assert [item.step for item in checkpoints.every(inside, "short")] == [1]


def test_a_kill_in_the_middle_of_a_save_leaves_no_half_checkpoint_in_the_list(inside: Catalog, project: Path, kedge):
    write_run(project, "killed", project / "base", "trl_dpo", "pairs", {"max_steps": 4, "save_steps": 2}, {})
    audited(kedge, "killed")
    command = [sys.executable, "-m", "curation.cli", "train", "killed"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs, deadline = inside.folder("runs", "killed"), time.monotonic() + 300
    while not list(runs.glob("*/weights/checkpoint-2/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    everything = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for item in everything:
        os.kill(item.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(everything, timeout=20)
    code, out, err = kedge("checkpoint", "list", "--json")
    assert code == 0, err
    listed = [item for item in json.loads(out) if item["run"] == "killed"]
    assert not listed, "the kill came too late to prove anything"
    assert kedge("train", "killed")[0] == 0
    made = checkpoints.every(inside, "killed")
    assert [item.step for item in made] == [2, 4]
    assert all(checkpoints.weights_of(item.folder(inside))[1] == item.weights_hash for item in made)


def test_an_adapter_is_not_trained_on_or_merged_over_another_base(inside: Catalog, project: Path, kedge, tiny_model):
    lora = {"r": 2, "target_modules": ["q_proj"]}
    one = {"max_steps": 1, "save_steps": 1}
    write_run(project, "adapter", project / "base", "trl_dpo", "pairs", {**one, "lora": lora}, {})
    audited(kedge, "adapter")
    assert kedge("train", "adapter")[0] == 0
    for name, origin, options in (("after", "parent", one), ("longer", "extends", {"max_steps": 2, "lora": lora})):
        write_run(project, name, Path(), "trl_dpo", "pairs", options, {})
        path = project / "catalogs" / "runs" / f"{name}.yaml"
        value = yaml.safe_load(path.read_text())
        del value["base"]
        path.write_text(yaml.safe_dump(value | {origin: "adapter"}))
        audited(kedge, name)
    (project / "catalogs" / "runs" / "adapter.yaml").unlink()  # else its base would be refused before the adapter
    shutil.copyfile(project / "teacher" / "model.safetensors", project / "base" / "model.safetensors")
    try:
        for name in ("after", "longer"):
            code, _, err = kedge("train", name)
            said = " ".join(err.split())
            assert code == 2 and "is another base than" in said and "the adapter was trained on" in said, err
            assert not checkpoints.every(inside, name)
    finally:
        shutil.copyfile(tiny_model / "model.safetensors", project / "base" / "model.safetensors")
