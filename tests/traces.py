"""Rows of conversations for tests of measures, and their values, without a project."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curation import schema
from curation.catalog import Catalog
from curation.measures import PartMeasure
from curation.measuring import named
from curation.rules import judge, load_rules


def turn(role: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


def conversations(*rows: list[dict[str, Any]] | str, tools: list[str | None] | None = None) -> pa.Table:
    """An sft part; a row that is text is one question and that answer."""
    messages = [[turn("user", "q?"), turn("assistant", row)] if isinstance(row, str) else row for row in rows]
    return pa.table({"messages": pa.array(messages, schema.MESSAGES), "tools": pa.array(tools or [None] * len(rows),
                                                                                       pa.string())})  # fmt: skip


def values(name: str, rows: pa.Table, *, stage: str = "sft", **options: Any) -> list[dict[str, Any]]:
    """What a part measure says of each row."""
    measure = named(name, options)
    assert isinstance(measure, PartMeasure)
    return measure.measure(rows.select([column for column in measure.reads(stage) if column in rows.column_names]),
                           stage).to_pylist()  # fmt: skip


def reasons(catalog: Catalog, *rules: str) -> dict[str, list[str]]:
    """The reasons that shipped rules give for the rows that they catch, in row order, adopted or not."""
    order = "SELECT v.reason FROM read_parquet(?) v JOIN rows r USING (row_id) ORDER BY r.line"
    found = {}
    connection = catalog.session()
    try:
        for rule in load_rules(catalog, adopted_only=False):
            if rule.name in rules:
                path = str(judge(catalog, rule))
                found[rule.name] = [reason for (reason,) in connection.execute(order, [path]).fetchall()]
    finally:
        connection.close()
    return found
