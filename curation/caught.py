"""Rows that a rule catches, sampled, each with its text, the values that the rule read, and the evidence about it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curation import schema
from curation.catalog import Catalog
from curation.measures import JoinMeasure
from curation.measuring import Measure, signals_view
from curation.relations import parquet_list
from curation.rule_effects import Judged
from curation.rules import bind_evidence

if TYPE_CHECKING:
    import duckdb

NUM_SAMPLES = 20
SHOWN_CHARS = 600
EVIDENCE_PER_ROW = 3


def samples(catalog: Catalog, judged: Judged, rules: Sequence[str] | None = None,
            count: int = NUM_SAMPLES) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """rule -> at most `count` of the rows that it catches, the same ones every time (in the order of a hash of the
    row_id): row_id, source, stage, reason, `text` (pairs of place and excerpt), `values` (what the rule's measures
    say), `evidence` (of its join measures, the other row's text beside it)."""
    files = {name: path for name, path in (judged.adopted | judged.others).items() if rules is None or name in rules}
    connection = catalog.session()
    try:
        picked = _records(
            connection,
            f"SELECT rule, row_id, source, min(reason) AS reason FROM {parquet_list(list(files.values()))} "
            "GROUP BY rule, row_id, source "
            f"QUALIFY row_number() OVER (PARTITION BY rule ORDER BY md5(row_id::VARCHAR), row_id) <= {count} "
            "ORDER BY rule, md5(row_id::VARCHAR), row_id",
        )
        measures = {name: judged.rules[name].measures for name in files if name in judged.rules}
        unique = {item.fingerprint(): item for items in measures.values() for item in items}
        bind_evidence(connection, catalog, list(unique.values()))
        ids = {row["row_id"] for row in picked}
        values = _values(catalog, connection, ids, list(unique.values()))
        evidence = {key: _evidence(connection, item, ids) for key, item in unique.items()
                    if isinstance(item, JoinMeasure)}  # fmt: skip
        others = {value for rows in evidence.values() for item in rows for value in item.values()
                  if isinstance(value, uuid.UUID)}  # fmt: skip
        texts = excerpts(connection, ids | others)
    finally:
        connection.close()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for row in picked:
        mine = measures.get(row["rule"], ())
        names = [name for item in mine for name in item.columns.names]
        told = [_told(item, row["row_id"], texts) for measure in mine
                for item in evidence.get(measure.fingerprint(), ()) if item["row_id"] == row["row_id"]]  # fmt: skip
        stage, text = texts.get(row["row_id"], ("", []))
        found[row["rule"]].append({
            "row_id": row["row_id"].hex, "source": row["source"], "stage": stage, "reason": row["reason"], "text": text,
            "values": {name: value for name, value in values.get(row["row_id"], {}).items() if name in names},
            "evidence": told[:EVIDENCE_PER_ROW], "more_evidence": max(0, len(told) - EVIDENCE_PER_ROW),
        })  # fmt: skip
    return found


def _values(catalog: Catalog, connection: duckdb.DuckDBPyConnection, ids: set[uuid.UUID],
            measures: list[Measure]) -> dict[uuid.UUID, dict[str, Any]]:  # fmt: skip
    """row_id -> the signal columns of all measures that its stage has."""
    _bind_ids(connection, ids)
    found = {}
    for stage in schema.STAGES:
        mine = [item for item in measures if stage in item.stages]
        body = signals_view(catalog, stage, mine, columns="r.row_id") if mine else ""
        for row in _records(connection, f"SELECT * FROM ({body}) SEMI JOIN wanted USING (row_id)") if body else ():
            found[row.pop("row_id")] = row
    return found


def _evidence(connection: duckdb.DuckDBPyConnection, measure: JoinMeasure, ids: set[uuid.UUID]) -> list[dict[str, Any]]:
    """The evidence of a join measure on some rows, in its total order."""
    _bind_ids(connection, ids)
    return _records(connection, f'SELECT * FROM "{measure.evidence_kind}" SEMI JOIN wanted USING (row_id) ORDER BY ALL')


def _told(item: Mapping[str, Any], of: uuid.UUID, texts: Mapping[uuid.UUID, tuple[str, list[tuple[str, str]]]]
          ) -> dict[str, Any]:  # fmt: skip
    """One piece of evidence as plain values; where it names another row, the first lines of that row too."""
    told: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, uuid.UUID):
            if value == of:
                continue
            told[name] = value.hex
            if value in texts:
                told[f"{name} text"] = " · ".join(text for _, text in texts[value][1])[:SHOWN_CHARS]
        elif value is not None and name != "row_id":
            told[name] = value
    return told


def excerpts(connection: duckdb.DuckDBPyConnection, ids: Iterable[uuid.UUID]
             ) -> dict[uuid.UUID, tuple[str, list[tuple[str, str]]]]:  # fmt: skip
    """row_id -> (stage, [(place, excerpt)]) of rows and of benchmark items; the middle of a long text is left out."""
    _bind_ids(connection, ids)
    found = {}
    for stage in (*schema.STAGES, schema.BENCHMARK):
        columns = ", ".join(f'"{name}"' for name, _ in schema.PAYLOAD[stage])
        query = f"SELECT row_id, {columns} FROM rows_{stage} SEMI JOIN wanted USING (row_id)"
        for row in _records(connection, query):
            key = row.pop("row_id")
            found[key] = (stage, [(place, _excerpt(text)) for name, value in row.items()
                                  for place, text in _texts(name, value)])  # fmt: skip
    return found


def _texts(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield name, value
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield f"{name} {index + 1}", item
            continue
        place = item["role"] if name == "messages" else f"{name}: {item['role']}"
        for field in ("reasoning", "content", "tool_calls"):
            if item[field]:
                yield place if field == "content" else f"{place} ({field.replace('_', ' ')})", item[field]


def _excerpt(text: str) -> str:
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"


def _bind_ids(connection: duckdb.DuckDBPyConnection, ids: Iterable[uuid.UUID]) -> None:
    connection.register("wanted_ids", pa.table({"row_id": [item.hex for item in sorted(ids)]},
                                               schema=pa.schema([("row_id", pa.string())])))  # fmt: skip
    connection.execute("CREATE OR REPLACE TEMP TABLE wanted AS SELECT row_id::UUID AS row_id FROM wanted_ids")
    connection.unregister("wanted_ids")


def _records(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [item[0] for item in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
