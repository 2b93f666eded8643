"""`kedge annotate add JOB --judge`: a judge votes in both slot orders, and only what it says twice is a vote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.annotation import store
from curation.annotation.adding import add_votes
from curation.annotation.judged import add_judged, spoken
from curation.errors import UserError
from curation.judging import JudgeSettings
from tests.endpoints import Served, says, served


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served() as running:
        monkeypatch.setenv("KEDGE_JUDGE_URL", running.url)
        monkeypatch.setenv("KEDGE_JUDGE_MODEL", "m1")
        monkeypatch.setenv("KEDGE_ANNOTATOR_KEY", "key")
        yield running


def told(body: Any) -> str:
    return body["messages"][-1]["content"]


def likes(word: str, otherwise: str = "tie"):
    """A judge that takes the answer with `word` in it, whichever slot it stands in."""

    def answer(body: Any) -> tuple[int, Any]:
        slots = re.findall(r"<([AB])-[0-9a-f]+>\n(.*?)\n</", told(body), re.DOTALL)
        fitting = [slot for slot, text in slots if word in text]
        return 200, says(json.dumps({"verdict": fitting[0] if len(fitting) == 1 else otherwise}))

    return answer


def job_of(catalog, pairs: list[tuple[str, str]], **more: Any) -> None:
    records = [{"item": f"q{n}", "annotator": "anna", "verdict": "A", "prompt": f"What is {n}?", "response_a": one,
                "response_b": other} | more for n, (one, other) in enumerate(pairs)]  # fmt: skip
    Path("votes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    add_votes(catalog, Path("votes.jsonl"), "job")


def judged(catalog) -> dict[str, dict[str, Any]]:
    names = {item["item_id"]: json.loads(item["meta"])["item"] for item in store.read_items(catalog, "job").to_pylist()}
    return {names[vote["item_id"]]: vote for vote in store.read_votes(catalog, "job").to_pylist()
            if vote["kind"] == "judge"}  # fmt: skip


PAIRS = [("right", "wrong"), ("wrong", "right"), ("wrong", "wrong too")]


def test_a_judge_votes_like_an_annotator_and_is_asked_once(catalog, kedge, server):
    job_of(catalog, PAIRS)
    server.answer = likes("right")
    code, out, err = kedge("annotate", "add", "job", "--judge", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["annotator"], found["new_votes"], found["consistent"], found["requests"]) == ("judge-m1", 3, 3, 6)
    votes = judged(catalog)
    assert [votes[name]["verdict"] for name in ("q0", "q1", "q2")] == ["a", "b", "tie"]
    assert all(vote["status"] == "submitted" and vote["slots"] is None for vote in votes.values())
    assert [one["rank"] for one in votes["q1"]["ranking"]] == [2, 1]
    again = json.loads(kedge("annotate", "add", "job", "--judge", "--json")[1])
    assert (again["already_there"], again["new_votes"], again["requests"], len(server.asked)) == (3, 0, 0, 6)


def test_an_answer_that_turns_with_the_slots_is_discarded_and_no_vote(catalog, kedge, server):
    job_of(catalog, PAIRS[:1])
    server.replies = [(200, says('{"verdict": "A"}'))]
    code, out, _ = kedge("annotate", "add", "job", "--judge")
    assert code == 0 and "took slot A in both orders: 1 times" in out
    vote = judged(catalog)["q0"]
    assert (vote["status"], vote["verdict"], vote["ranking"]) == ("discarded", None, None)
    assert json.loads(vote["values"]) == {"outcome": "inconsistent", "said": [["first", "second"]]}


def test_a_reply_that_cannot_be_read_is_kept_as_discarded(catalog, server):
    job_of(catalog, PAIRS[:1])
    server.replies = [(200, says("I like both"))]
    found = add_judged(catalog, "job")
    assert (found.unparsed, found.new_votes, judged(catalog)["q0"]["status"]) == (1, 1, "discarded")


def test_items_without_a_reply_are_no_votes_and_are_asked_again(catalog, kedge, server, monkeypatch):
    monkeypatch.setattr("curation.annotation.judged.JudgeSettings", lambda **more: JudgeSettings(tries=1, **more))
    job_of(catalog, PAIRS)
    server.answer = lambda body: (500, {}) if "What is 1?" in told(body) else likes("right")(body)
    code, _, err = kedge("annotate", "add", "job", "--judge")
    assert code == 4 and "1 of 3 items got no reply (endpoint)" in err and "kedge annotate add job --judge" in err
    assert sorted(judged(catalog)) == ["q0", "q2"]
    server.answer = likes("right")
    before = len(server.asked)
    found = add_judged(catalog, "job")
    assert (found.already_there, found.new_votes, len(server.asked) - before) == (2, 1, 2)
    assert sorted(judged(catalog)) == ["q0", "q1", "q2"]


def test_replies_outlive_a_run_that_was_killed(catalog, server, monkeypatch):
    job_of(catalog, PAIRS)
    server.answer = likes("right")

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "add_votes", killed)
        add_judged(catalog, "job")
    assert not judged(catalog) and len(server.asked) == 6
    assert add_judged(catalog, "job").cached == 6 and len(server.asked) == 6 and len(judged(catalog)) == 3


def test_a_judge_reads_the_guidelines_and_sees_no_verdict_of_people(catalog, server):
    pairs = {"prompt": [{"role": "user", "content": "2+2?"}], "chosen": "4", "rejected": "5"}
    Path("pairs.jsonl").write_text(json.dumps(pairs) + "\n")
    from curation.adding import add

    add("pairs.jsonl", None, None, None)
    Path("catalogs/annotations").mkdir()
    Path("catalogs/annotations/job.sql").write_text(
        "/* ---\nguidelines: Prefer the short one.\nquestions: [{name: better, kind: preference, tie: false, "
        "both_bad: false}]\n--- */\nSELECT row_id FROM rows_preference\n"
    )
    from curation.annotation.jobs import load_job
    from curation.annotation.rounds import open_round

    open_round(catalog, load_job(catalog, "job"))
    server.answer = likes("4", "B")
    assert add_judged(catalog, "job").consistent == 1
    system = server.asked[0][2]["messages"][0]["content"]
    assert "Prefer the short one." in system and '"A", "B"' in system and "both_bad" not in system
    assert "chosen" not in told(server.asked[0][2])
    assert [vote["verdict"] for vote in store.read_votes(catalog, "job").to_pylist()] == ["chosen"]


def test_ratings_are_asked_of_a_judge_file_with_the_name_of_the_question(catalog, server):
    job_of(catalog, PAIRS[:1], rating_a=5, rating_b=1)
    Path("catalogs/judges").mkdir()
    Path("catalogs/judges/answer_rating.yaml").write_text(
        "kind: score\nrubric: How right is it?\nscale: [1, 5]\nuser: '{{ prompt }} {{ answer }}'\nrepair: again\n"
    )
    server.answer = lambda body: (200, says('{"score": 4.4}')) if "<A-" not in told(body) else likes("right")(body)
    found = add_judged(catalog, "job")
    vote = judged(catalog)["q0"]
    assert re.fullmatch(r"judge-m1-[0-9a-f]{6}", found.annotator), "another way of asking is another annotator"
    assert [(one["question"], one["key"], one["value"]) for one in vote["ratings"]] == [
        ("answer_rating", "a", 4), ("answer_rating", "b", 4)]  # fmt: skip
    assert vote["verdict"] == "a"


def test_items_without_texts_and_a_job_that_is_not_there_are_told(catalog, kedge, server):
    Path("votes.jsonl").write_text('{"item": "q", "annotator": "anna", "verdict": "A"}\n')
    add_votes(catalog, Path("votes.jsonl"), "job")
    with pytest.raises(UserError, match="show no answers"):
        add_judged(catalog, "job")
    code, _, err = kedge("annotate", "add", "nothing", "--judge")
    assert code == 2 and "nothing" in err and "Traceback" not in err
    code, _, err = kedge("annotate", "add", "job", "--job", "other", "--judge")
    assert code == 2 and "named twice" in err


def test_messages_are_told_with_their_roles_reasoning_and_calls():
    assert spoken([{"role": "user", "content": "2+2?"}], "user") == "2+2?"
    turns = [{"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": '[{"name":"add"}]'},
             {"role": "tool", "content": "4"}]  # fmt: skip
    assert spoken(turns, "assistant") == (
        'assistant: <think>\nhm\n</think>\nCalls: [{"name":"add"}]\n\ntool: 4')  # fmt: skip
