"""A row's whole story: where it came from, what was measured, what was judged, what holds it, what trained on it."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import duckdb

from curation.catalog import Catalog
from curation.errors import UserError
from curation.measures._secrets import without_secrets
from curation.views import evidence_views, full_session, signal_folders

MIN_PREFIX = 4


def story(catalog: Catalog, row_id: str) -> dict[str, Any]:
    """`row_id` (32 hex characters, with or without dashes, or a prefix of at least four that is unique) -> its row,
    signals, verdicts, evidence by kind, mixtures and runs; a secret in any of its texts is told by its kind alone.
    Raises UserError where no row or several match."""
    connection = full_session(catalog)
    try:
        found = _find(connection, row_id)
        key = found["row_id"]
        mixtures = _records(connection, "SELECT DISTINCT mixture, fingerprint, split, epoch FROM mixture_rows "
                            "WHERE row_id = ? ORDER BY ALL", [key])  # fmt: skip
        return {
            "row": found,
            "signals": {
                measure: (_records(connection, f'SELECT * EXCLUDE (of_source, row_id) FROM "{measure}" '
                                   "WHERE row_id = ?::UUID", [key]) or [{}])[0]
                for measure, sources in signal_folders(catalog).items() if found["source"] in sources
            },
            "verdicts": _records(connection, "SELECT DISTINCT rule, reason FROM verdicts WHERE row_id = ?::UUID "
                                 "ORDER BY ALL", [key]),
            "evidence": {
                kind: facts for kind in evidence_views(catalog) if _is_of_rows(connection, kind)
                and (facts := _records(connection, f'SELECT DISTINCT * EXCLUDE (row_id) FROM "{kind}" '
                                      "WHERE row_id = ?::UUID ORDER BY ALL", [key]))
            } | _decided(connection, found["meta"]),
            "mixtures": mixtures,
            "runs": _runs(connection, mixtures, catalog),
        }  # fmt: skip
    finally:
        connection.close()


def _decided(connection: duckdb.DuckDBPyConnection, meta: str | None) -> dict[str, list[dict[str, Any]]]:
    """The votes that a row was made of, and what generated its answers, where its meta names them."""
    known = json.loads(meta or "{}")
    known = known if isinstance(known, dict) else {}
    answers = [known.get(f"{side}_generation") for side in ("chosen", "rejected")]
    told = {
        "votes": _records(connection, "SELECT annotator, kind, status, verdict, answered_at FROM votes "
                          "WHERE item_id = ? ORDER BY ALL", [str(known.get("item_id"))]),
        "generation": _records(connection, "SELECT DISTINCT generation_id, job, model, weights, sample, temperature, "
                               "finish_reason FROM generation WHERE generation_id IN (?, ?) ORDER BY ALL", answers),
    }  # fmt: skip
    return {kind: facts for kind, facts in told.items() if facts}


def _is_of_rows(connection: duckdb.DuckDBPyConnection, kind: str) -> bool:
    """Whether evidence of a kind is about rows: some is about texts that stand in many."""
    return "row_id" in {row[0] for row in connection.execute(f'DESCRIBE "{kind}"').fetchall()}


def _find(connection: duckdb.DuckDBPyConnection, row_id: str) -> dict[str, Any]:
    text = row_id.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{4,32}", text):
        raise UserError(f"'{row_id}' is no row id", f"give 32 hex characters, or at least the first {MIN_PREFIX}")
    low, high = uuid.UUID(text.ljust(32, "0")), uuid.UUID(text.ljust(32, "f"))
    rows = _records(
        connection,
        "SELECT replace(row_id::VARCHAR, '-', '') AS row_id, source, stage, file, line, held_out, meta, "
        "replace(prompt_hash::VARCHAR, '-', '') AS prompt_hash FROM rows WHERE row_id BETWEEN ?::UUID AND ?::UUID "
        "ORDER BY row_id LIMIT 6",
        [str(low), str(high)],
    )
    if not rows:
        raise UserError(f"no row of the lake begins with '{row_id}'", 'list some: kedge sql "SELECT row_id FROM rows '
                        'LIMIT 5"')  # fmt: skip
    if len(rows) > 1:
        shown = ", ".join(str(row["row_id"])[:12] for row in rows[:5])
        raise UserError(f"several rows begin with '{row_id}': {shown}{' ...' if len(rows) > 5 else ''}", "give more "
                        "characters")  # fmt: skip
    stage = rows[0]["stage"]
    common = "row_id, content_hash, prompt_hash, stage, source, held_out, occurrence, meta, file, line"
    query = f"SELECT * EXCLUDE ({common}) FROM rows_{stage} WHERE row_id = ?::UUID"
    payload = _records(connection, query, [rows[0]["row_id"]])
    return rows[0] | {"payload": {name: value for name, value in payload[0].items() if value is not None}}


def _runs(
    connection: duckdb.DuckDBPyConnection, mixtures: list[dict[str, Any]], catalog: Catalog
) -> list[dict[str, Any]]:
    trained = {f"{item['mixture']}@{item['fingerprint']}" for item in mixtures if item["split"] == "train"}
    rows = _records(connection, "SELECT run, step, mixture FROM checkpoints WHERE mixture IS NOT NULL ORDER BY ALL", [])
    return [row for row in rows if any(_same(row["mixture"], name) for name in trained)]


def _same(recorded: str, name: str) -> bool:
    """`NAME@FINGERPRINT`, either side of which may be shortened."""
    mixture, _, digest = recorded.partition("@")
    other, _, other_digest = name.partition("@")
    return mixture == other and (digest.startswith(other_digest) or other_digest.startswith(digest))


def _records(connection: duckdb.DuckDBPyConnection, query: str, parameters: list[Any]) -> list[dict[str, Any]]:
    cursor = connection.execute(query, parameters)
    names = [item[0] for item in cursor.description or []]
    return [{name: _told(value) for name, value in zip(names, row, strict=True)} for row in cursor.fetchall()]


def _told(value: Any) -> Any:
    """A value as it is shown: ids as hex, texts without secrets."""
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    return [_told(item) for item in value] if isinstance(value, list) else value
