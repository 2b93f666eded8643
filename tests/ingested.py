"""Small records, and the rows that they became."""

from __future__ import annotations

import pyarrow.parquet as pq

from curation.catalog import Catalog
from curation.config import find_project

U, A = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
RECORDS = [{"messages": [U | {"content": f"{n}?"}, A], "topic": "sum"} for n in range(5)]


def rows_of(source: str) -> list[dict]:
    catalog = Catalog(find_project())
    found = [row for part in catalog.row_parts(source=source) for row in pq.read_table(part).to_pylist()]
    return [_dense(row) for row in found]


def _dense(value):
    if isinstance(value, dict):
        return {key: _dense(item) for key, item in value.items() if item is not None}
    return [_dense(item) for item in value] if isinstance(value, list) else value
