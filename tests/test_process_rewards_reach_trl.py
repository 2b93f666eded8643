"""GRPO of TRL trains on a judge's grades and on scores of steps, and every step's score is evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.endpoints import says, served
from tests.trl_runs import RL, make_project, train_here, write_run


def reply(body: Any) -> tuple[int, Any]:
    """Half of the scale for an answer, and for each step its share of the steps."""
    system, user = (turn["content"] for turn in body["messages"])
    number = len(re.findall(r"</step-\d+-", user))
    grades = {"scores": [(place + 1) / number for place in range(number)]} if number else {"score": 5}
    assert ("exactly" in system) == bool(number)
    return 200, says(json.dumps(grades))


def test_grpo_trains_on_a_judge_and_on_steps(tmp_path: Path, tiny_model: Path, monkeypatch, kedge):
    root = make_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(root)
    train_here(monkeypatch)
    (root / "mine.py").write_text("def length(samples): return [len(item.completion) / 100 for item in samples]\n")
    with served() as server:
        server.answer = reply
        endpoint = {"url": server.url, "model": "m", "cache": "lake/judged"}
        rewards = [{"name": "judge", "endpoint": endpoint},
                   {"name": "steps", "by": "line", "scorer": {"name": "judge", "endpoint": endpoint}},
                   {"name": "steps", "scorer": {"name": "function", "path": "mine.py:length"}}]  # fmt: skip
        write_run(root, "process", tiny_model, "trl_grpo", "prompts", RL, {"rewards": rewards})
        for command in ("audit", "train"):
            code, out, err = kedge(command, "process")
            assert code == 0, out + err
    code, out, _ = kedge("sql", "SELECT components, outcomes FROM rollouts", "--json")
    assert code == 0
    rollouts = [{name: json.loads(text) for name, text in row.items()} for row in json.loads(out)]
    assert len(rollouts) >= 8
    for rollout in rollouts:
        assert rollout["outcomes"]["judge"] in ("scored", "unfinished"), rollout
        if rollout["outcomes"]["steps"] == "scored":
            each = [float(text) for text in rollout["outcomes"]["steps.each"].split()]
            assert len(each) == rollout["components"]["steps.each"] and min(each) == rollout["components"]["steps"]
            assert rollout["components"]["judge"] == 0.5 and rollout["components"]["steps_2"] > 0
    assert any(rollout["outcomes"]["steps"] == "scored" for rollout in rollouts)
