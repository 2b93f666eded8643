"""A round becomes a dataset of a real Argilla: questions by their kinds, each item once, nothing given away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.annotation import _argilla_rest, argilla
from curation.annotation._argilla_records import Sent, send
from curation.annotation._argilla_rest import Argilla
from curation.annotation._argilla_rest import connected as connect
from curation.annotation.argilla import Plan
from curation.annotation.jobs import Question
from curation.errors import UserError
from tests.argilla_server import Server
from tests.pushed import item, make_plan, make_project, proxied, turn

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = pytest.mark.argilla


def push(api: Argilla, plan: Plan) -> Sent:
    return send(api, argilla.open_dataset(api, plan), plan.items, lambda _: None)


def test_a_second_push_finds_all_items_there_and_doubles_none(api: Argilla, argilla_server: Server, job: str):
    plan = make_plan(job, [item(number) for number in range(7)])
    first, second = push(api, plan), push(api, plan)
    ids = [one["item_id"] for one in plan.items]
    assert (first.pushed, first.there, first.refused) == (ids, [], {})
    assert (second.pushed, second.there, second.refused) == ([], ids, {})
    found = argilla_server.records(argilla_server.dataset_id(plan.name))
    assert sorted(one["external_id"] for one in found) == sorted(ids)


def test_a_grown_round_sends_only_what_is_new(api: Argilla, job: str):
    items = [item(number) for number in range(5)]
    push(api, make_plan(job, items[:3]))
    sent = push(api, make_plan(job, items))
    assert (len(sent.pushed), len(sent.there)) == (2, 3)


def test_every_kind_of_question_is_asked_and_slots_come_in_the_order_of_the_item(
    api: Argilla, argilla_server: Server, job: str
):  # fmt: skip
    questions = [
        Question(name="order", kind="ranking", title="Which is best?"), Question(name="right", kind="rating"),
        Question(name="prompt_quality", kind="rating", of="item", values=[0, 5, 10]),
        Question(name="why", kind="text", required=False, description="In a sentence."),
        Question(name="flags", kind="flags", labels=["unsafe"], required=False),
    ]  # fmt: skip
    items = [item(0, ("g1", "g3", "g2")), item(1, ("g2", "g1"))]
    plan = make_plan(job, items, *questions)
    assert len(push(api, plan).pushed) == 2
    dataset = argilla_server.dataset_id(plan.name)
    asked = {one["name"]: one for one in argilla_server.call("GET", f"/datasets/{dataset}/questions")["items"]}
    assert list(asked) == ["order", "right-a", "right-b", "right-c", "prompt_quality", "why", "flags"]
    assert [one["value"] for one in asked["order"]["settings"]["options"]] == ["A", "B", "C"]
    assert "does not have" in asked["order"]["description"] and asked["why"]["description"] == "In a sentence."
    assert [asked[f"right-{slot}"]["required"] for slot in "abc"] == [True, True, False]
    assert [one["value"] for one in asked["prompt_quality"]["settings"]["options"]] == [0, 5, 10]
    assert [one["value"] for one in asked["flags"]["settings"]["options"]] == ["unsafe", "none of these"]
    first, second = sorted(argilla_server.records(dataset), key=lambda one: one["metadata"]["position"])
    assert [first["fields"][f"answer-{slot}"] for slot in "abc"] == ["g1 0", "g3 0", "g2 0"]
    assert set(second["fields"]) == {"prompt", "answer-a", "answer-b"}


def test_an_annotator_sees_the_topic_and_no_verdict_model_or_gold(api: Argilla, argilla_server: Server, job: str):
    items = [item(0), item(1, gold="chosen", role="gold"), item(2, role="retest", of_item=item(0)["item_id"])]
    plan = make_plan(job, items)
    push(api, plan)
    dataset = argilla_server.dataset_id(plan.name)
    seen = argilla_server.queue("annotator1", dataset)
    assert len(seen) == 3 and all(one["metadata"] == {"topic": "sums"} for one in seen)
    assert all(set(one["fields"]) == {"prompt", "answer-a", "answer-b"} and not one.get("suggestions") for one in seen)
    told = json.dumps([seen, argilla_server.call("GET", f"/me/datasets/{dataset}/metadata-properties", "annotator1")])
    assert not [word for word in ("writer-9b", "gold", "retest", "judge_verdict", "margin") if word in told]
    kept = argilla_server.records(dataset)
    assert sorted(one["metadata"]["margin"] for one in kept) == [0.0, 0.25, 0.5], "an owner may filter by it"
    assert "gold" not in json.dumps(kept) and not any(one["suggestions"] for one in kept)


def test_an_answer_to_edit_is_shown_and_filled_in_beforehand(api: Argilla, argilla_server: Server, job: str):
    one = item(0, ("original",))
    one["candidates"][0]["messages"] = [turn("assistant", "2 <b>is</b> right", reasoning="1 + 1")]
    plan = make_plan(job, [one], Question(name="better_answer", kind="edit"))
    push(api, plan)
    [found] = argilla_server.records(argilla_server.dataset_id(plan.name))
    assert [one["value"] for one in found["suggestions"]] == ["2 <b>is</b> right"]
    assert "1 + 1" in found["fields"]["answer-a"]


def test_an_answer_to_write_shows_the_prompt_alone(api: Argilla, argilla_server: Server, job: str):
    plan = make_plan(job, [item(0, ())], Question(name="answer", kind="write"))
    push(api, plan)
    [found] = argilla_server.records(argilla_server.dataset_id(plan.name))
    assert set(found["fields"]) == {"prompt"} and not found["suggestions"]


def test_odd_conversations_are_taken(api: Argilla, argilla_server: Server, job: str):
    calls = json.dumps([{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}])
    odd = [
        item(0, prompt=[turn("user", "Sum?"), turn("assistant", None, tool_calls=calls), turn("tool", "2", name="f")]),
        item(1, prompt=[turn("user", "word " * 9_000)]), item(2, prompt=[turn("user", "")]), item(3, prompt=[]),
        item(4, meta=None, topic=None, source=None), item(5, meta=json.dumps({"margin": None, "topic": "clash"})),
    ]  # fmt: skip
    odd[2]["candidates"][0]["messages"] = [turn("assistant", None)]
    plan = make_plan(job, odd)
    assert push(api, plan).refused == {}
    found = {one["external_id"]: one for one in argilla_server.records(argilla_server.dataset_id(plan.name))}
    first = found[odd[0]["item_id"]]["fields"]["prompt"]
    assert "add" in first[1]["content"] and len(first) == 3
    long = found[odd[1]["item_id"]]["fields"]["prompt"]
    assert len(long) > 1 and sum(one["content"].count("word") for one in long) == 9_000
    assert found[odd[5]["item_id"]]["metadata"]["query-topic"] == "clash"


def test_a_bad_record_is_refused_with_its_reason_and_the_rest_of_its_batch_is_sent(api: Argilla, job: str):
    bad = item(3, prompt=[turn("user", "again")] * 501)
    wide = item(5, ("a", "b", "c"))
    plan = make_plan(job, [item(number) for number in range(3)])
    push(api, plan)
    sent = push(api, make_plan(job, [*plan.items, bad, item(4), wide]))
    assert len(sent.there) == 3 and sent.pushed == [item(4)["item_id"]]
    assert "501 messages" in sent.refused[bad["item_id"]] and "3 candidates" in sent.refused[wide["item_id"]]


def test_a_record_that_argilla_refuses_is_found_by_halving(api: Argilla, job: str, monkeypatch: pytest.MonkeyPatch):
    from curation.annotation import _argilla_records

    real = _argilla_records.record

    def spoilt(one: dict[str, Any], dataset: argilla.Dataset) -> Any:
        made = real(one, dataset)
        if one["position"] in (2, 9):
            made["fields"].pop("answer-b")
        return made

    monkeypatch.setattr(_argilla_records, "record", spoilt)
    plan = make_plan(job, [item(number) for number in range(12)])
    sent = push(api, plan)
    assert len(sent.pushed) == 10 and set(sent.refused) == {item(2)["item_id"], item(9)["item_id"]}
    assert "missing required value for field: 'answer-b'" in sent.refused[item(2)["item_id"]]


def test_a_lost_reply_an_overload_and_a_poisoned_record_double_nothing(argilla_server: Server, job: str):
    plan = make_plan(job, [item(number) for number in range(6)])
    seen: list[str] = []

    def spoil(method: str, path: str, moment: str) -> int | None:
        seen.append(f"{method} {moment}")
        if method == "PUT" and path.endswith("/records/bulk"):
            bulk = seen.count("PUT after")
            if seen.count("PUT before") - 1 == 1 and moment == "before":
                return 503
            if moment == "after" and bulk == 2:
                return 0  # stored, and nobody is told
        return None

    with proxied(argilla_server.url, spoil) as url, connect(url, argilla_server.account("owner").api_key) as api:
        sent = push(api, plan)
    assert len(sent.pushed) == 6 and sent.refused == {} and seen.count("PUT before") == 4
    assert len(argilla_server.records(argilla_server.dataset_id(plan.name))) == 6


def test_a_server_that_fails_at_every_record_is_not_asked_about_each(
    argilla_server: Server, job: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_argilla_rest, "MAX_PAUSE_SECONDS", 0.05)
    plan = make_plan(job, [item(number) for number in range(8)])

    def spoil(method: str, path: str, moment: str) -> int | None:
        return 500 if path.endswith("/records/bulk") and moment == "before" else None

    failing = pytest.raises(UserError, match="fails at record after record")
    with (
        proxied(argilla_server.url, spoil) as url,
        connect(url, argilla_server.account("owner").api_key) as api,
        failing,
    ):
        push(api, plan)


def test_a_draft_that_a_killed_push_left_is_made_anew(api: Argilla, argilla_server: Server, job: str):
    plan = make_plan(job, [item(0)])
    argilla_server.call("POST", "/datasets", json={
        "name": plan.name, "workspace_id": argilla_server.workspace_id(),
        "metadata": {"kedge": {"job": job, "round": "main-1", "edition": plan.edition}}})  # fmt: skip
    assert len(push(api, plan).pushed) == 1
    assert argilla_server.dataset_names().count(plan.name) == 1


def test_a_foreign_dataset_of_the_same_name_is_left_alone(api: Argilla, argilla_server: Server, job: str):
    plan = make_plan(job, [item(0)])
    push(api, plan)
    with pytest.raises(UserError, match=r"has another dataset .*earlier guidelines or questions"):
        push(api, make_plan(job, [item(0)], edition="another"))
    assert len(argilla_server.records(argilla_server.dataset_id(plan.name))) == 1


def test_wrong_workspaces_keys_and_addresses_are_named(api: Argilla, argilla_server: Server, job: str):
    with pytest.raises(UserError, match=r"no workspace 'kedg'.*did you mean 'kedge'"):
        push(api, make_plan(job, [item(0)], workspace="kedg"))
    with pytest.raises(UserError, match="no user 'annotator9'"):
        push(api, make_plan(job, [item(0)], assign=("annotator9",)))
    with pytest.raises(UserError, match=r"10,001 characters"):
        push(api, make_plan(job, [item(0)], guidelines="x" * 10_001))
    key = argilla_server.account("annotator1").api_key
    with connect(argilla_server.url, key) as annotator, pytest.raises(UserError, match="may not push"):
        push(annotator, make_plan(job, [item(0)]))
    with pytest.raises(UserError, match="refuses the API key") as refused, connect(argilla_server.url, "wrong-key"):
        pass
    assert "wrong-key" not in str(refused.value)
    with pytest.raises(UserError, match=r"does not answer .*kedge annotate serve"), connect("http://127.0.0.1:9", "k"):
        pass
    with pytest.raises(UserError, match="holds a name, a key"), connect("http://me:secret@127.0.0.1", "k"):
        pass


def test_an_assigned_round_is_seen_by_those_alone(api: Argilla, argilla_server: Server, job: str):
    plan = make_plan(job, [item(0)], assign=("annotator2",))
    push(api, plan)
    assert plan.place == f"kedge-{job}"
    for login, sees in (("annotator1", False), ("annotator2", True)):
        names = [one["name"] for one in argilla_server.call("GET", "/me/datasets", login)["items"]]
        assert (plan.name in names) is sees
    with pytest.raises(UserError, match="has other members, who would see this round: annotator2"):
        push(api, make_plan(job, [item(0)], assign=("annotator3",)))
    with pytest.raises(UserError, match=f"is in the workspace 'kedge-{job}' already"):
        push(api, make_plan(job, [item(0)]))


def test_an_adjudication_goes_to_a_workspace_of_the_leads(job: str):
    assert make_plan(job, [], round="adjudication-1", assign=("annotator1",)).place == "kedge-lead"


def test_the_command_prints_counts_and_a_refusal_exits_with_one(
    tmp_path: Path, kedge, connected: Server, job: str, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    from curation.annotation import _argilla_records

    root = make_project(tmp_path / "project", job, pairs=4)
    monkeypatch.chdir(root)
    real = _argilla_records.record
    monkeypatch.setattr(_argilla_records, "record",
                        lambda one, dataset: "too odd" if one["position"] == 1 else real(one, dataset))  # fmt: skip
    code, out, err = kedge("annotate", "push", job)
    assert code == 1 and "refused 1: too odd" in out and "Argilla refused 1 of 4 items" in err
    monkeypatch.undo()
    monkeypatch.chdir(root)
    monkeypatch.setenv("ARGILLA_API_URL", connected.url)
    monkeypatch.setenv("ARGILLA_API_KEY", connected.account("owner").api_key)
    code, out, _ = kedge("annotate", "push", job, "--json")
    told = json.loads(out)
    assert code == 0 and (told["pushed"], told["already_there"], told["refused"]) == (1, 3, [])
    assert connected.account("owner").api_key not in out
    monkeypatch.setenv("ARGILLA_API_URL", "http://127.0.0.1:9")
    code, _, err = kedge("annotate", "push", job)
    assert code == 2 and "does not answer" in err and "then run the same command again" in err
