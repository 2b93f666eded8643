"""`kedge generate` behind an endpoint: what is sent, what a reply becomes, and what is asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.generation import Ask, Sampling
from curation.generation.openai_endpoint import OpenAIEndpoint
from tests.endpoints import Served, says, served
from tests.generating import QUESTIONS, make_project, pair, write_job

KEY = "sesame-4711"
CALLS = [{"role": "user", "content": "Weather?"},
         {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {
             "name": "weather", "arguments": "{}"}}]},
         {"role": "tool", "content": "rain", "tool_call_id": "1"}]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    calling = pair("x", tools=[{"type": "function"}]) | {"prompt": CALLS}
    root = make_project(tmp_path / "project", [*(pair(question) for question in QUESTIONS), calling])
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as running:
        running.headers = {"Retry-After": "0"}
        yield running


def endpoint(server: Served, **options: Any) -> dict[str, Any]:
    return {"name": "openai_endpoint", "url": server.url, "model": "m", "tries": 1, "timeout_seconds": 20} | options


def completion(content: Any, reason: str = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": content} | message,
                                          "finish_reason": reason}]}  # fmt: skip
    return found | ({"usage": usage} if usage is not None else {})


def run(kedge: Any, code: int = 0) -> dict[str, Any]:
    found, out, err = kedge("generate", "answers", "--json")
    assert found == code, err
    assert KEY not in out + err
    return json.loads(out)


def generation(kedge: Any) -> list[dict[str, Any]]:
    return json.loads(kedge("sql", "SELECT * FROM generation ORDER BY ALL", "--json")[1])


def test_every_sample_is_a_request_of_its_own_and_the_key_stays_outside_the_lake(project, server, kedge, monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    server.answer = lambda body: (200, completion(f"I say {body['seed']}", usage={"prompt_tokens": 9,
                                                                                 "completion_tokens": 4}))  # fmt: skip
    write_job(project, generator=endpoint(server, key_variable="THE_KEY", body={"max_tokens": None, "top_k": 5}),
              temperatures=[0.5, 0], top_p=0.9)  # fmt: skip
    told = run(kedge)
    assert (told["prompts"], told["samples"], told["output_tokens"], told["weights"]) == (4, 12, 48, "m")
    assert len(server.asked) == 12 and {path for path, _, _ in server.asked} == {"/v1/chat/completions"}
    assert {key for _, key, _ in server.asked} == {f"Bearer {KEY}"}
    bodies = [body for _, _, body in server.asked]
    assert len({body["seed"] for body in bodies}) == 12 and all(0 <= body["seed"] < 2**31 for body in bodies)
    for body in bodies:
        assert (body["model"], body["top_p"], body["top_k"], body["n"]) == ("m", 0.9, 5, 1)
        assert "max_tokens" not in body and body["temperature"] in (0, 0.5)
        assert all(set(turn) <= {"role", "content", "tool_calls", "tool_call_id"} for turn in body["messages"])
    called = next(body for body in bodies if len(body["messages"]) == 3)
    assert called["messages"][1]["tool_calls"] == CALLS[1]["tool_calls"] and called["tools"] == [{"type": "function"}]
    rows = generation(kedge)
    assert {row["text"] for row in rows} == {f"I say {row['seed']}" for row in rows}
    for path in (project / "lake").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize(("reply", "text", "reason", "detail"), [
    (completion("cut", "length"), "cut", "length", None),
    (completion(None, "length"), "", "length", None),
    (completion("4", reasoning_content="two and two"), "4", "stop", None),
    (completion(None, "tool_calls", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), "", "stop", None),
    (completion(None, refusal="I will not."), "I will not.", "stop", None),
    (completion("bad", "content_filter"), "bad", "error", "the endpoint ended it: 'content_filter'"),
    (completion(None), "", "error", "has no content"),
    (completion([{"type": "image_url", "image_url": "x"}]), "", "error", "which is no text"),
    (completion("half \ud83d"), "", "error", "lone surrogate"),
    ({"choices": []}, "", "error", "the reply holds no message"),
    ({"choices": [{"message": None}]}, "", "error", "the reply holds no message"),
    ([1], "", "error", "the reply holds no message"),
    (b"<html>", "", "error", "unreadable"),
])  # fmt: skip
def test_a_reply_becomes_an_answer_or_says_why_not(server, reply, text, reason, detail):
    server.replies = [(200, reply)]
    generator = OpenAIEndpoint(url=server.url, model="m", tries=1)
    ask = Ask("a" * 32, "p", [{"role": "user", "content": "?"}], None, 0, 1.0, 5)
    ((answer,),) = generator.generate(None, [ask], Sampling(1.0, 8))
    assert (answer.id, answer.text, answer.finish_reason) == (ask.id, text, reason)
    assert (detail or "") in answer.detail and bool(detail) == bool(answer.detail)
    if "reasoning_content" in str(reply):
        assert answer.message == {"role": "assistant", "content": "4", "reasoning": "two and two"}
    if "arguments" in str(reply):
        assert answer.message is not None and json.loads(answer.message["tool_calls"])[0]["function"]["name"] == "f"


def test_what_failed_is_a_row_that_says_why_and_is_asked_again(project, server, kedge):
    server.answer = lambda body: (500, {}) if "10 plus 7" in str(body) else (200, says("yes"))
    write_job(project, generator=endpoint(server))
    told = run(kedge)
    assert told["finish_reasons"] == {"stop": 6, "length": 0, "error": 2} and told["generated"] == 6
    wrong = [row for row in generation(kedge) if row["finish_reason"] == "error"]
    assert len(wrong) == 2 and all("HTTP 500" in row["detail"] and row["messages"] is None for row in wrong)
    ids = {row["generation_id"] for row in generation(kedge)}
    server.asked.clear()
    server.answer = lambda body: (200, says("now"))
    told = run(kedge)
    assert (told["already_there"], told["generated"], len(server.asked)) == (6, 2, 2)
    rows = generation(kedge)
    assert {row["generation_id"] for row in rows} == ids and sorted(row["text"] for row in rows)[:2] == ["now"] * 2
    assert len(list((project / "lake" / "evidence" / "generation").iterdir())) == 1


def test_an_endpoint_that_is_away_is_not_asked_for_ever_and_ends_with_4(project, server, kedge):
    server.answer = lambda body: (503, {})
    write_job(project, generator=endpoint(server, concurrency=2), n=50)
    code, _, err = kedge("generate", "answers")
    assert code == 4 and "none of the 200 answers came" in err and "kedge generate answers" in err
    assert 8 <= len(server.asked) <= 40
    details = {row["detail"].split(":")[0] for row in generation(kedge)}
    assert details >= {"endpoint"} and any(text.startswith("not asked, because") for text in details)


def test_an_endpoint_that_hangs_is_a_timeout(project, server, kedge):
    server.answer = lambda body: (0, None) if "10 plus 7" in str(body) else (200, says("yes"))
    write_job(project, generator=endpoint(server, timeout_seconds=0.5, concurrency=3), n=4)
    told = run(kedge)
    assert told["finish_reasons"] == {"stop": 12, "length": 0, "error": 4}
    assert {row["detail"].split(":")[0] for row in generation(kedge) if row["detail"]} == {"timeout"}


def test_as_many_requests_as_allowed_are_under_way(project, server, kedge):
    def slow(body: Any) -> Any:
        time.sleep(0.05)
        return says("yes")

    server.replies = [(200, slow)]
    write_job(project, generator=endpoint(server, concurrency=3), n=4)
    assert run(kedge)["generated"] == 16 and 2 <= server.most <= 3


def test_another_port_or_pace_asks_nothing_again_and_another_name_everything(project, server, kedge):
    server.replies = [(200, says("yes"))]
    write_job(project, generator=endpoint(server))
    run(kedge)
    with served() as other:
        other.replies = [(200, says("other"))]
        write_job(project, generator=endpoint(other, concurrency=1, tries=3))
        assert run(kedge)["generated"] == 0 and not other.asked
        write_job(project, generator=endpoint(other, model="m2"))
        assert run(kedge)["generated"] == 8
    assert {row["text"] for row in generation(kedge)} == {"other"}
