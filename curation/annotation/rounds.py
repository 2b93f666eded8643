"""Rounds: the items of a job, frozen as evidence. What was asked stays as it was asked.

Another guideline, question, query, seed, share or number of annotators opens a new round, since answers to different
questions do not mix. More budget adds items to the same round, behind those that are there. A price, a workspace or an
assignment changes no item.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.annotation import choosing, store
from curation.annotation.items import GOLD, RETEST, Place, key_of, make_item, plan
from curation.annotation.jobs import FOLDER, SUFFIX, Budget, Job, Question, load_job
from curation.annotation.records import ITEMS, ITEMS_KIND, ROUNDS
from curation.catalog import Catalog
from curation.console import say
from curation.errors import UserError, did_you_mean

# Parameters that a new round is told by, in words.
CHANGES = {"guidelines": "the guidelines", "questions": "the questions", "query": "the query", "seed": "the seed",
           "annotators_per_item": "annotators_per_item", "gold_share": "gold_share", "retest_share": "retest_share",
           "of": "of", "stage": "the stage", "needs": "the measures", "max_chars": "max_chars",
           "edition": "how texts are shown"}  # fmt: skip


@dataclass(frozen=True)
class Round:
    """A round as it is frozen: its items (ITEMS, by position), and what its manifest says of the job."""

    job: str
    name: str
    edition: str
    items: pa.Table
    parameters: Mapping[str, Any]
    counts: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """One of ROUNDS."""
        return self.name.rpartition("-")[0]

    @property
    def questions(self) -> list[Question]:
        """The questions; none where the votes did not come from a job."""
        return [Question.model_validate(item) for item in self.parameters.get("questions", [])]

    @property
    def guidelines(self) -> str:
        return str(self.parameters.get("guidelines", ""))

    @property
    def annotators_per_item(self) -> int:
        return int(self.parameters.get("annotators_per_item", 1))

    @property
    def budget(self) -> Budget:
        """The budget and price as the job had them when the round was opened or looked up last."""
        return Budget.model_validate(self.parameters.get("budget", {}))


def rounds_of(catalog: Catalog, job_name: str) -> list[Round]:
    """Every round of a job: calibrations, main rounds, adjudications, each kind in the order of opening."""
    found = []
    for folder, manifest in catalog.manifests("evidence", ITEMS_KIND):
        job, _, name = folder.name.partition(".")
        if job == job_name:
            items = store.read_items(catalog, job, name)
            edition = str(manifest.parameters.get("edition") or (items["edition"][0].as_py() if items.num_rows else ""))
            found.append(Round(job, name, edition, items, manifest.parameters, manifest.counts))
    return sorted(found, key=lambda one: _place(one.name))


def latest_round(catalog: Catalog, job_name: str) -> Round:
    """The round that the job's file means now, where it is open; else the last one. Raises UserError for a job without
    rounds."""
    rounds = rounds_of(catalog, job_name)
    if not rounds:
        jobs = {folder.name.partition(".")[0] for folder, _ in catalog.manifests("evidence", ITEMS_KIND)}
        known = jobs | set(catalog.project.paths(FOLDER, SUFFIX))
        if job_name not in known:
            raise UserError(f"there is no annotation job '{job_name}'", did_you_mean(job_name, known))
        raise UserError(f"the job '{job_name}' has no items yet", f"run: kedge annotate push {job_name}")
    with suppress(UserError):  # a job whose file is gone or broken still has its rounds
        current = _find(rounds, load_job(catalog, job_name))
        if current is not None:
            return current
    return rounds[-1]


def open_round(catalog: Catalog, job: Job) -> Round:
    """The round that a job means, frozen. Its items are made, or those that a larger budget allows are added; what is
    frozen already stays. Raises UserError for a query that fails or gives nothing that can be shown."""
    with catalog.writing(ITEMS_KIND, job.name):
        rounds = rounds_of(catalog, job.name)
        found = _find(rounds, job)
        if found is None:
            _tell_change(rounds, job)
        name = found.name if found is not None else _next_name(rounds, job)
        known = found.items.to_pylist() if found is not None else []
        counts = dict(found.counts) if found is not None else {}
        if job.header.max_items is None or len(known) < job.header.max_items:
            known, counts = _grow(catalog, job, name, known)
        table = pa.Table.from_pylist(known, schema=ITEMS)
        parameters = _parameters(job, name)
        store.replace(catalog, ITEMS_KIND, (job.name, name), table, parameters, counts)
    return Round(job.name, name, job.edition, table, parameters, counts)


def _grow(catalog: Catalog, job: Job, name: str, known: list[dict[str, Any]]
          ) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """The items of a round with those that the query and the budget allow beyond the `known`, and the counts."""
    before: list[Place] = [(item["role"], key_of(item, job.header.round == "adjudication")) for item in known]
    used = [(key, item["topic"], role == GOLD) for (role, key), item in zip(before, known, strict=True)
            if role != RETEST]  # fmt: skip
    with choosing.asked(catalog, job) as connection:
        offers = choosing.offers(connection, job, used)
        places = plan(job.header, offers, before, job.where)
        if not places:
            _refuse_nothing(job, offers)
        contents = choosing.fetch(connection, [key for role, key in places[len(known) :] if role != RETEST])
    items = list(known)
    by_key = {key: item for (role, key), item in zip(before, known, strict=True) if role != RETEST}
    for position, (role, key) in list(enumerate(places))[len(known) :]:
        item = make_item(job, name, position, (role, key), contents.get(key, {}),
                         by_key[key] if role == RETEST else None)  # fmt: skip
        by_key.setdefault(key, item)
        items.append(item)
    roles = [item["role"] for item in items]
    counts = {"rows": offers.num_rows, "refused": offers.refused, "items": len(items), "gold": roles.count(GOLD),
              "retest": roles.count(RETEST),
              "left_over": len(offers.plain) + len(offers.gold) - len(contents)}  # fmt: skip
    _tell(job, name, counts, len(items) - len(known))
    return items, counts


def _refuse_nothing(job: Job, offers: choosing.Offers) -> None:
    if not offers.num_rows:
        raise UserError("the query returns no rows", "look at what it reads: kedge sql", where=job.where)
    raise UserError(f"none of the {offers.num_rows:,} rows can be shown: {choosing.explained(offers.refused)}",
                    "choose other rows, or raise max_chars", where=job.where)  # fmt: skip


def _tell(job: Job, name: str, counts: Mapping[str, Any], added: int) -> None:
    if counts["refused"]:
        say(f"{job.name}: {sum(counts['refused'].values()):,} rows are refused: "
            f"{choosing.explained(counts['refused'])}")  # fmt: skip
    limit = job.header.max_items
    if limit is not None and counts["items"] < limit:
        say(f"{job.name}: {name} has {counts['items']:,} items, the budget allows {limit:,}: the query gives no more")
    if added:
        say(f"{job.name}: {added:,} items added to {name}")


def _tell_change(rounds: list[Round], job: Job) -> None:
    """Say why a new round opens where there is one of its kind."""
    earlier = [one for one in rounds if one.kind == job.header.round]
    if earlier:
        now = _parameters(job, "")
        changed = [words for key, words in CHANGES.items() if earlier[-1].parameters.get(key) != now[key]]
        if len(changed) > 1 and changed[-1] == CHANGES["edition"]:
            changed.pop()  # it follows from the others
        say(f"{job.name}: {' and '.join(changed)} changed: {_next_name(rounds, job)} opens, "
            f"{earlier[-1].name} stays as it is")  # fmt: skip


def _find(rounds: list[Round], job: Job) -> Round | None:
    """The round of a job as its file is now."""
    identity = job.identity
    return next((one for one in rounds if one.parameters.get("identity") == identity), None)


def _next_name(rounds: list[Round], job: Job) -> str:
    numbers = [_place(one.name)[1] for one in rounds if one.kind == job.header.round]
    return f"{job.header.round}-{max(numbers, default=0) + 1}"


def _place(name: str) -> tuple[int, int, str]:
    kind, _, number = name.rpartition("-")
    return (ROUNDS.index(kind) if kind in ROUNDS else len(ROUNDS), int(number) if number.isdigit() else 0, name)


def _parameters(job: Job, name: str) -> dict[str, Any]:
    """What later commands need to know of a job without its file. Logins stay in the job's file."""
    header = job.header.model_dump(mode="json", exclude={"guidelines", "assign", "round", "description"})
    return header | {"job": job.name, "round": name, "kind": job.header.round, "edition": job.edition,
                     "identity": job.identity, "guidelines": job.guidelines_text, "query": job.query}  # fmt: skip
