"""Answers of a real Argilla come back as votes: whole, partial, discarded, late, changed, and each once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.annotation import argilla, store
from curation.annotation._argilla_records import send
from curation.annotation._argilla_rest import Argilla
from curation.annotation._argilla_rest import connected as connect
from curation.annotation.argilla import Plan
from curation.annotation.jobs import Question
from curation.annotation.pseudonyms import pseudonym
from curation.annotation.pulling import pull
from curation.annotation.status import state
from curation.catalog import Catalog
from curation.config import Project, find_project
from tests.argilla_server import Server
from tests.lakes import lake_bytes
from tests.pushed import item, make_plan, make_project

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = pytest.mark.argilla


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(Project(tmp_path))


def push(api: Argilla, plan: Plan) -> str:
    """Push a plan; the dataset's id."""
    dataset = argilla.open_dataset(api, plan)
    assert not send(api, dataset, plan.items, lambda _: None).refused
    return dataset.id


def votes_of(catalog: Catalog, plan: Plan) -> list[dict[str, Any]]:
    return store.read_votes(catalog, plan.job, plan.round).to_pylist()


@pytest.fixture
def guest(argilla_server: Server) -> Iterator[tuple[str, str, Any]]:
    """A user of its own: id, login, and a function that answers a record as that user."""
    login = f"guest_{uuid.uuid4().hex[:6]}"
    made = argilla_server.call("POST", "/users", json={"first_name": "Guest", "username": login, "role": "annotator",
                                                       "password": uuid.uuid4().hex})  # fmt: skip
    argilla_server.call("POST", f"/workspaces/{argilla_server.workspace_id()}/users", json={"user_id": made["id"]})

    def answer(record: str, value: str) -> None:
        body = {"items": [{"record_id": record, "status": "submitted", "values": {"better": {"value": value}}}]}
        headers = {"X-Argilla-Api-Key": made["api_key"]}
        argilla_server.client().post("/api/v1/me/responses/bulk", json=body, headers=headers).raise_for_status()

    yield made["id"], login, answer
    argilla_server.client().delete(f"/api/v1/users/{made['id']}")


def test_every_response_becomes_a_vote_and_a_null_discard_breaks_nothing(
    api: Argilla, argilla_server: Server, catalog: Catalog, job: str
):
    items = [item(number, ("chosen", "rejected") if number % 2 else ("rejected", "chosen")) for number in range(6)]
    plan = make_plan(job, items, Question(name="better", kind="preference"),
                     Question(name="right", kind="rating", required=False),
                     Question(name="why", kind="text", required=False))  # fmt: skip
    records = argilla_server.records(push(api, plan))
    better = {one["id"]: next(slot for slot in "ab" if one["fields"][f"answer-{slot}"].startswith("chosen")).upper()
              for one in records}  # fmt: skip
    argilla_server.answer("annotator1", {record: {"better": slot, "right-a": 4} for record, slot in better.items()})
    argilla_server.answer("annotator2", {records[0]["id"]: None, records[1]["id"]: {}}, "discarded")
    argilla_server.answer("annotator2", {records[2]["id"]: {"why": "not sure yet"}}, "draft")
    argilla_server.answer("annotator2", {records[3]["id"]: {"better": "tie"}, records[4]["id"]: {"better": "both_bad"}})
    pulled = pull(catalog, api, plan)
    assert pulled is not None
    assert (pulled.responses, pulled.submitted, pulled.discarded, pulled.drafts) == (11, 8, 2, 1)
    assert (pulled.new, pulled.unread, pulled.foreign, pulled.withdrawn, pulled.annotators) == (11, 0, 0, 0, 2)
    votes = votes_of(catalog, plan)
    first = pseudonym(catalog.project, "annotator1")
    mine = [one for one in votes if one["annotator"] == first]
    assert len(mine) == 6 and {one["verdict"] for one in mine} == {"chosen"}, "the slots lead back to the keys"
    by_id = {one["item_id"]: [candidate["key"] for candidate in one["candidates"]] for one in items}
    for one in mine:
        slots = by_id[one["item_id"]]
        assert one["slots"] == slots and one["ratings"] == [{"question": "right", "key": slots[0], "value": 4}]
        assert (one["edition"], one["round"], one["kind"]) == (plan.edition, "main-1", "person")
    others = {one["status"]: one for one in votes if one["annotator"] != first}
    assert others["draft"]["verdict"] is None and others["draft"]["texts"][0]["text"] == "not sure yet"
    assert sorted(one["values"] for one in votes if one["status"] == "discarded") == ["null", "{}"]
    assert {one["verdict"] for one in votes if one["annotator"] != first} == {None, "tie", "both_bad"}
    assert "annotator1" not in json.dumps(votes, default=str)
    assert sum(one["seconds"] is None for one in mine) == 1 and all(0 <= (one["seconds"] or 0) < 60 for one in mine)


def test_pulling_twice_changes_no_byte_and_late_and_changed_answers_are_added(
    api: Argilla, argilla_server: Server, catalog: Catalog, job: str, tmp_path: Path
):
    plan = make_plan(job, [item(number) for number in range(4)])
    records = [one["id"] for one in argilla_server.records(push(api, plan))]
    argilla_server.answer("annotator1", {record: {"better": "A"} for record in records[:3]})
    pull(catalog, api, plan)
    before = lake_bytes(tmp_path)
    again = pull(catalog, api, plan)
    assert again is not None and again.new == 0 and lake_bytes(tmp_path) == before
    argilla_server.answer("annotator1", {records[0]: {"better": "B"}, records[3]: {"better": "tie"}})
    argilla_server.answer("annotator2", {records[0]: {"better": "A"}})
    later = pull(catalog, api, plan)
    assert later is not None and (later.new, later.responses, later.withdrawn) == (3, 5, 0)
    votes = store.read_votes(catalog, job, "main-1")
    assert votes.num_rows == 6 and store.current(votes).num_rows == 5
    first = pseudonym(catalog.project, "annotator1")
    last = [one["verdict"] for one in store.current(votes).to_pylist() if one["annotator"] == first]
    assert sorted(last) == ["chosen", "chosen", "rejected", "tie"]


def test_rankings_edits_and_written_answers_come_back(api: Argilla, argilla_server: Server, catalog: Catalog, job: str):
    ranked = make_plan(job, [item(0, ("g3", "g1", "g2"))], Question(name="order", kind="ranking"))
    [record] = argilla_server.records(push(api, ranked))
    ranks = [{"value": slot, "rank": rank} for slot, rank in (("A", 2), ("B", 1), ("C", 3))]
    argilla_server.answer("annotator1", {record["id"]: {"order": ranks}})
    pull(catalog, api, ranked)
    [vote] = votes_of(catalog, ranked)
    assert vote["verdict"] == "g1" and [one["key"] for one in sorted(vote["ranking"], key=lambda x: x["rank"])] == [
        "g1", "g3", "g2"]  # fmt: skip
    edit = make_plan(f"{job}e", [item(0, ("original",))], Question(name="mend", kind="edit"))
    [record] = argilla_server.records(push(api, edit))
    argilla_server.answer("annotator1", {record["id"]: {"mend": "4, since 2 + 2 = 4"}})
    pull(catalog, api, edit)
    [vote] = votes_of(catalog, edit)
    assert vote["texts"] == [{"question": "mend", "key": "original", "text": "4, since 2 + 2 = 4"}]


def test_a_user_who_is_renamed_stays_one_annotator_and_one_who_is_removed_leaves_votes(
    api: Argilla, argilla_server: Server, catalog: Catalog, job: str, guest: tuple[str, str, Any]
):
    user, login, answer = guest
    plan = make_plan(job, [item(number) for number in range(3)])
    records = [one["id"] for one in argilla_server.records(push(api, plan))]
    answer(records[0], "A")
    pull(catalog, api, plan)
    argilla_server.call("PATCH", f"/users/{user}", json={"username": f"{login}_married"})
    answer(records[1], "B")
    pull(catalog, api, plan)
    votes = votes_of(catalog, plan)
    assert len(votes) == 2 and {one["annotator"] for one in votes} == {pseudonym(catalog.project, login)}
    argilla_server.call("DELETE", f"/users/{user}")
    pulled = pull(catalog, api, plan)
    assert pulled is not None and (pulled.responses, pulled.withdrawn, pulled.new) == (0, 2, 0)
    assert votes_of(catalog, plan) == votes


def test_records_that_somebody_else_added_are_counted_and_left(
    api: Argilla, argilla_server: Server, catalog: Catalog, job: str
):
    plan = make_plan(job, [item(0)])
    dataset = push(api, plan)
    fields = {"prompt": [{"role": "user", "content": "?"}], "answer-a": "x", "answer-b": "y"}
    argilla_server.call("POST", f"/datasets/{dataset}/records/bulk", json={
        "items": [{"fields": fields, "external_id": "by hand"}, {"fields": fields}]})  # fmt: skip
    argilla_server.answer("annotator1", {one["id"]: {"better": "A"} for one in argilla_server.records(dataset)})
    pulled = pull(catalog, api, plan)
    assert pulled is not None and (pulled.foreign, pulled.responses) == (2, 1)
    assert state(catalog, api, plan)["pushed"] == 1


def test_status_counts_what_is_done_and_what_is_left(api: Argilla, argilla_server: Server, catalog: Catalog, job: str):
    plan = make_plan(job, [item(number) for number in range(4)], annotators_per_item=2, price_per_vote=0.25)
    empty = state(catalog, api, plan)
    assert (empty["pushed"], empty["votes_to_come"], empty["projected_cost"]) == (0, 8, 2.0)
    records = [one["id"] for one in argilla_server.records(push(api, plan))]
    argilla_server.answer("annotator1", {record: {"better": "A"} for record in records[:3]})
    argilla_server.answer("annotator2", {records[0]: {"better": "B"}, records[1]: None})
    argilla_server.answer("annotator3", {records[0]: {"better": "B"}})
    argilla_server.answer("annotator3", {records[3]: {"better": "B"}}, "draft")
    found = state(catalog, api, plan)
    counts = {name: found[name] for name in ("items", "pushed", "completed", "submitted", "discarded", "drafts")}
    assert counts == {"items": 4, "pushed": 4, "completed": 1, "submitted": 5, "discarded": 1, "drafts": 1}
    assert found["votes_to_come"] == 0 + 1 + 1 + 2 and found["projected_votes"] == 9
    assert (found["cost"], found["projected_cost"]) == (1.25, 2.25)
    people = {one["annotator"]: one for one in found["annotators"]}
    of = {number: people[pseudonym(catalog.project, f"annotator{number}")] for number in (1, 2, 3)}
    assert [of[number]["left"] for number in (1, 2, 3)] == [1, 2, 3]
    assert of[2]["discarded"] == 1 and of[3]["drafts"] == 1
    statuses = [one["status"] for one in argilla_server.records(argilla_server.dataset_id(plan.name))]
    assert statuses.count("completed") == found["completed"]


def test_an_admin_of_the_workspace_pulls_too(
    argilla_server: Server, api: Argilla, catalog: Catalog, job: str, guest: tuple[str, str, Any]
):
    user, _, answer = guest
    plan = make_plan(job, [item(0), item(1)])
    records = [one["id"] for one in argilla_server.records(push(api, plan))]
    answer(records[0], "A")
    made = argilla_server.call("POST", "/users", json={"first_name": "Admin", "username": f"admin_{job}",
                                                       "role": "admin", "password": uuid.uuid4().hex})  # fmt: skip
    workspace = argilla_server.workspace_id()
    argilla_server.call("POST", f"/workspaces/{workspace}/users", json={"user_id": made["id"]})
    argilla_server.call("DELETE", f"/workspaces/{workspace}/users/{user}")
    with connect(argilla_server.url, made["api_key"]) as admin:
        pulled = pull(catalog, admin, plan)
        assert pulled is not None and pulled.new == 1
        assert votes_of(catalog, plan)[0]["annotator"] == pseudonym(catalog.project, f"user {user}")
    pulled = pull(catalog, api, plan)
    assert pulled is not None and pulled.new == 0, "whoever pulls, a vote is kept once"
    argilla_server.call("DELETE", f"/users/{made['id']}")


# Kills itself with signal 9 right before the n-th rename or removal below the lake's evidence of votes.
KILLED_AT = """
import os, signal, sys
seen = 0
def hook(event, args):
    global seen
    if event in ("os.rename", "os.remove") and "votes" in str(args):
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from curation import cli
sys.exit(cli.run(sys.argv[2:]))
"""


def test_a_pull_killed_at_any_rename_finishes_later_with_the_same_bytes(
    tmp_path: Path, kedge, connected: Server, job: str, monkeypatch: pytest.MonkeyPatch
):
    root = make_project(tmp_path / "project", job, pairs=6)
    monkeypatch.chdir(root)
    code, _, err = kedge("annotate", "pull", job)
    assert code == 2 and "has no items yet" in err and f"kedge annotate push {job}" in err
    assert kedge("annotate", "push", job)[0] == 0
    records = [one["id"] for one in connected.records(connected.dataset_id(f"{job}.main-1"))]
    connected.answer("annotator1", {record: {"better": "A"} for record in records[:4]})
    assert kedge("annotate", "pull", job)[0] == 0
    connected.answer("annotator2", {record: {"better": "A"} for record in records[:4]})
    kills = 0
    for moment in (1, 2, 3, 4):
        command = [sys.executable, "-c", KILLED_AT, str(moment), "annotate", "pull", job]
        process = subprocess.run(command, cwd=root, capture_output=True, check=False, env=dict(os.environ))
        kills += process.returncode == -signal.SIGKILL
        votes = store.read_votes(Catalog(find_project(root)), job)
        assert votes.num_rows in (4, 8), "the old votes or all"
    assert kills >= 2, "no kill came in the middle"
    code, out, _ = kedge("annotate", "pull", job, "--json")
    assert code == 0 and json.loads(out)["rounds"][0]["responses"] == 8
    finished = lake_bytes(root, "evidence")
    monkeypatch.setenv("KEDGE_ANNOTATOR_KEY", (root / ".argilla" / "annotators.key").read_text())
    twin = make_project(tmp_path / "twin", job, pairs=6)
    monkeypatch.chdir(twin)
    assert kedge("annotate", "push", job)[0] == 0 and kedge("annotate", "pull", job)[0] == 0
    theirs = store.read_votes(Catalog(find_project(twin)), job)
    assert theirs.equals(store.read_votes(Catalog(find_project(root)), job)), "a copy of the project has the same votes"
    assert [path for path in lake_bytes(twin, "evidence") if "votes" in path] == [
        path for path in finished if "votes" in path]  # fmt: skip
    code, out, _ = kedge("annotate", "status", job)
    assert code == 0 and "4.00 EUR so far, 9.00 EUR for all 18 votes" in out
    key = connected.account("owner").api_key
    files = [path for path in root.rglob("*") if path.is_file()]
    assert key not in out and not [path for path in files if key.encode() in path.read_bytes()]
