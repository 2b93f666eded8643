"""`kedge annotate add`: votes of a file, or of the judge, as evidence beside those that were pulled."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.annotation import store
from curation.annotation.jobs import JOB_NAME, Question
from curation.annotation.pseudonyms import pseudonym
from curation.annotation.records import ITEMS, ITEMS_KIND, VOTES, VOTES_KIND
from curation.annotation.vote_files import RATED, Read, read_votes_file
from curation.annotation.vote_items import Made, Place, attach, make
from curation.annotation.vote_shapes import beside
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, table
from curation.errors import GateFailed, Problem, UserError
from curation.fingerprint import fingerprint
from curation.ingest import SHOWN_REJECTS
from curation.outputs import Manifest
from curation.schema import REJECTS

ROUND = "main-1"


@dataclass
class Added:
    """What one `annotate add` did. `num_repeated` votes were there already; `verdicts` counts those of the new ones."""

    job: str
    shape: str
    num_lines: int
    num_items: int
    new_items: int
    new_votes: int
    num_repeated: int
    num_annotators: int
    num_rejects: int
    verdicts: dict[str, int] = field(default_factory=dict)


def print_added(file: Path, job: str | None, judge: bool, json: bool) -> None:
    """Add votes and print what came of it. Raises UserError, and GateFailed for rejects."""
    catalog = Catalog(find_project())
    if judge:
        from curation.annotation.judged import add_judged, print_judged

        if job is not None and job != str(file):
            raise UserError("a job is named twice", f"run: kedge annotate add {job} --judge", key="--job")
        print_judged(add_judged(catalog, str(file)), json)
        return
    added = add_votes(catalog, file, job if job is not None else job_name(file))
    if json:
        print_json(asdict(added))
        return
    rows = [("lines", added.num_lines), ("items", added.num_items), ("new items", added.new_items),
            ("new votes", added.new_votes), ("votes that were there", added.num_repeated),
            ("annotators", added.num_annotators), ("rejects", added.num_rejects)]  # fmt: skip
    table(f"{added.job}: votes of shape '{added.shape}'", ("", "number"), rows)
    if added.verdicts:
        counts = ", ".join(f"{name} {count:,}" for name, count in added.verdicts.items())
        out.print(f"verdicts: {counts}", markup=False)
    out.print(f"next: kedge annotate report {added.job}, or: kedge annotate resolve {added.job}", markup=False)


def job_name(file: Path) -> str:
    """The name of a job after a file's."""
    return re.sub(r"[^a-z0-9_]+", "_", file.name.split(".")[0].lower()).strip("_")


def add_votes(catalog: Catalog, file: Path, job: str) -> Added:
    """Add the votes of a file to a job. Where the job has shown its items to people, the file answers those, by
    item_id; else the items are made of the file, in the round `main-1`. Nothing is doubled by adding a file again, and
    a grown file adds what is new. Rejects are kept in `lake/rejects/votes-JOB/`. Raises UserError for a file that
    cannot be read at all, and GateFailed for more rejects than its `reject_share` allows; then no vote is added."""
    if not JOB_NAME.fullmatch(job):
        raise UserError(f"'{job}' is no name for a job", "give one with --job: a-z, 0-9 and _", key="--job")
    name_of = functools.cache(functools.partial(pseudonym, catalog.project))
    with catalog.writing(ITEMS_KIND, job), catalog.writing(VOTES_KIND, job):
        shown = any("identity" in manifest.parameters for folder, manifest in catalog.manifests("evidence", ITEMS_KIND)
                    if folder.name.partition(".")[0] == job)  # fmt: skip
        known = store.read_items(catalog, job).to_pylist()
        votes = store.read_votes(catalog, job).to_pylist()
        keys = frozenset(one["key"] for item in known for one in item["candidates"] or ()) if shown else frozenset()
        read = read_votes_file(file, keys)
        if shown:
            made = attach(read, known, votes, name_of)
        else:
            questions = _questions(read, catalog, job)
            edition = known[0]["edition"] if known else fingerprint(["votes", questions])[:12]
            made = make(read, Place(job, ROUND, edition), known, votes, name_of)
        num_rejects = _keep_rejects(catalog, job, file, read, made)
        if not shown:
            items = pa.Table.from_pylist([*known, *made.items], schema=ITEMS)
            store.replace(catalog, ITEMS_KIND, (job, ROUND), items, _parameters(job, edition, questions),
                          {"items": items.num_rows})  # fmt: skip
        new = sum(store.add_votes(catalog, job, name, pa.Table.from_pylist(rows, schema=VOTES))
                  for name, rows in sorted(made.votes.items()))  # fmt: skip
    every = list(itertools.chain.from_iterable(made.votes.values()))
    verdicts = Counter(vote["verdict"] or vote["status"] for vote in every)
    names = {vote["annotator"] for vote in itertools.chain(votes, every)}
    return Added(job, read.layout.shape, read.num_lines, len(known) + len(made.items), len(made.items), new,
                 made.num_repeated, len(names), num_rejects, dict(sorted(verdicts.items())))  # fmt: skip


def _parameters(job: str, edition: str, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest of a round says, as rounds.py reads it. No job file stands behind it, so `identity` lacks, and
    nobody asked for a number of annotators."""
    return {"job": job, "round": ROUND, "kind": "main", "edition": edition, "guidelines": "", "budget": {},
            "questions": questions, "origin": "votes"}  # fmt: skip


def _questions(read: Read, catalog: Catalog, job: str) -> list[dict[str, Any]]:
    """What the people of a file were asked, as the header of a job says it; with what earlier files of the job said."""
    before = [manifest.parameters.get("questions", []) for folder, manifest in catalog.manifests("evidence", ITEMS_KIND)
              if folder.name == f"{job}.{ROUND}"]  # fmt: skip
    found = {question["name"]: question for questions in before for question in questions}
    fresh = []
    if any(given.verdict is not None for given in read.given):
        fresh.append(Question(name="preference", kind="preference"))
    for name, of in RATED.items():
        values = [value for given in read.given for question, _, value in given.ratings if question == name]
        if values:
            values += found.get(name, {}).get("values", [1, 5])
            scale = list(range(min(values), max(values) + 1))
            found.pop(name, None)
            fresh.append(Question.model_validate({"name": name, "kind": "rating", "values": scale, "of": of}))
    if any(given.rationale for given in read.given):
        fresh.append(Question(name="rationale", kind="text", required=False))
    found = {question.name: question.model_dump(mode="json", exclude_defaults=True) for question in fresh} | found
    return [found[name] for name in sorted(found)]


def _keep_rejects(catalog: Catalog, job: str, file: Path, read: Read, made: Made) -> int:
    """Put the rejects of a file in the place of those that it had; returns how many. Raises GateFailed where they are
    more than the file allows, or nothing else is left."""
    shown = catalog.project.relative(file)
    rejects = sorted([*read.rejects, *made.rejects])
    rows = [{"source": f"votes-{job}", "file": shown, "line": reject.line, "reason": reject.reason,
             "record": reject.record[:2000]} for reject in rejects]  # fmt: skip
    folder = catalog.folder("rejects", f"votes-{job}")
    before = catalog.manifest(folder)
    kept = [row for part in (before.parts if before else []) for row in pq.read_table(folder / part.name).to_pylist()
            if row["file"] != shown]  # fmt: skip
    if rows or before is not None:
        _publish_rejects(catalog, folder, sorted([*kept, *rows], key=lambda row: (row["file"], row["line"])))
    total = max(len(read.given) + len(read.rejects), 1)
    if len(rejects) > read.file.reject_share * total:
        problems = [Problem(reject.reason, "", f"{shown}:{reject.line}") for reject in rejects[:SHOWN_REJECTS]]
        needed = min(1.0, -(-len(rejects) * 10_000 // total) / 10_000)
        what = f"{len(rejects):,} of {total:,} votes were rejected, more than reject_share " \
               f"{read.file.reject_share:g} allows"  # fmt: skip
        step = f"mend them (kept in lake/rejects/votes-{job}/) or set reject_share: {needed:g} in {beside(shown)}"
        raise GateFailed([*problems, Problem(what, step, shown)])
    return len(rejects)


def _publish_rejects(catalog: Catalog, folder: Path, rows: list[dict[str, Any]]) -> None:
    store.put(catalog, folder, pa.Table.from_pylist(rows, schema=REJECTS), lambda part: Manifest(
        kind="rejects", name=folder.name, fingerprint=fingerprint([part.hash]), parts=[part]))  # fmt: skip
