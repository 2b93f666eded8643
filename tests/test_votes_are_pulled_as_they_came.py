"""Responses become votes: slots become keys, whatever was left out, and whoever answered has another name."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from curation.annotation._argilla_questions import asked, vote_values
from curation.annotation.jobs import Question
from curation.annotation.pseudonyms import pseudonym
from curation.annotation.pulling import annotators, moment, with_seconds
from curation.annotation.records import BOTH_BAD, DISCARDED, DRAFT, SUBMITTED, TIE
from curation.config import Project
from curation.errors import UserError

PREFERENCE = Question(name="better", kind="preference")
RANKING = Question(name="order", kind="ranking")
RATING = Question(name="right", kind="rating", values=[1, 2, 3])
KEYS = ["rejected", "chosen"]


def vote(question: Question, value: Any, keys: list[str] = KEYS, status: str = SUBMITTED) -> dict[str, Any]:
    name = question.name
    return vote_values(asked([question], max(len(keys), 3)), keys, status, {name: {"value": value}})[0]


def test_a_slot_becomes_the_key_that_stood_there():
    assert vote(PREFERENCE, "A")["verdict"] == "rejected"
    found = vote(PREFERENCE, "B")
    assert found["verdict"] == "chosen"
    assert found["ranking"] == [{"key": "chosen", "rank": 1}, {"key": "rejected", "rank": 2}]
    assert vote(PREFERENCE, "B", ["chosen", "rejected"])["verdict"] == "rejected"


def test_a_tie_ranks_both_first_and_both_bad_ranks_nobody():
    tie, bad = vote(PREFERENCE, TIE), vote(PREFERENCE, BOTH_BAD)
    assert tie["verdict"] == TIE and {one["rank"] for one in tie["ranking"]} == {1}
    assert bad["verdict"] == BOTH_BAD and bad["ranking"] is None


def test_a_ranking_is_closed_up_without_slots_that_the_item_does_not_have():
    def ranks(*given: int) -> list[dict[str, Any]]:
        return [{"value": slot, "rank": rank} for slot, rank in zip("ABC", given, strict=True)]

    found = vote(RANKING, ranks(2, 1, 3), ["x", "y", "z"])
    assert found["verdict"] == "y"
    assert found["ranking"] == [{"key": "x", "rank": 2}, {"key": "y", "rank": 1}, {"key": "z", "rank": 3}]
    assert vote(RANKING, ranks(1, 1, 3), ["x", "y", "z"])["verdict"] == TIE
    assert vote(RANKING, ranks(1, 1, 3), ["x", "y", "z"])["ranking"][2] == {"key": "z", "rank": 2}
    two = vote(RANKING, ranks(3, 2, 1), ["x", "y"])
    assert two["verdict"] == "y" and two["ranking"] == [{"key": "x", "rank": 2}, {"key": "y", "rank": 1}]
    assert vote(RANKING, ranks(3, 2, 1)[:1], ["x", "y"])["verdict"] is None, "a partial ranking is no verdict"


def test_every_other_kind_of_answer_is_kept_under_its_question():
    questions = [
        Question(name="right", kind="rating"), Question(name="prompt_quality", kind="rating", of="item"),
        Question(name="why", kind="text"), Question(name="flags", kind="flags", labels=["unsafe"]),
        Question(name="own", kind="write"),
    ]  # fmt: skip
    values = {"right-a": 2, "right-b": 5, "right-c": 1, "prompt_quality": 3, "why": "<\u2060think> fits", "own": "4",
              "flags": ["unsafe", "none of these"]}  # fmt: skip
    came = {name: {"value": value} for name, value in values.items()}
    found, unread = vote_values(asked(questions, 3), KEYS, SUBMITTED, came)
    assert found["ratings"] == [{"question": "right", "key": "rejected", "value": 2},
                                {"question": "right", "key": "chosen", "value": 5},
                                {"question": "prompt_quality", "key": None, "value": 3}]  # fmt: skip
    assert found["texts"] == [{"question": "why", "key": None, "text": "<think> fits"},
                              {"question": "own", "key": None, "text": "4"}]  # fmt: skip
    assert found["flags"] == ["unsafe"] and unread == 1, "the third slot is none of the item's"
    edit = vote(Question(name="mend", kind="edit"), "4", ["original"])
    assert edit["texts"] == [{"question": "mend", "key": "original", "text": "4"}]


@pytest.mark.parametrize("values", [None, {}, [], "x", {"better": None}, {"better": {}}, {"better": {"value": None}}])
@pytest.mark.parametrize("status", [SUBMITTED, DISCARDED, DRAFT])
def test_a_response_without_values_is_a_vote_without_answers(values: Any, status: str):
    found, unread = vote_values(asked([PREFERENCE, RATING], 2), KEYS, status, values)
    assert set(found.values()) == {None} and unread == 0


@pytest.mark.parametrize("value", [5, "C", "", [], {}, {"value": "A"}, True, 1.5, [{"value": "A", "rank": None}],
                                   [{"value": ["A"], "rank": 1}], [None]])  # fmt: skip
def test_an_answer_that_fits_no_question_is_counted_and_breaks_nothing(value: Any):
    for question in (PREFERENCE, RANKING, Question(name="flags", kind="flags", labels=["unsafe"]),
                     Question(name="of_item", kind="rating", of="item", values=[2, 3])):  # fmt: skip
        came = {question.name: {"value": value}}
        found, unread = vote_values(asked([question], 2), KEYS, SUBMITTED, came)
        assert found["verdict"] is None and not found["ratings"] and not found["flags"]
        assert unread == (0 if question.kind == "flags" and value == [] else 1)


def test_a_question_that_was_never_asked_is_counted():
    assert vote_values(asked([PREFERENCE], 2), KEYS, SUBMITTED, {"other": {"value": "A"}})[1] == 1


def test_a_verdict_comes_of_submitted_responses_alone_and_a_reason_of_any():
    questions = asked([PREFERENCE, Question(name="why", kind="text")], 2)
    came = {"better": {"value": "A"}, "why": {"value": "broken prompt"}}
    for status in (DISCARDED, DRAFT):
        found, unread = vote_values(questions, KEYS, status, came)
        assert found["verdict"] is None and found["texts"][0]["text"] == "broken prompt" and unread == 0


def test_times_are_utc_whatever_zone_the_server_names():
    assert moment("2026-11-22T10:00:00.5") == "2026-11-22T10:00:00.500000+00:00"
    assert moment("2026-11-22T10:00:00Z") == "2026-11-22T10:00:00.000000+00:00"
    assert moment("2026-11-22T12:00:00+02:00") == "2026-11-22T10:00:00.000000+00:00"
    assert moment(None) is None and moment("soon") is None


def at(minute: float, item: str, annotator: str = "a") -> dict[str, Any]:
    stamp = f"2026-11-22T10:{int(minute):02d}:{round(minute % 1 * 60):02d}.000000+00:00"
    return {"annotator": annotator, "item_id": item, "answered_at": stamp}


def test_seconds_are_the_time_since_the_last_answer_to_another_item():
    votes = [at(0, "x"), at(1, "y"), at(1.5, "y"), at(20, "z"), at(2, "x", "b"), at(2.25, "y", "b")]
    assert [one["seconds"] for one in with_seconds(votes, [])] == [None, 60, 90, None, None, 15]


def test_seconds_do_not_depend_on_how_often_was_pulled():
    votes = [at(0, "x"), at(1, "y"), at(3, "z")]
    whole = with_seconds(votes, [])
    first = with_seconds(votes[:1], [])
    assert [*first, *with_seconds(votes[1:], first)] == whole
    assert with_seconds([at(0, "x") | {"answered_at": None}], [])[0]["seconds"] is None


def test_a_pseudonym_follows_from_the_projects_key_which_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("KEDGE_ANNOTATOR_KEY", raising=False)
    one, two = Project(tmp_path / "one"), Project(tmp_path / "two")
    for project in (one, two):
        project.root.mkdir()
    name = pseudonym(one, "ada")
    assert name.startswith("annotator-") and len(name) == 18 and "ada" not in name
    assert pseudonym(one, "ada") == name and pseudonym(one, "bob") != name and pseudonym(two, "ada") != name
    key = one.root / ".argilla" / "annotators.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert [path.name for path in key.parent.iterdir() if path.name.startswith(".annotators")] == []
    monkeypatch.setenv("KEDGE_ANNOTATOR_KEY", "shared")
    assert pseudonym(one, "ada") == pseudonym(two, "ada") != name
    monkeypatch.delenv("KEDGE_ANNOTATOR_KEY")
    key.write_text("")
    with pytest.raises(UserError, match="is empty"):
        pseudonym(one, "ada")


def test_a_user_keeps_the_pseudonym_of_answers_that_are_kept(tmp_path: Path):
    project = Project(tmp_path)
    answer = {"item_id": "x", "answered_at": "2026", "values": "{}", "kind": "person"}
    known = [answer | {"annotator": "annotator-00000000"}]
    votes = [answer | {"user": "u1"}, answer | {"item_id": "y", "user": "u2"}]
    names = annotators(project, {"u1": "renamed", "u2": "ada"}, ["u1", "u2", "u3"], votes, known)
    assert names["u1"] == "annotator-00000000" and names["u2"] == pseudonym(project, "ada")
    assert names["u3"] == pseudonym(project, "user u3")
