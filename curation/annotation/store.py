"""Where annotation's evidence lies: `lake/evidence/KIND/NAME/`, growing tables that are written whole or not at all.

Items of a round never change once they are there. Votes only grow: a changed answer is one more record, and the one
that counts is an annotator's last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.annotation.records import ITEMS, ITEMS_KIND, VOTES, VOTES_KIND
from curation.catalog import Catalog, write_parquet
from curation.fingerprint import fingerprint
from curation.outputs import Manifest, Part

VOTE_ORDER = ("item_id", "kind", "annotator", "answered_at", "status", "values")


def folder_of(catalog: Catalog, kind: str, *names: str) -> Path:
    """`lake/evidence/KIND/NAME.NAME...`."""
    return catalog.folder("evidence", kind, ".".join(names))


def replace(catalog: Catalog, kind: str, names: tuple[str, ...], table: pa.Table, parameters: Mapping[str, Any],
            counts: Mapping[str, Any] | None = None) -> Path:  # fmt: skip
    """Put `table`, in its order, in the place of what was there; a reader sees the old rows or the new ones. The caller
    holds `catalog.writing`. Nothing is written where the rows are there already."""
    target = folder_of(catalog, kind, *names)
    put(catalog, target, table, lambda part: Manifest(
        kind="evidence", name=kind, fingerprint=fingerprint([kind, list(names), part.hash]), parts=[part],
        parameters={"plugin": ".".join(names), **parameters}, counts=dict(counts or {})))  # fmt: skip
    return target


def put(catalog: Catalog, target: Path, table: pa.Table, manifest_of: Callable[[Part], Manifest]) -> None:
    """Make `table` the one part of the output in `target`, under the manifest that `manifest_of` gives its part;
    nothing is written where that manifest is there already. The caller holds `catalog.writing`."""
    target.mkdir(parents=True, exist_ok=True)
    draft = catalog.temporary(target.name)
    try:
        part = write_parquet(draft / "part.parquet", table)
        part = part.model_copy(update={"name": f"part-{part.hash[:16]}.parquet"})
        manifest = manifest_of(part)
        if catalog.manifest(target) != manifest:
            (draft / "part.parquet").rename(target / part.name)
            catalog.replace_manifest(target, manifest, {})
    finally:
        for path in draft.glob("*"):
            path.unlink()
        draft.rmdir()


def read(catalog: Catalog, kind: str, schema: pa.Schema, job: str | None = None, round_name: str | None = None
         ) -> pa.Table:  # fmt: skip
    """The rows of a kind (of a job, of a round), in the order of their names."""
    tables = [schema.empty_table()]
    for folder, manifest in catalog.manifests("evidence", kind):
        of_job, _, of_round = folder.name.partition(".")
        if job in (None, of_job) and round_name in (None, of_round):
            tables += [pq.read_table(folder / part.name, schema=schema) for part in manifest.parts]
    return pa.concat_tables(tables)


def read_items(catalog: Catalog, job: str | None = None, round_name: str | None = None) -> pa.Table:
    """ITEMS of a job or round, in the order of their rounds and positions."""
    return read(catalog, ITEMS_KIND, ITEMS, job, round_name)


def read_votes(catalog: Catalog, job: str | None = None, round_name: str | None = None) -> pa.Table:
    """VOTES of a job or round, changed answers too; see `current`."""
    return read(catalog, VOTES_KIND, VOTES, job, round_name)


def add_votes(catalog: Catalog, job: str, round_name: str, table: pa.Table) -> int:
    """Keep votes (VOTES) that are not there yet, in an order that does not tell which came first; returns how many were
    new. The caller holds `catalog.writing(VOTES_KIND, job)`."""
    known = read_votes(catalog, job, round_name).to_pylist()
    keys = {_key(vote) for vote in known}
    new = {key: vote for vote in table.to_pylist() if (key := _key(vote)) not in keys}
    if new or catalog.manifest(folder_of(catalog, VOTES_KIND, job, round_name)) is None:
        rows = sorted([*known, *new.values()], key=_key)
        replace(catalog, VOTES_KIND, (job, round_name), pa.Table.from_pylist(rows, schema=VOTES),
                {"job": job, "round": round_name})  # fmt: skip
    return len(new)


def _key(vote: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(vote[name] or "" for name in VOTE_ORDER)


def current(votes: pa.Table) -> pa.Table:
    """The last answer of every annotator to every item (by `answered_at`; of equal times the submitted one)."""
    last: dict[tuple[str, ...], tuple[tuple[str, bool, str], int]] = {}
    columns = {name: votes[name].to_pylist() for name in VOTE_ORDER}
    for place in range(votes.num_rows):
        key = tuple(columns[name][place] or "" for name in VOTE_ORDER[:3])
        rank = (columns["answered_at"][place] or "", columns["status"][place] == "submitted",
                columns["values"][place] or "")  # fmt: skip
        if key not in last or rank > last[key][0]:
            last[key] = (rank, place)
    return votes.take(pa.array(sorted(place for _, place in last.values()), pa.int64()))
