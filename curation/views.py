"""Everything the lake holds as views, for `kedge sql` and `kedge why`."""

from __future__ import annotations

from pathlib import Path

import duckdb
import orjson
import pyarrow as pa

from curation import checkpoints, schema
from curation.annotation import views as annotation
from curation.catalog import Catalog
from curation.outputs import Manifest
from curation.relations import empty_relation, parquet_list
from curation.rules import HELD_OUT

MANIFESTS = pa.schema([("kind", pa.string()), ("name", pa.string()), ("fingerprint", pa.string()),
                       ("stage", pa.string()), ("num_rows", pa.int64()), ("path", pa.string()),
                       ("manifest", pa.string())])  # fmt: skip
MIXTURE_ROWS = pa.schema([("mixture", pa.string()), ("fingerprint", pa.string()), ("split", pa.string()),
                          ("row_id", pa.string()), ("source", pa.string()), ("epoch", pa.int32())])  # fmt: skip
CHECKPOINTS = pa.schema([("run", pa.string()), ("step", pa.int64()), ("path", pa.string()), ("weights", pa.string()),
                         ("weights_hash", pa.string()), ("parent", pa.string()), ("mixture", pa.string()),
                         ("audit", pa.string()), ("run_fingerprint", pa.string())])  # fmt: skip


def full_session(catalog: Catalog) -> duckdb.DuckDBPyConnection:
    """A session with a view for everything that is published: `rows`, `rows_STAGE`, one view per measure (its newest
    fingerprint), one per kind of evidence (`duplicates`, `contamination_hits`, `generation`, `items`, `votes`,
    `resolved`, ...), `annotated`, `verdicts`, `mixture_rows`, `scores`, `checkpoints`, `manifests`; confined to the
    lake. The caller closes it."""
    connection = catalog.session()
    for name, select in selects(catalog).items():
        connection.execute(f'CREATE VIEW "{name}" AS {select}')
    _bind(connection, "manifests", MANIFESTS, manifest_rows(catalog))
    records = [item.model_dump() for item in checkpoints.every(catalog)]
    _bind(connection, "checkpoints", CHECKPOINTS, records)
    catalog.confine(connection)
    return connection


def _bind(connection: duckdb.DuckDBPyConnection, name: str, of: pa.Schema, records: list[dict[str, object]]) -> None:
    kept = [{column: record.get(column) for column in of.names} for record in records]
    table = pa.Table.from_pylist(kept, schema=of)
    connection.register(f"{name}_table", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_table")
    connection.unregister(f"{name}_table")


def manifest_rows(catalog: Catalog) -> list[dict[str, object]]:
    """One record per published output of the lake, in path order."""
    kinds = sorted(path.name for path in catalog.lake.glob("*") if path.is_dir() and not path.name.startswith("."))
    return [
        {
            "kind": manifest.kind,
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "stage": manifest.stage,
            "num_rows": manifest.num_rows,
            "path": folder.relative_to(catalog.lake).as_posix(),
            "manifest": orjson.dumps(manifest.model_dump(mode="json")).decode(),
        }
        for kind in kinds
        for folder, manifest in catalog.manifests(kind)
    ]


def signal_folders(catalog: Catalog) -> dict[str, dict[str, list[str]]]:
    """measure -> source -> its signal parts, of the measure's newest fingerprint for that source."""
    newest: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for folder, manifest in catalog.manifests("signals"):
        measure, source = folder.parent.parent.name, folder.name
        measure = str(manifest.parameters.get("config", {}).get("name") or measure)  # one of several classifiers
        created = str(catalog.provenance(folder).get("created_at", ""))
        parts = [str(folder / part.name) for part in manifest.parts]
        if created >= newest.get((measure, source), ("", []))[0]:
            newest[(measure, source)] = (created, parts)
    found: dict[str, dict[str, list[str]]] = {}
    for (measure, source), (_, parts) in sorted(newest.items()):
        found.setdefault(measure, {})[source] = parts
    return found


def selects(catalog: Catalog) -> dict[str, str]:
    """SELECT statements of the views over the lake's Parquet, by view name."""
    found = {}
    for measure, by_source in signal_folders(catalog).items():
        queries = [f"SELECT '{source}' AS of_source, * FROM {parquet_list([Path(part) for part in parts])}"
                   for source, parts in by_source.items() if parts and not source.startswith("mixture-")]  # fmt: skip
        if queries:
            found[measure] = " UNION ALL BY NAME ".join(queries)
    for view, of in (("verdicts", schema.VERDICTS), ("scores", schema.SCORES)):
        parts = [folder / part.name for folder, manifest in catalog.manifests(view)
                 if view != "verdicts" or _in_force(catalog, manifest) for part in manifest.parts]  # fmt: skip
        found[view] = f"SELECT DISTINCT * FROM {parquet_list(parts)}" if parts else empty_relation(of)
    found["duplicates"] = empty_relation(schema.DUPLICATES)
    found |= evidence_views(catalog) | annotation.selects(catalog)
    found["mixture_rows"] = _mixture_rows(catalog)
    return found


def evidence_views(catalog: Catalog) -> dict[str, str]:
    """kind -> a SELECT of the evidence of that kind: of each measure that writes it, what it published last."""
    newest: dict[tuple[str, str], tuple[str, list[Path]]] = {}
    for folder, manifest in catalog.manifests("evidence"):
        key = (manifest.name, str(manifest.parameters.get("plugin")))
        created = str(catalog.provenance(folder).get("created_at", ""))
        if created >= newest.get(key, ("", []))[0]:
            newest[key] = (created, [folder / part.name for part in manifest.parts])
    found: dict[str, list[str]] = {}
    for (kind, _), (_, parts) in sorted(newest.items()):
        if parts:
            found.setdefault(kind, []).append(f"SELECT * FROM {parquet_list(parts)}")
    return {kind: " UNION ALL BY NAME ".join(queries) for kind, queries in found.items()}


def _in_force(catalog: Catalog, manifest: Manifest) -> bool:
    """Whether verdicts are of a rule that is still there, adopted, and not skipped by the project."""
    rules = {HELD_OUT, *catalog.project.paths("rules", ".sql")} - set(catalog.project.file.skip_rules)
    return manifest.name in rules and bool(manifest.parameters.get("adopted", True))


def _mixture_rows(catalog: Catalog) -> str:
    queries = []
    for folder, manifest in catalog.manifests("mixtures"):
        for split in ("train", "held_out"):
            parts = sorted((folder / split).glob("*.parquet"))
            if parts:
                queries.append(f"SELECT '{manifest.name}' AS mixture, '{manifest.fingerprint}' AS fingerprint, "
                               f"'{split}' AS split, row_id, source, epoch FROM {parquet_list(parts)}")  # fmt: skip
    return " UNION ALL ".join(queries) or empty_relation(MIXTURE_ROWS)
