"""`kedge annotate pull`: every response becomes a vote. What was kept once stays; later and changed answers join it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from curation.annotation import argilla, store
from curation.annotation._argilla_questions import as_came, vote_values
from curation.annotation._argilla_records import Dataset
from curation.annotation._argilla_rest import Argilla, connected, logins, records
from curation.annotation.argilla import Plan
from curation.annotation.pseudonyms import pseudonym
from curation.annotation.records import DISCARDED, DRAFT, PERSON, SUBMITTED, VOTES, VOTES_KIND
from curation.annotation.rounds import latest_round, rounds_of
from curation.annotation.server_data import connection
from curation.catalog import Catalog
from curation.config import Project, find_project
from curation.console import out, print_json, say, table
from curation.errors import UserError

PAUSE_SECONDS = 15 * 60  # a longer gap between two answers was no reading
Json = dict[str, Any]


class Pulled(NamedTuple):
    """What a pull of a round found: responses by status, votes that were new, votes kept that Argilla has no more,
    records that are no items of the round, answers that could not be read, and annotators."""

    round: str
    responses: int
    submitted: int
    discarded: int
    drafts: int
    new: int
    withdrawn: int
    foreign: int
    unread: int
    annotators: int


def print_pull(job: str, as_json: bool) -> None:
    """Fetch the answers of all rounds of a job that were pushed. Raises UserError where none was."""
    catalog = Catalog(find_project())
    plans = [argilla.plan_of(one) for one in rounds_of(catalog, job) or [latest_round(catalog, job)]]
    with connected(*connection(catalog.project)) as server:
        done = [pull(catalog, server, plan) for plan in plans]
    pulled = [one for one in done if one is not None]
    if not pulled:
        raise UserError(f"no round of '{job}' is in Argilla", f"run: kedge annotate push {job}")
    if as_json:
        print_json({"job": job, "rounds": [one._asdict() for one in pulled]})
        return
    columns = ("round", "responses", "submitted", "discarded", "drafts", "new votes", "annotators")
    rows = [(one.round, one.responses, one.submitted, one.discarded, one.drafts, one.new, one.annotators)
            for one in pulled]  # fmt: skip
    table(f"votes of {job}", columns, rows)
    for one in pulled:
        _print_odd(one)
    out.print(f"next: kedge annotate resolve {job}", markup=False)


def _print_odd(one: Pulled) -> None:
    if one.foreign:
        say(f"{one.round}: {one.foreign:,} records in Argilla are no items of the round; their answers are left there")
    if one.unread:
        say(f"{one.round}: {one.unread:,} answers fit no question of the round; they stand in `values` alone")
    if one.withdrawn:
        say(f"{one.round}: {one.withdrawn:,} kept votes are no longer in Argilla; they stay")


def pull(catalog: Catalog, server: Argilla, plan: Plan) -> Pulled | None:
    """Keep the answers of a round; None where the round is not in Argilla. Raises LockHeld."""
    with catalog.writing(VOTES_KIND, plan.job):
        dataset = argilla.find(server, plan)
        if dataset is None:
            return None
        known = store.read_votes(catalog, plan.job, plan.round).to_pylist()
        found = records(server, dataset.id, "responses")
        items = {item["item_id"]: item for item in plan.items}
        votes, unread = votes_of(plan, dataset, [one for one in found if one["external_id"] in items])
        users = sorted({vote["user"] for vote in votes})
        names = annotators(catalog.project, logins(server, dataset.workspace), users, votes, known)
        votes = [{name: value for name, value in vote.items() if name != "user"} | {"annotator": names[vote["user"]]}
                 for vote in votes]  # fmt: skip
        votes = with_seconds(votes, known)
        new = store.add_votes(catalog, plan.job, plan.round, pa.Table.from_pylist(votes, schema=VOTES))
    places = {(vote["item_id"], vote["annotator"]) for vote in votes}
    gone = {(vote["item_id"], vote["annotator"]) for vote in known if vote["kind"] == PERSON} - places
    statuses = Counter(vote["status"] for vote in votes)
    return Pulled(plan.round, len(votes), statuses[SUBMITTED], statuses[DISCARDED], statuses[DRAFT], new, len(gone),
                  sum(one["external_id"] not in items for one in found), unread,
                  len({vote["annotator"] for vote in votes}))  # fmt: skip


def votes_of(plan: Plan, dataset: Dataset, ours: Iterable[Json]) -> tuple[list[Json], int]:
    """The responses of Argilla's records as records of VOTES, with the server's `user` in the place of the annotator,
    and how many answers could not be read."""
    items = {item["item_id"]: item for item in plan.items}
    votes, unread = [], 0
    for one in ours:
        item = items[one["external_id"]]
        keys = [candidate["key"] for candidate in item["candidates"] or ()]
        for response in one.get("responses") or ():
            answers, odd = vote_values(dataset.asked, keys, response["status"], response["values"])
            unread += odd
            votes.append({
                "item_id": item["item_id"], "job": plan.job, "round": plan.round, "edition": plan.edition,
                "row_id": item["row_id"], "kind": PERSON, "status": response["status"], **answers, "slots": keys,
                "answered_at": moment(response.get("updated_at")), "values": as_came(response["values"]),
                "user": response["user_id"],
            })  # fmt: skip
    return votes, unread


def moment(text: Any) -> str | None:
    """The server's time of an answer as ISO 8601 in UTC with microseconds; it means UTC where it names no zone. None
    for what is no time."""
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat(timespec="microseconds")


def annotators(project: Project, known_logins: Mapping[str, str], users: Iterable[str], votes: Sequence[Json],
               known: Sequence[Json]) -> dict[str, str]:  # fmt: skip
    """User id -> pseudonym. A user whose answers were kept under a pseudonym keeps it, though the login or the key of
    the pseudonyms changed since; one whom the server does not name (the key is an admin's, and the user left the
    workspace) is named by id."""
    kept = {_mark(vote): vote["annotator"] for vote in known if vote["kind"] == PERSON and vote["answered_at"]}
    before: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in votes:
        if (name := kept.get(_mark(vote))) is not None:
            before[vote["user"]][name] += 1
    found = {}
    for user in users:
        own = before[user].most_common(1)
        found[user] = own[0][0] if own else pseudonym(project, known_logins.get(user, f"user {user}"))
    return found


def _mark(vote: Json) -> tuple[str, str, str]:
    """What tells an answer from all others: nobody else answered the same item at the same microsecond."""
    return vote["item_id"], vote["answered_at"], vote["values"]


def with_seconds(votes: Sequence[Json], known: Sequence[Json]) -> list[Json]:
    """Votes with `seconds`, which Argilla does not keep: the time since the annotator's last answer to another item of
    the round, where that is under 15 minutes. It is null for a first answer and after a pause, near 0 where answers
    came in bulk, and too long for who worked on something else meanwhile."""
    times: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for vote in [*known, *votes]:
        if vote["answered_at"]:
            times[vote["annotator"]].add((vote["answered_at"], vote["item_id"]))
    gaps = {annotator: _gaps(sorted(moments)) for annotator, moments in times.items()}
    return [vote | {"seconds": gaps.get(vote["annotator"], {}).get((vote["answered_at"], vote["item_id"]))}
            for vote in votes]  # fmt: skip


def _gaps(moments: list[tuple[str, str]]) -> dict[tuple[str, str], float | None]:
    """Seconds between each answer and the last one before it that was to another item."""
    found: dict[tuple[str, str], float | None] = {}
    before: tuple[str, str] | None = None  # the last answer to an item other than the one of `last`
    last: tuple[str, str] | None = None
    for one in moments:
        if last is not None and last[1] != one[1]:
            before = last
        last = one
        gap = None if before is None else _between(before[0], one[0])
        found[one] = gap if gap is not None and gap < PAUSE_SECONDS else None
    return found


def _between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
