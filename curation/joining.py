"""A join measure over all sources: what it is given, and how its evidence and its values per row are published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.catalog import Catalog, write_parquet
from curation.join_work import JoinWork, RowPart
from curation.outputs import Manifest
from curation.relations import empty_relation, parquet_list, quoted

if TYPE_CHECKING:
    import duckdb

    from curation.measures import JoinMeasure


def row_parts(catalog: Catalog, stages: Sequence[str], signals: Mapping[str, Mapping[str, list[Path]]]
              ) -> tuple[RowPart, ...]:  # fmt: skip
    """The row parts of some stages; `signals` is measure -> source -> its signal parts."""
    found = []
    for source, (folder, manifest) in catalog.sources().items():
        if manifest.stage not in stages:
            continue
        for index, part in enumerate(manifest.parts):
            mine = {name: by_source[source][index] for name, by_source in signals.items() if source in by_source}
            found.append(RowPart(source, manifest.stage or "", folder / part.name, part.hash, part.num_rows, mine))
    return tuple(found)


def priorities(catalog: Catalog) -> dict[str, int]:
    """Every source's rank: those of `source_priority` in kedge.yaml first, then what annotators decided (they saw the
    others' rows), then the others by name."""
    known = catalog.sources()
    first = [name for name in catalog.project.file.source_priority if name in known]
    voted = [name for name, (_, manifest) in known.items()
             if manifest.inputs and all(path.startswith("annotated/") for path in manifest.inputs)]  # fmt: skip
    return {name: rank for rank, name in enumerate(dict.fromkeys([*first, *voted, *known]))}


def cache_folder(catalog: Catalog, measure: JoinMeasure) -> Path:
    """`lake/.cache/MEASURE/vVERSION-IDENTITY`: what a join measure with these options keeps between runs."""
    return catalog.lake / ".cache" / measure.plugin_name() / f"v{measure.version}-{measure.fingerprint()[:16]}"


def previous_evidence(
    catalog: Catalog, measure: JoinMeasure, parameters: Mapping[str, Any], digest: str
) -> Path | None:
    """The newest evidence of the same measure and options over other rows."""
    found = [(str(catalog.provenance(folder).get("created_at", "")), folder)
             for folder, manifest in catalog.manifests("evidence", measure.evidence_kind)
             if manifest.parameters == parameters and manifest.fingerprint != digest]  # fmt: skip
    return max(found)[1] / "part-00000.parquet" if found else None


def bind_signals(connection: duckdb.DuckDBPyConnection, measure: JoinMeasure, parts: Sequence[RowPart],
                 columns: Mapping[str, pa.Schema]) -> None:  # fmt: skip
    """Create `signals_MEASURE` for every needed measure."""
    for name in measure.needs:
        by_source: dict[str, list[Path]] = {}
        for part in parts:
            by_source.setdefault(part.source, []).append(part.signals[name])
        queries = [f"SELECT {quoted(source)} AS source, * FROM {parquet_list(paths)}"
                   for source, paths in by_source.items()]  # fmt: skip
        of = pa.schema([("source", pa.string()), ("row_id", pa.uuid()), *columns[name]])
        connection.execute(f"CREATE VIEW signals_{name} AS {' UNION ALL '.join(queries) or empty_relation(of)}")


def publish_evidence(catalog: Catalog, measure: JoinMeasure, work: JoinWork, digest: str,
                     parameters: dict[str, Any]) -> None:  # fmt: skip
    """Write `found` in its total order, with the counts that the join gave."""
    order = ", ".join(measure.evidence.names)
    with catalog.publishing(catalog.folder("evidence", measure.evidence_kind, digest[:16])) as draft:
        part = write_parquet(draft.folder / "part-00000.parquet", f"SELECT {order} FROM found",
                             connection=work.connection, order_by=order)  # fmt: skip
        draft.manifest = Manifest(kind="evidence", name=measure.evidence_kind, fingerprint=digest, parts=[part],
                                  parameters=parameters, counts=work.counts)  # fmt: skip


def values_by_part(work: JoinWork, measure: JoinMeasure, source: str) -> Iterator[tuple[RowPart, pa.Table]]:
    """The values of `joined` for every row part of a source, in the order of its rows. Raises RuntimeError where a row
    has none or several."""
    parts = [part for part in work.parts if part.source == source]
    if not parts:
        return
    columns = ", ".join(f'joined."{name}"' for name in measure.columns.names)
    union = " UNION ALL ".join(f"SELECT {index} AS part, file_row_number AS position, row_id FROM "
                               f"read_parquet({quoted(part.path)}, file_row_number = true)"
                               for index, part in enumerate(parts))  # fmt: skip
    query = f"SELECT part, position, r.row_id, {columns} FROM ({union}) AS r JOIN joined USING (row_id)"
    reader = work.connection.sql(f"{query} ORDER BY part, position").to_arrow_reader(65_536)
    held: list[pa.RecordBatch] = []
    rows = index = 0
    of = pa.schema([("row_id", pa.uuid()), *measure.columns])
    wrong = RuntimeError(f"{measure.plugin_name()} has no value, or several, for a row of {source}")
    for batch in reader:
        while batch.num_rows:
            if index == len(parts):
                raise wrong
            wanted = parts[index].num_rows - rows
            taken, batch = batch.slice(0, wanted), batch.slice(wanted)
            held.append(taken)
            rows += taken.num_rows
            if rows == parts[index].num_rows:
                table = pa.Table.from_batches(held)
                if not (pc.all(pc.equal(table["part"], index)).as_py()
                        and np.array_equal(table["position"].to_numpy(), np.arange(rows))):  # fmt: skip
                    raise wrong
                yield parts[index], table.drop_columns(["part", "position"]).cast(of)
                held, rows, index = [], 0, index + 1
    if index < len(parts):
        raise wrong


def forget(catalog: Catalog, measure: JoinMeasure, digest: str, parameters: Mapping[str, Any]) -> None:
    """Remove what a join measure said of earlier rows with these options (its values are rewritten when a source
    grows), and all that its earlier versions said and kept."""
    for base in (catalog.folder("signals", measure.plugin_name()), catalog.folder("evidence", measure.evidence_kind)):
        for folder in base.glob("*"):
            manifest = catalog.manifest(folder) or next(map(catalog.manifest, sorted(folder.glob("*"))), None)
            told = manifest.parameters if manifest else dict(parameters)
            mine = told == parameters or told.get("version") != measure.version
            if folder.name != digest[:16] and told.get("plugin") == measure.plugin_name() and mine:
                shutil.rmtree(folder, ignore_errors=True)
    kept = cache_folder(catalog, measure)
    for folder in kept.parent.glob("*"):
        if folder.name.split("-")[0] != kept.name.split("-")[0]:
            shutil.rmtree(folder, ignore_errors=True)
