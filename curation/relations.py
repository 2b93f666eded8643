"""Parts and schemas as SQL text: literals, lists of files, types, relations without rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curation import schema


def quoted(text: str | Path) -> str:
    """A SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def parquet_list(paths: Sequence[Path]) -> str:
    """`read_parquet([...])` over an explicit list of files, in that order."""
    return "read_parquet([" + ", ".join(quoted(path) for path in paths) + "])"


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
}


def sql_type(data_type: pa.DataType) -> str:
    """The DuckDB name of an Arrow type used in kedge's schemas."""
    if data_type == schema.UUID:
        return "UUID"
    if pa.types.is_list(data_type):
        return sql_type(data_type.value_type) + "[]"
    if pa.types.is_struct(data_type):
        return "STRUCT(" + ", ".join(f'"{item.name}" {sql_type(item.type)}' for item in data_type) + ")"
    return _SQL_TYPES[data_type]


def empty_relation(of: pa.Schema) -> str:
    """A SELECT with the columns of a schema and no rows."""
    return "SELECT " + ", ".join(f'NULL::{sql_type(item.type)} AS "{item.name}"' for item in of) + " WHERE false"
