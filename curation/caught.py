"""Rows that a rule catches, sampled, each with its text, the values that the rule read, and the evidence about it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curation import schema
from curation.catalog import Catalog
from curation.measures import JoinMeasure
from curation.measures._secrets import without_secrets
from curation.measuring import Measure, signals_view
from curation.relations import parquet_list
from curation.rule_effects import Judged
from curation.rules import bind_evidence

if TYPE_CHECKING:
    import duckdb

NUM_SAMPLES = 20
SHOWN_CHARS = 600
EVIDENCE_PER_ROW = 3
SECRET_CHARS = 4_000  # around an excerpt that are searched for a secret of which it would show a piece


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
        others = {value for of_rows in evidence.values() for items, _ in of_rows.values() for item in items
                  for value in item.values() if isinstance(value, uuid.UUID)}  # fmt: skip
        texts = excerpts(connection, ids | others)
    finally:
        connection.close()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for row in picked:
        mine = measures.get(row["rule"], ())
        names = [name for item in mine for name in item.columns.names]
        about = [evidence.get(measure.fingerprint(), {}).get(row["row_id"], ([], 0)) for measure in mine]
        told = [_told(item, row["row_id"], texts) for items, _ in about for item in items][:EVIDENCE_PER_ROW]
        stage, text = texts.get(row["row_id"], ("", []))
        found[row["rule"]].append({
            "row_id": row["row_id"].hex, "source": row["source"], "stage": stage, "reason": row["reason"], "text": text,
            "values": {name: value for name, value in values.get(row["row_id"], {}).items() if name in names},
            "evidence": told, "more_evidence": sum(count for _, count in about) - len(told),
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


def _evidence(connection: duckdb.DuckDBPyConnection, measure: JoinMeasure, ids: set[uuid.UUID]
              ) -> dict[uuid.UUID, tuple[list[dict[str, Any]], int]]:  # fmt: skip
    """row_id -> (the first evidence of a join measure in its total order, how much there is)."""
    _bind_ids(connection, ids)
    order = ", ".join(f'"{name}"' for name in measure.evidence.names)
    found: dict[uuid.UUID, tuple[list[dict[str, Any]], int]] = {}
    for item in _records(
        connection,
        f'SELECT *, count(*) OVER (PARTITION BY row_id) AS "how many" FROM "{measure.evidence_kind}" '
        "SEMI JOIN wanted USING (row_id) "
        f"QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY {order}) <= {EVIDENCE_PER_ROW} ORDER BY {order}",
    ):
        found.setdefault(item["row_id"], ([], item.pop("how many")))[0].append(item)
    return found


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
            told[name] = without_secrets(value) if isinstance(value, str) else value
    return told


def excerpts(connection: duckdb.DuckDBPyConnection, ids: Iterable[uuid.UUID]
             ) -> dict[uuid.UUID, tuple[str, list[tuple[str, str]]]]:  # fmt: skip
    """row_id -> (stage, [(place, excerpt)]) of rows and of benchmark items; the middle of a long text is left out, and
    in place of a key or password stands its kind."""
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
        return without_secrets(text)
    half = SHOWN_CHARS // 2
    begin = without_secrets(text[: half + SECRET_CHARS])[:half]
    end = without_secrets(text[-half - SECRET_CHARS :])[-half:]
    return f"{begin} [... {len(text) - 2 * half:,} characters ...] {end}"


def _bind_ids(connection: duckdb.DuckDBPyConnection, ids: Iterable[uuid.UUID]) -> None:
    connection.register("wanted_ids", pa.table({"row_id": [item.hex for item in sorted(ids)]},
                                               schema=pa.schema([("row_id", pa.string())])))  # fmt: skip
    connection.execute("CREATE OR REPLACE TEMP TABLE wanted AS SELECT row_id::UUID AS row_id FROM wanted_ids")
    connection.unregister("wanted_ids")


def _records(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [item[0] for item in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
