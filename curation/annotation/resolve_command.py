"""`kedge annotate resolve`: votes -> decisions (evidence `resolved`) and sources of rows, and what there is to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from curation.annotation import store
from curation.annotation.pairs import Record, Written, as_lines, pair_records, written_records
from curation.annotation.records import JUDGE, RESOLVED, RESOLVED_KIND, SUBMITTED
from curation.annotation.resolution_files import FOLDER, Resolution, check_annotators, load_resolution
from curation.annotation.resolving import Resolved, min_votes_of, resolve, wanted
from curation.annotation.rounds import Round, rounds_of
from curation.catalog import Catalog
from curation.config import find_project, load_yaml, shown
from curation.console import out, print_json, table
from curation.errors import GateFailed, UserError
from curation.ingest import ingest
from curation.outputs import write_atomically
from curation.source_files import SourceFile

ANSWERS = ("write", "edit")
FILES = "annotated"  # folder of a project for the records that resolve makes
KINDS = {"pairs": ("preference", "preference"), "sft": ("sft", "messages")}  # source suffix -> stage, shape
FACTS = ("licence", "origin", "teacher", "teacher_terms")
SHOWN = 5
HEADER = (
    "# Written by 'kedge annotate resolve {name}', which writes {path} anew whenever votes have changed.\n"
    "# licence, origin, teacher, held_out, skill: yours to edit; path, reader, stage and shape stay.\n"
)
OUTCOMES = {"pairs": "pairs", "ties": "ties", "both_bad": "both bad", "disputed": "disputed",
            "too_few": "with too few votes"}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One resolution with all that came of it, nothing of it written yet."""

    name: str
    resolution: Resolution
    min_votes: int
    resolved: Resolved
    written: Written
    pairs: list[Record]
    num_silent: int

    @property
    def records(self) -> dict[str, list[Record]]:
        """Records by the name of the source that they become."""
        base = self.resolution.source or self.name
        return {f"{base}_pairs": [*self.pairs, *self.written.pairs], f"{base}_sft": self.written.answers}


def print_resolved(name: str, export: Path | None, json: bool) -> None:
    """Resolve, write and ingest; print what there were of items and votes, what came of them, and what to do next."""
    catalog = Catalog(find_project())
    work, num_rows = run(catalog, name)
    files: dict[str, Path] = {}
    if export is not None:
        from curation.annotation.exporting import export as export_rows

        source = next(iter(work.records))
        if source not in num_rows:
            raise UserError(f"'{name}' has no pair to export", "see what became of its items without --export")
        files = dict(export_rows(rows_of(catalog, source), export))
    if json:
        print_json(told(work, num_rows, files))
    else:
        _print(work, num_rows, files)


def run(catalog: Catalog, name: str) -> tuple[Work, dict[str, int]]:
    """Resolve what `name` means, publish the decisions and bring the sources up to date; returns what came of it and
    the number of rows of each source. Run again it changes nothing; killed, the same command finishes it. Raises
    UserError for a job without votes, GateFailed where a source would be left without rows."""
    jobs = sorted({folder.name.partition(".")[0] for folder, _ in catalog.manifests("evidence", "items")})
    name, resolution = load_resolution(catalog.project, name, jobs)
    with catalog.writing(RESOLVED_KIND, name):
        work = prepare(catalog, name, resolution)
        counts = work.resolved.counts | {"contradictions": len(work.resolved.conflicts.contradictions),
                                         "cycles": len(work.resolved.conflicts.cycles)}  # fmt: skip
        store.replace(catalog, RESOLVED_KIND, (name,), work.resolved.table,
                      {"job": resolution.job, "min_votes": work.min_votes,
                       "resolution": resolution.model_dump(mode="json")}, counts)  # fmt: skip
        found = {}
        for (source, records), kind in zip(work.records.items(), KINDS, strict=True):
            num_rows = write_source(catalog, source, kind, records, name)
            if num_rows is not None:
                found[source] = num_rows
    return work, found


def prepare(catalog: Catalog, name: str, resolution: Resolution) -> Work:
    """What comes of the votes as they are now. Raises UserError where there are none that count."""
    rounds = rounds_of(catalog, resolution.job)
    mine = [one for one in rounds if wanted(one.name, resolution.rounds)]
    items, votes = store.read_items(catalog), store.current(store.read_votes(catalog))
    _check(catalog, name, resolution, rounds, mine, votes)
    overlaps = [one.parameters.get("annotators_per_item") for one in mine if one.items.num_rows]
    most = _most_votes(votes, mine)
    min_votes = min_votes_of(resolution, overlaps, most)
    resolved = resolve(items, votes, resolution, min_votes)
    names = pa.array([name] * resolved.table.num_rows, pa.string())
    place = RESOLVED.get_field_index("resolution")
    resolved = replace(resolved, table=resolved.table.set_column(place, RESOLVED.field(place), names))
    pairs, silent = pair_records(items, votes, resolved, resolution)
    asked = {one.name: [item.name for item in one.questions if item.kind in ANSWERS] for one in mine}
    written = written_records(items, votes, asked, resolution)
    return Work(name, resolution, min_votes, resolved, written, pairs, silent)


def _most_votes(votes: pa.Table, rounds: Sequence[Round]) -> int:
    ids = {item for one in rounds for item in one.items["item_id"].to_pylist()}
    counts: dict[str, int] = {}
    for item, status in zip(votes["item_id"].to_pylist(), votes["status"].to_pylist(), strict=True):
        if item in ids and status == SUBMITTED:
            counts[item] = counts.get(item, 0) + 1
    return max(counts.values(), default=0)


def _check(catalog: Catalog, name: str, resolution: Resolution, rounds: Sequence[Round], mine: Sequence[Round],
           votes: pa.Table) -> None:  # fmt: skip
    """Raises UserError where the resolution has nothing to work on, and says why."""
    job = resolution.job
    if rounds and all(one.kind == "adjudication" for one in rounds):
        of = rounds[-1].parameters.get("of") or "another job"
        raise UserError(f"'{job}' adjudicates items of '{of}'", f"run: kedge annotate resolve {of}")
    if not mine:
        kinds = ", ".join(one.name for one in rounds)
        raise UserError(f"'{job}' has no round of {', '.join(resolution.rounds)}, only {kinds}",
                        f"write catalogs/{FOLDER}/{job}.yaml with job: {job} and the rounds that count")  # fmt: skip
    ids = {item for one in mine for item in one.items["item_id"].to_pylist()}
    cast = [vote for vote in votes.select(["item_id", "annotator", "kind", "status"]).to_pylist()
            if vote["item_id"] in ids]  # fmt: skip
    path = catalog.project.paths(FOLDER, ".yaml").get(name)
    check_annotators(resolution, {vote["annotator"] for vote in cast}, path)
    counting = [vote for vote in cast if vote["status"] == SUBMITTED]
    if not counting:
        raise UserError(f"nobody has voted on '{job}' yet", f"run: kedge annotate pull {job}")
    if not resolution.judges and all(vote["kind"] == JUDGE for vote in counting):
        raise UserError(f"only judges have voted on '{job}'", f"let them count: judges: true in "
                        f"catalogs/{FOLDER}/{name}.yaml")  # fmt: skip


def write_source(catalog: Catalog, source: str, kind: str, records: Sequence[Record], name: str) -> int | None:
    """Bring a source to hold just `records`: the file (whole, or as it was), its source file where there is none, and
    the rows. Rows whose item was decided otherwise meanwhile are gone with that, since every part of a source is what
    its file says. Returns the number of rows; None where there is nothing and never was. Raises GateFailed where the
    source would be left empty, UserError where a source file of that name says something else."""
    stage, shape = KINDS[kind]
    path = catalog.project.root / FILES / f"{source}.jsonl"
    file = catalog.project.catalogs / "sources" / f"{source}.yaml"
    spec: dict[str, Any] = {"reader": "jsonl", "path": f"{FILES}/{source}.jsonl", "stage": stage, "shape": shape}
    if file.exists():
        found = load_yaml(file, SourceFile)
        if wrong := [key for key, value in spec.items() if getattr(found, key) != value]:
            raise UserError(f"is there already and has another {wrong[0]}", f"rename it, or set another source: in "
                            f"catalogs/{FOLDER}/{name}.yaml", where=shown(file))  # fmt: skip
    if not records:
        if path.exists():
            raise GateFailed(f"no row is left for the source '{source}', which keeps those it had", f"look at the "
                             f"outcomes; to drop it, remove {shown(file)}, {shown(path)} and "
                             f"lake/rows/{source}")  # fmt: skip
        return None
    data = as_lines(records)
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
    if not file.exists():
        text = HEADER.format(name=name, path=f"{FILES}/{source}.jsonl")
        text += yaml.safe_dump(spec | facts_of(catalog, kind, records), sort_keys=False, allow_unicode=True)
        write_atomically(file, text.encode())
    return ingest(catalog, source).num_rows


def facts_of(catalog: Catalog, kind: str, records: Sequence[Record]) -> dict[str, str]:
    """Licence, origin and teacher that all sources of the records have in common. Written answers are human, generated
    ones generated, whatever their prompts are."""
    known = {name: manifest.parameters for name, (_, manifest) in catalog.sources().items()}
    sources = {str(record.get("source")) for record in records}
    found: dict[str, str] = {}
    for fact in FACTS:
        values = {known.get(name, {}).get(fact) for name in sources}
        if len(values) == 1 and (value := values.pop()) is not None:
            found[fact] = value
    generated = {bool(record.get("chosen_generation")) for record in records}
    if kind == "sft":
        return {"licence": found.get("licence", "unknown"), "origin": "human"}
    if generated != {False}:
        return {"licence": found.get("licence", "unknown"), "origin": "generated" if generated == {True} else "unknown"}
    return {"licence": "unknown", "origin": "unknown"} | found


def rows_of(catalog: Catalog, source: str) -> pa.Table:
    """All rows of an ingested source."""
    folder, manifest = catalog.source(source)
    return pa.concat_tables([pq.read_table(folder / part.name) for part in manifest.parts])


def told(work: Work, num_rows: Mapping[str, int], files: Mapping[str, Path]) -> dict[str, Any]:
    """All that is printed, as one object."""
    found = work.resolved
    return {"name": work.name, "job": work.resolution.job, "method": work.resolution.method,
            "min_votes": work.min_votes, **found.counts, "written": work.written.num_written,
            "edited": work.written.num_edited, "unchanged": work.written.num_unchanged,
            "pairs_without_texts": work.num_silent, "sources": dict(num_rows), "notes": found.notes,
            "contradictions": [list(pair) for pair in found.conflicts.contradictions],
            "cycles": [list(circle) for circle in found.conflicts.cycles],
            "exported": {kind: str(path) for kind, path in files.items()}}  # fmt: skip


def _print(work: Work, num_rows: Mapping[str, int], files: Mapping[str, Path]) -> None:
    found, counts = work.resolved, work.resolved.counts
    words = f"{work.resolution.method}, {work.min_votes} votes or more"
    funnel: list[tuple[str, int]] = [("items", counts["items"])]
    funnel += [(f"  {label}", counts[key]) for key, label in (("gold", "gold: known, not used as pairs"),
               ("superseded", "shown again in a later round")) if counts[key]]  # fmt: skip
    funnel += [("votes that count", counts["votes"]), ("annotators", counts["annotators"])]
    funnel += [(f"  {label}", counts[key]) for key, label in OUTCOMES.items()]
    extra = (("adjudicated", counts["adjudicated"]), ("answers written", work.written.num_written),
             ("answers edited", work.written.num_edited), ("answers left as they were", work.written.num_unchanged),
             ("pairs without texts", work.num_silent))  # fmt: skip
    table(f"{work.name} ({words})", ["what", "number"], [*funnel, *(line for line in extra if line[1])])
    for note in found.notes:
        out.print(f"note: {note}", markup=False)
    clashes = found.conflicts
    for what, groups in (("judged both ways", clashes.contradictions), ("in a circle", clashes.cycles)):
        for group in groups[:SHOWN]:
            out.print(f"{what}: items {', '.join(item[:12] for item in group)}", markup=False)
        if len(groups) > SHOWN:
            out.print(f"... and {len(groups) - SHOWN:,} more {what} (all: --json)", markup=False)
    for source, number in num_rows.items():
        out.print(f"{source}: {number:,} rows (annotated/{source}.jsonl)", markup=False)
    for kind, path in files.items():
        out.print(f"{kind}: {shown(path)}", markup=False)
    if counts["disputed"]:
        out.print(f"{counts['disputed']:,} disputed items can be adjudicated: a job with round: adjudication, of: "
                  f"{work.resolution.job}, and SELECT item_id FROM resolved WHERE resolution = '{work.name}' AND "
                  "outcome = 'disputed'", markup=False)  # fmt: skip
    if num_rows:
        out.print(f"next: kedge annotate report {work.resolution.job}; a mixture takes {' and '.join(num_rows)}",
                  markup=False)  # fmt: skip
    else:
        out.print(f"next: kedge annotate status {work.resolution.job}: no pair is decided yet", markup=False)
