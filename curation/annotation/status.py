"""`kedge annotate status`: how far the rounds of a job are, asked of Argilla."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from curation.annotation import argilla, store
from curation.annotation._argilla_records import Dataset
from curation.annotation._argilla_rest import Argilla, connected, logins, members, records
from curation.annotation.argilla import Plan
from curation.annotation.pulling import annotators, votes_of
from curation.annotation.records import DISCARDED, DRAFT, SUBMITTED
from curation.annotation.rounds import latest_round, rounds_of
from curation.annotation.server_data import connection
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, table

Json = dict[str, Any]


def print_status(job: str, as_json: bool) -> None:
    """The state of every round of a job. Raises UserError where the job has no round yet, or the server is away."""
    catalog = Catalog(find_project())
    found = rounds_of(catalog, job) or [latest_round(catalog, job)]
    with connected(*connection(catalog.project)) as server:
        rounds = [state(catalog, server, argilla.plan_of(one)) for one in found]
    if as_json:
        print_json({"job": job, "rounds": rounds})
        return
    columns = ("round", "items", "pushed", "completed", "submitted", "discarded", "drafts", "to come")
    names = ("round", "items", "pushed", "completed", "submitted", "discarded", "drafts", "votes_to_come")
    table(f"rounds of {job}", columns, [[one[name] for name in names] for one in rounds])
    for one in rounds:
        if one["cost"] is not None:
            out.print(f"{one['round']}: {one['cost']:,.2f} {one['currency']} so far, {one['projected_cost']:,.2f} "
                      f"{one['currency']} for all {one['projected_votes']:,} votes", markup=False)  # fmt: skip
    people = [(one["round"], *[person[name] for name in ("annotator", "submitted", "discarded", "drafts", "left")])
              for one in rounds for person in one["annotators"]]  # fmt: skip
    if people:
        table("answers", ("round", "annotator", "submitted", "discarded", "drafts", "left"), people)
    missing = any(one["pushed"] < one["items"] for one in rounds)
    out.print(f"next: kedge annotate {'push' if missing else 'pull'} {job}", markup=False)


def state(catalog: Catalog, server: Argilla, plan: Plan) -> Json:
    """A round's figures. `completed`: items with as many submitted answers as the job wants. `votes_to_come`: what they
    lack of that; `projected_votes` adds what is submitted. Costs are submitted (projected) votes times the price, null
    where the job names none. An annotator's `left` are pushed items that are not completed and that the annotator
    neither submitted nor discarded; members of the workspace who answered nothing are listed too."""
    dataset = argilla.find(server, plan)
    items = {item["item_id"] for item in plan.items}
    found = records(server, dataset.id, "responses") if dataset is not None else []
    ours = [one for one in found if one["external_id"] in items]
    statuses = Counter(one["status"] for record in ours for one in record.get("responses") or ())
    lacking = [max(0, plan.annotators_per_item - _submitted(record)) for record in ours]
    to_come = sum(lacking) + (len(items) - len(ours)) * plan.annotators_per_item
    projected = statuses[SUBMITTED] + to_come
    price = plan.price_per_vote
    return {
        "round": plan.round, "edition": plan.edition, "workspace": plan.place, "items": len(items),
        "pushed": len(ours), "completed": sum(number == 0 for number in lacking), "submitted": statuses[SUBMITTED],
        "discarded": statuses[DISCARDED], "drafts": statuses[DRAFT], "annotators_per_item": plan.annotators_per_item,
        "votes_to_come": to_come, "projected_votes": projected, "price_per_vote": price, "currency": plan.currency,
        "cost": None if price is None else round(price * statuses[SUBMITTED], 4),
        "projected_cost": None if price is None else round(price * projected, 4),
        "annotators": _people(catalog, server, plan, dataset, ours) if dataset is not None else [],
    }  # fmt: skip


def _submitted(record: Json) -> int:
    return sum(one["status"] == SUBMITTED for one in record.get("responses") or ())


def _people(catalog: Catalog, server: Argilla, plan: Plan, dataset: Dataset, ours: list[Json]) -> list[Json]:
    """What each annotator did and has left, by pseudonym."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    done: dict[str, set[str]] = defaultdict(set)
    for record in ours:
        for one in record.get("responses") or ():
            counts[one["user_id"]][one["status"]] += 1
            if one["status"] != DRAFT:
                done[one["user_id"]].add(record["id"])
    open_items = {record["id"] for record in ours if _submitted(record) < plan.annotators_per_item}
    votes, _ = votes_of(plan, dataset, ours)
    users = [*counts, *(user for user in members(server, dataset.workspace) if user not in counts)]
    known = store.read_votes(catalog, plan.job, plan.round).to_pylist()
    names = annotators(catalog.project, logins(server, dataset.workspace), users, votes, known)
    found = [{"annotator": names[user], "submitted": counts[user][SUBMITTED], "discarded": counts[user][DISCARDED],
              "drafts": counts[user][DRAFT], "left": len(open_items - done[user])} for user in users]  # fmt: skip
    return sorted(found, key=lambda one: str(one["annotator"]))
