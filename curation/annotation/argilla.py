"""Rounds in Argilla: a dataset each, made as a whole; its records are the round's items, its responses the answers.

With the modules `_argilla_*.py` this is all that knows Argilla. Nothing is kept here: what is there
already is asked of the server, so that a push that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.annotation._argilla_questions import as_created, asked, letter
from curation.annotation._argilla_records import Dataset, field_name, properties
from curation.annotation._argilla_rest import Argilla, Refused, workspace_id, workspaces
from curation.annotation.jobs import Question
from curation.annotation.rounds import Round
from curation.annotation.server_data import WORKSPACE
from curation.errors import UserError, did_you_mean

GUIDELINES_CHARS = 10_000  # Argilla takes no more
Json = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A round as Argilla needs it. `items` are records of ITEMS in the round's order; `assign` are the logins that
    alone may see it, None for all of the workspace."""

    job: str
    round: str
    edition: str
    guidelines: str
    questions: tuple[Question, ...]
    annotators_per_item: int
    workspace: str
    assign: tuple[str, ...] | None
    items: list[Json]
    price_per_vote: float | None = None
    currency: str = "EUR"

    @property
    def name(self) -> str:
        """The dataset's."""
        return f"{self.job}.{self.round}"

    @property
    def place(self) -> str:
        """The workspace: Argilla knows no assignment but membership, so that those assigned have one of their own."""
        if self.assign is None:
            return self.workspace
        return f"{self.workspace}-{'lead' if self.round.startswith('adjudication') else self.job}"


def plan_of(known: Round, assign: Sequence[str] | None = None) -> Plan:
    """A frozen round as a plan; `assign` as the job's file says, which only a push needs to know."""
    return Plan(known.job, known.name, known.edition, known.guidelines, tuple(known.questions),
                known.annotators_per_item, str(known.parameters.get("workspace", WORKSPACE)),
                None if assign is None else tuple(assign), known.items.to_pylist(), known.budget.price_per_vote,
                known.budget.currency)  # fmt: skip


def find(server: Argilla, plan: Plan) -> Dataset | None:
    """The round's dataset where it is published, whatever its workspace. Raises UserError where the key sees no
    workspace of the job."""
    if not workspaces(server):
        workspace_id(server, plan.workspace)
    found = _ours(server, plan)
    return _read(server, plan, found) if found and found["status"] == "ready" else None


def _ours(server: Argilla, plan: Plan) -> Json | None:
    """The round's dataset, draft or published, in whatever workspace; the job's own first."""
    names = {id: name for name, id in workspaces(server).items()}
    named = server.ask("GET", "/me/datasets", parameters={"name": plan.name})["items"]
    found = [one for one in named if _mark_of(one) == _mark(plan)]
    home = (plan.place, plan.workspace)
    return min(found, default=None, key=lambda one: (
        one["status"] != "ready", names.get(one["workspace_id"]) not in home, one["id"]))  # fmt: skip


def open_dataset(server: Argilla, plan: Plan) -> Dataset:
    """The round's dataset, made where it is not there. A draft that a killed push left has no records: it is removed
    and made anew. Raises UserError as `find` does, and where Argilla does not take the guidelines or questions."""
    if server.user["role"] == "annotator":
        raise UserError(f"'{server.user['username']}' is an annotator, who may not push", "set ARGILLA_API_KEY to an "
                        "owner's or an admin's key", key="ARGILLA_API_KEY")  # fmt: skip
    if len(plan.guidelines) > GUIDELINES_CHARS:
        raise UserError(f"the guidelines have {len(plan.guidelines):,} characters, and Argilla takes "
                        f"{GUIDELINES_CHARS:,}", "shorten them", key="guidelines")  # fmt: skip
    workspace = workspace_id(server, plan.place) if plan.assign is None else _assigned(server, plan)
    found = _checked(server, plan, workspace)
    if found is not None and found["status"] != "ready":
        server.ask("DELETE", f"/datasets/{found['id']}")
    if found is None or found["status"] != "ready":
        refused = ""
        try:
            _make(server, plan, workspace)
        except Refused as error:
            refused = error.detail
        found = _checked(server, plan, workspace)
        if found is None or found["status"] != "ready":  # else a publication was sent twice, and done once
            raise UserError(f"Argilla does not take the dataset '{plan.name}': {refused}", "change the job's "
                            "guidelines or questions, then push again")  # fmt: skip
    return _read(server, plan, found)


def _assigned(server: Argilla, plan: Plan) -> str:
    """The workspace of those assigned, made where it is not there, with them as its only annotators."""
    users = {one["username"]: one["id"] for one in server.ask("GET", "/users")["items"]}
    wanted = list(plan.assign or ())
    if unknown := [login for login in wanted if login not in users]:
        raise UserError(f"Argilla has no user '{unknown[0]}'", did_you_mean(unknown[0], users), key="assign")
    known = workspaces(server)
    if plan.place not in known:
        known[plan.place] = server.ask("POST", "/workspaces", {"name": plan.place})["id"]
    workspace = str(known[plan.place])
    members = {one["username"]: one["role"] for one in server.ask("GET", f"/workspaces/{workspace}/users")["items"]}
    if others := sorted(login for login, role in members.items() if role == "annotator" and login not in wanted):
        raise UserError(f"the workspace '{plan.place}' has other members, who would see this round: "
                        f"{', '.join(others)}", "remove them from it in Argilla, or give the job another workspace:",
                        key="assign")  # fmt: skip
    for login in wanted:
        if login not in members:
            server.ask("POST", f"/workspaces/{workspace}/users", {"user_id": users[login]})
    return workspace


def _checked(server: Argilla, plan: Plan, workspace: str) -> Json | None:
    """The round's dataset in its workspace, draft or published. Raises UserError where the round is in another
    workspace, or another dataset has its name there."""
    found = _ours(server, plan)
    if found is not None and found["workspace_id"] != workspace:
        if found["status"] != "ready":
            return None  # a draft that a killed push left elsewhere
        names = {id: name for name, id in workspaces(server).items()}
        where = names.get(found["workspace_id"], "?")
        raise UserError(f"the round {plan.round} is in the workspace '{where}' already, not in '{plan.place}'",
                        "put workspace: and assign: back, or open a new round with another seed:")  # fmt: skip
    there = {"workspace_id": workspace, "name": plan.name}
    if found is None and server.ask("GET", "/me/datasets", parameters=there)["items"]:
        raise UserError(f"the workspace '{plan.place}' has another dataset '{plan.name}': of another project, or of "
                        "earlier guidelines or questions", "rename the job, give it another workspace:, or remove that "
                        "dataset in Argilla")  # fmt: skip
    return found


def _mark_of(dataset: Json) -> Json | None:
    found: Json | None = (dataset.get("metadata") or {}).get("kedge")
    return found


def _mark(plan: Plan) -> Json:
    return {"job": plan.job, "round": plan.round, "edition": plan.edition}


def _make(server: Argilla, plan: Plan, workspace: str) -> None:
    counts = [len(item["candidates"] or ()) for item in plan.items] or [0]
    slots, fewest = max(counts), min(counts)
    made = server.ask("POST", "/datasets", {
        "name": plan.name, "guidelines": plan.guidelines, "workspace_id": workspace, "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": plan.annotators_per_item},
        "metadata": {"kedge": _mark(plan)},
    })  # fmt: skip
    base = f"/datasets/{made['id']}"
    server.ask("POST", f"{base}/fields", {"name": "prompt", "title": "Conversation", "required": True,
                                          "settings": {"type": "chat", "use_markdown": True}})  # fmt: skip
    for slot in range(slots):
        title = f"Answer {letter(slot)}" if slots > 1 else "Answer"
        server.ask("POST", f"{base}/fields", {"name": field_name(slot), "title": title, "required": slot < fewest,
                                              "settings": {"type": "text", "use_markdown": True}})  # fmt: skip
    for one in asked(plan.questions, slots):
        server.ask("POST", f"{base}/questions", as_created(one, slots, fewest))
    for name, kind in properties(plan.items).items():
        server.ask("POST", f"{base}/metadata-properties", {"name": name, "title": name, "settings": {"type": kind},
                                                           "visible_for_annotators": name == "topic"})  # fmt: skip
    server.ask("PUT", f"{base}/publish")


def _read(server: Argilla, plan: Plan, found: Json) -> Dataset:
    base = f"/datasets/{found['id']}"
    slots = sum(one["name"] != "prompt" for one in server.ask("GET", f"{base}/fields")["items"])
    ids = {one["name"]: one["id"] for one in server.ask("GET", f"{base}/questions")["items"]}
    questions = asked(plan.questions, slots)
    if {one.name for one in questions} != set(ids):
        raise UserError(f"the questions of the dataset '{plan.name}' are not the job's: somebody changed them in "
                        "Argilla", "rename the job, or remove that dataset in Argilla")  # fmt: skip
    kinds = {one["name"]: one["settings"]["type"]
             for one in server.ask("GET", f"/me{base}/metadata-properties")["items"]}  # fmt: skip
    return Dataset(found["id"], found["workspace_id"], questions, slots, ids, kinds)
