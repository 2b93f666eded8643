"""Monitors while a run trains: findings once, stops and commands, going on from a checkpoint, rules of a run file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from curation.errors import UserError
from curation.run_files import MonitorUse
from trainers.monitors.following import everything, look, read_findings, start, watched
from trainers.monitors.rollouts import summary
from trainers.monitors.rules import judge, readable, rules_for


def job_in(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "rollouts").mkdir(exist_ok=True)
    return {"project": str(folder), "trainer": "trl_grpo", "stage": "rlvr", "progress": str(folder / "log.jsonl"),
            "stop": str(folder / "stop"), "evidence": str(folder / "rollouts"), "output": str(folder / "weights"),
            "resume": None, "held_out": [], "record": {"run": "rl"}} | more  # fmt: skip


def write(folder: Path, first: int, last: int, **faults: float) -> None:
    with (folder / "log.jsonl").open("a") as stream:
        for step in range(first, last + 1):
            line = {"step": step, "max_steps": 400, "loss": 0.01, "grad_norm": 0.3, "entropy": 0.7} | faults
            stream.write(json.dumps(line) + "\n")


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_finding_is_told_while_the_run_goes_on_and_a_stop_runs_the_command(tmp_path: Path, capfd):
    command = 'echo "$KEDGE_RUN $KEDGE_MONITOR $KEDGE_STEP $KEDGE_LEVEL" > told.txt; exit 3'
    rules = rules_for("rlvr", [MonitorUse(name="non_finite", command=command)])
    with watched(job_in(tmp_path), rules, 0.01):
        write(tmp_path, 1, 5)
        write(tmp_path, 6, 6, grad_norm=float("nan"))
        until(lambda: (tmp_path / "stop").exists() and (tmp_path / "told.txt").exists())
    assert (tmp_path / "told.txt").read_text() == "rl non_finite 6 stop\n"
    printed = capfd.readouterr().err
    assert printed.count("non_finite at step 6 (stop): gradient is no finite number") == 1
    assert "the command of non_finite ended with 3" in printed
    [finding] = read_findings(tmp_path)
    assert (finding.name, finding.step, finding.level) == ("non_finite", 6, "stop")


def test_what_is_known_is_not_told_again_where_training_goes_on_behind_it(tmp_path: Path, capfd):
    rules = rules_for("rlvr")
    watch = start(job_in(tmp_path), rules)
    write(tmp_path, 1, 30, entropy=0.7)
    look(watch)
    write(tmp_path, 31, 100, entropy=0.1)
    look(watch)
    assert [item.name for item in read_findings(tmp_path)] == ["entropy_collapse"]
    first = (tmp_path / "monitors.jsonl").read_bytes()
    watch = start(job_in(tmp_path, resume=str(tmp_path / "weights" / "checkpoint-100")), rules)
    look(watch, anew=True)
    write(tmp_path, 101, 120, entropy=0.1)
    look(watch, last=True)
    assert (tmp_path / "monitors.jsonl").read_bytes() == first
    assert not (tmp_path / "stop").exists()


def test_a_fault_that_comes_back_behind_the_checkpoint_stops_the_run_again(tmp_path: Path):
    rules = rules_for("rlvr")
    watch = start(job_in(tmp_path), rules)
    write(tmp_path, 1, 15)
    write(tmp_path, 16, 18, grad_norm=float("nan"))
    look(watch)
    (tmp_path / "stop").unlink()
    watch = start(job_in(tmp_path, resume=str(tmp_path / "weights" / "checkpoint-10")), rules)
    look(watch, anew=True)
    assert not (tmp_path / "stop").exists()
    write(tmp_path, 11, 15)
    write(tmp_path, 16, 16, grad_norm=float("nan"))
    look(watch)
    assert (tmp_path / "stop").exists()
    assert [item.step for item in read_findings(tmp_path)] == [16, 16]


def test_steps_that_were_trained_again_count_once(tmp_path: Path):
    write(tmp_path, 1, 20, entropy=0.7)
    write(tmp_path, 11, 15, entropy=0.5)
    entropy = everything(job_in(tmp_path)).get("entropy")
    assert entropy.steps.tolist() == list(range(1, 16))
    assert entropy.values[[9, 10]].tolist() == [0.7, 0.5]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path):
    write(tmp_path, 1, 2)
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 3, "los')
    assert everything(job_in(tmp_path)).get("loss").steps.tolist() == [1, 2]


def test_verls_own_lines_are_read_and_their_nulls_are_no_numbers(tmp_path: Path):
    lines = [{"step": step, "data": {"actor/grad_norm": 0.3 if step < 3 else None, "actor/entropy": 0.7,
                                     "val-core/gsm8k/acc/mean@1": 0.4, "val-core/math/acc/mean@1": 0.2}}
             for step in (1, 2, 3)]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = job_in(tmp_path, trainer="verl_rl")
    assert everything(job).get("held_out_score").values.tolist() == pytest.approx([0.3] * 3)
    assert [(item.name, item.step) for item in judge(everything(job), rules_for("rlvr"))] == [("non_finite", 3)]


def rollout(step: int, row: str, answer: str, reward: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "row_id": row, "answer": answer, "reward": reward, "components": {"answer": reward},
            "completion": f"I add the two numbers and get {answer} in the end"} | more  # fmt: skip


def test_rollouts_of_a_step_say_how_diverse_they_are():
    groups = [rollout(1, "a", "4", 1.0), rollout(1, "a", "4", 1.0), rollout(1, "b", "7", 0.0),
              rollout(1, "b", "8", 0.0), rollout(1, "c", "5", 0.0), rollout(1, "c", "6", 1.0)]  # fmt: skip
    found = summary(groups)
    assert found["equal_groups"] == pytest.approx(2 / 3)
    assert found["unique_answers"] == 1.0  # of b and c; a is solved
    assert found["components/answer"] == 0.5
    assert summary([rollout(1, "b", "7", 0.0), rollout(1, "b", "7", 0.0), rollout(1, "c", "6", 1.0),
                    rollout(1, "c", "5", 0.0)])["unique_answers"] == 0.5  # fmt: skip
    assert summary([rollout(1, "a", "4", 1.0)] * 2)["distinct_ngrams"] == pytest.approx(0.5)


def test_rollouts_that_verl_dumped_are_read_by_their_own_names():
    scored = [("2+2?", 1.0), ("2+2?", 0.0), ("1+1?", 0.0), ("1+1?", 0.0)]
    lines = [{"input": prompt, "output": f"it is {number}, I think", "gts": "4", "score": score, "step": 3, "uid": "a"}
             for number, (prompt, score) in enumerate(scored)]  # fmt: skip
    found = summary(lines)
    assert (found["equal_groups"], found["unique_answers"]) == (0.5, 1.0)


def test_rollouts_are_read_as_they_are_written_and_judged_when_their_step_is_over(tmp_path: Path):
    job = job_in(tmp_path)
    watch = start(job, rules_for("rlvr"))
    write(tmp_path, 1, 60)
    with (tmp_path / "rollouts" / "1.jsonl").open("w") as stream:
        for step in range(1, 61):
            for place in range(4):
                answer = f"{place}" if step < 30 else "9"
                stream.write(json.dumps(rollout(step, f"row{place // 2}", answer, float(place == 0))) + "\n")
        stream.write(json.dumps(rollout(60, "held", "1", 1.0, split="held_out")) + "\n")
    look(watch)
    assert {item.name for item in read_findings(tmp_path)} == {"unique_answers", "distinct_ngrams"}
    run = everything(job)
    assert run.get("components").values[0] == 0.25
    assert readable(run, next(rule for rule in rules_for("rlvr") if rule.name == "advantage_collapse"))
    assert not readable(run, next(rule for rule in rules_for("rlvr") if rule.name == "kl_runaway"))


def test_a_run_file_changes_joins_and_leaves_out_monitors():
    uses = [MonitorUse(name="entropy_collapse", share=0.3, level="stop"), MonitorUse(name="clip_share", level="off"),
            MonitorUse(name="loss_spike"), MonitorUse(name="non_finite")]  # fmt: skip
    rules = {rule.name: rule for rule in rules_for("rlvr", uses)}
    assert (rules["entropy_collapse"].level, rules["entropy_collapse"].options["share"]) == ("stop", 0.3)
    assert rules["entropy_collapse"].options["steps"] == 50
    assert "clip_share" not in rules
    assert rules["loss_spike"].level == "warn"
    assert rules["non_finite"].level == "stop"  # its own default, since the file gives none


def test_everything_wrong_in_the_rules_is_told_at_once():
    uses = [MonitorUse(name="entropy_colapse"), MonitorUse(name="kl_runaway", facter=2, floor=-1),
            MonitorUse(name="clip_share", command="true"), MonitorUse(name="loss_spike"),
            MonitorUse(name="loss_spike")]  # fmt: skip
    with pytest.raises(UserError) as error:
        rules_for("rlvr", uses, "catalogs/runs/rl.yaml")
    told = str(error.value).splitlines()
    assert len(told) == 5
    assert "there is no monitor 'entropy_colapse'; did you mean 'entropy_collapse'?" in told[0]
    assert any("monitors.1.kl_runaway.facter: unknown key; did you mean 'factor'?" in line for line in told)
    assert any("monitors.1.kl_runaway.floor" in line and "greater than 0" in line for line in told)
    assert any("monitors.2.clip_share.command" in line and "level: stop" in line for line in told)
    assert any("'loss_spike' stands here twice" in line for line in told)
