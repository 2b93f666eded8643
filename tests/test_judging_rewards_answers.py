"""The reward components `judge` and `endpoint`: a judge, and a reward model, behind real HTTP on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation import registry
from curation.errors import UserError
from tests.endpoints import Served, says, served
from trainers.rewards import Sample, Score
from trainers.rewards.client import Client, RewardsFailed
from trainers.rewards.combining import components

GOOD = "<think>two and two</think>\n<answer>4</answer>"


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as running:
        yield running


def judged(server: Served, texts: list[str], endpoint: dict[str, Any] | None = None, **options: Any) -> list[Score]:
    reached = {"url": server.url, "model": "m", "tries": 1} | (endpoint or {})
    reward: Any = registry.make("rewards", "judge", {"endpoint": reached} | options)
    return reward.score([Sample(text, prompt_text="What is 2 + 2?") for text in texts])


def test_a_judge_grades_the_answer_after_the_thought(server):
    server.replies = [(503, {}), (200, says('Good. {"score": 3} No: {"score": 7.5}'))]
    server.headers = {"Retry-After": "0"}
    found = judged(server, [GOOD, "<think>4"], {"tries": 2}, rubric="Is it a sum?")
    assert found == [(0.75, "scored"), (None, "unfinished")]
    system, user = server.asked[-1][2]["messages"]
    assert "Is it a sum?" in system["content"] and "What is 2 + 2?" in user["content"]
    assert "<answer>4</answer>" in user["content"] and "two and two" not in user["content"]
    judged(server, [GOOD], thoughts=True)
    assert "two and two" in server.asked[-1][2]["messages"][1]["content"]


@pytest.mark.parametrize(("status", "reply", "outcome"), [
    (200, says("I like it"), "unparsed"), (200, says('{"score": 11}'), "unparsed"), (200, {}, "unparsed"),
    (400, {}, "endpoint"), (500, {}, "endpoint"), (429, {}, "endpoint"), (200, b"<html>", "unparsed"),
    (0, b"", "timeout"),
])  # fmt: skip
def test_a_judge_that_gives_no_grade_is_an_outcome(server, status: int, reply: Any, outcome: str):
    server.replies = [(status, reply)]
    assert judged(server, ["4", "5"], wall_seconds=0.4 if status == 0 else 20) == [(None, outcome)] * 2


def test_a_judge_that_hangs_leaves_the_other_components_of_a_service_alone(server, tmp_path: Path):
    def reply(body: Any):
        return (0, b"") if "slow" in body["messages"][1]["content"] else (200, says('{"score": 10}'))

    server.answer = reply
    endpoint = {"url": server.url, "model": "m", "cache": "judged"}
    settings = {"rewards": [{"name": "judge", "endpoint": endpoint, "wall_seconds": 1}, {"name": "format"}],
                "project": str(tmp_path), "max_failure_share": 1.0}  # fmt: skip
    with Client(settings) as client:
        found = client.score([{"completion": text} for text in ("fine", "slow", "fine too")])
        assert [item["outcomes"]["judge"] for item in found] == ["scored", "timeout", "scored"]
        assert {item["outcomes"]["format"] for item in found} == {"thought"} and client.started == 1
        before = len(server.asked)
        assert client.score([{"completion": "fine"}])[0]["components"]["judge"] == 1 and len(server.asked) == before
    assert len(list((tmp_path / "judged").rglob("*.json"))) == 2


def test_a_judge_that_is_away_for_most_rollouts_ends_the_run(server, tmp_path: Path):
    server.replies = [(500, {})]
    endpoint = {"url": server.url, "model": "m", "tries": 1}
    with Client({"rewards": [{"name": "judge", "endpoint": endpoint}], "project": str(tmp_path)}) as client, \
            pytest.raises(RewardsFailed, match=r"'judge' failed for 8 of 8 rollouts \(endpoint 8\)"):  # fmt: skip
        client.score([{"completion": str(number)} for number in range(8)])


def test_wrong_settings_of_a_judge_are_told_at_once():
    with pytest.raises(UserError) as error:
        components([{"name": "judge", "judge": "scores"}, {"name": "judge", "endpoint": {"modle": "m"}},
                    {"name": "judge", "judge": "compare"},
                    {"name": "endpoint", "url": "http://a:secret@h"}])  # fmt: skip
    told = str(error.value)
    assert "did you mean 'score'" in told and "did you mean 'model'" in told and "kind 'score' is needed" in told
    assert "put the key into an environment variable" in told and "secret" not in told


def test_another_rubric_is_another_reward():
    made = [registry.make("rewards", "judge", options) for options in ({}, {"rubric": "Is it short?"})]
    assert made[0].fingerprint() != made[1].fingerprint() == made[1].fingerprint()


def scored(server: Served, texts: list[str], **options: Any) -> list[Score]:
    reward: Any = registry.make("rewards", "endpoint", {"url": f"{server.url}/score", "tries": 1} | options)
    return reward.score([Sample(text) for text in texts])


def test_a_reward_model_scores_a_batch_by_one_request(server, monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "sesame")
    server.replies = [(200, lambda body: {"data": [{"data": [len(text)]} for text in body["input"]]})]
    assert scored(server, ["a", "<think>b", "abc"], scale=(0, 4), key_variable="SCORE_KEY") == [
        (3, "scored"), (None, "unfinished"), (4, "scored")]  # fmt: skip
    assert [(path, key) for path, key, _ in server.asked] == [("/v1/score", "Bearer sesame")]
    server.replies = [(200, {"scores": [1.0]})]
    assert scored(server, ["a", "b"]) == [(None, "wrong_length")] * 2


@pytest.mark.parametrize(("status", "reply", "outcome"), [
    (500, {}, "endpoint"), (404, {}, "endpoint"), (200, {}, "unreadable"), (200, [], "unreadable"),
    (200, {"scores": ["good"]}, "unreadable"), (200, {"data": [{}]}, "unreadable"), (200, b"no", "unreadable"),
    (0, b"", "timeout"),
])  # fmt: skip
def test_a_reward_model_that_gives_no_score_is_an_outcome(server, status: int, reply: Any, outcome: str):
    server.replies = [(status, reply)]
    assert scored(server, ["a"], wall_seconds=0.4 if status == 0 else 20) == [(None, outcome)]
    assert scored(server, ["a"], url="http://127.0.0.1:9") == [(None, "endpoint")]
