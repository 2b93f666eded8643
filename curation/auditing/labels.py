"""Further strata of rows, their language and skill: what their `meta` says, else what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curation.catalog import Catalog
from curation.measuring import measure_fingerprint, named, signal_parts
from curation.mixtures import FrozenMixture
from curation.relations import parquet_list

MEASURES = {"language": "language", "skill": "skills"}  # stratum, a column of this measure
LEAST_ROWS, LEAST_SHARE = 50, 0.01  # of a measured stratum: a handful of rows moves by chance
OTHER, UNKNOWN = "other", "unknown"


@dataclass(frozen=True)
class Measured:
    """The signal parts that hold a stratum of a mixture's rows, and what they were measured by and of."""

    kind: str
    parts: tuple[Path, ...]
    identity: tuple[Any, ...]


def measured_labels(catalog: Catalog, mixture: FrozenMixture) -> tuple[Measured, ...]:
    """The strata that are measured for every source of a frozen mixture. Nothing is measured here."""
    known = catalog.sources()
    sources = [name for name, item in mixture.manifest.counts.get("sources", {}).items() if item["rows"]]
    found = []
    for kind, name in MEASURES.items():
        measure = named(name)
        parts = [signal_parts(catalog, measure, source) if source in known else None for source in sources]
        if parts and all(item is not None for item in parts):
            of = {source: known[source][1].fingerprint for source in sources}
            found.append(Measured(kind, tuple(part for item in parts for part in item or []),
                                  (measure_fingerprint(catalog, measure), of)))  # fmt: skip
    return tuple(found)


def told_labels(parts: list[Path]) -> dict[str, pa.ChunkedArray]:
    """What the rows' `meta` says of their language and skill (text[N]), for those of the two that some row has."""
    if "meta" not in pq.read_schema(parts[0]).names:
        return {}
    found: dict[str, pa.ChunkedArray] = {}
    for kind in MEASURES:
        column = pl.concat([pl.read_parquet(part, columns=["meta"])["meta"].str.json_path_match(f"$.{kind}")
                            for part in parts])  # fmt: skip
        if column.null_count() < len(column):
            found[kind] = pa.chunked_array([column.to_arrow().cast(pa.string())])
    return found


def labels_of(catalog: Catalog, parts: list[Path], measured: tuple[Measured, ...]) -> dict[str, pa.ChunkedArray]:
    """Language and skill of the N rows of frozen parts (text[N]): of each row what its meta says, else the signal, else
    `unknown`. Where signals are read, rare labels are `other` (`pooled`); a kind with one label is left out then."""
    found = told_labels(parts)
    if not measured:
        return found
    ids = pa.concat_tables([pq.read_table(part, columns=["row_id"]) for part in parts])
    connection = catalog.session()
    try:
        connection.register("asked", ids.append_column("place", pa.array(np.arange(ids.num_rows))))
        for item in measured:
            values = _signals(connection, item)
            if item.kind in found:
                told = pl.Series("label", found[item.kind], dtype=pl.String)
                values = told.zip_with(told.is_not_null(), values)
            values = pooled(values)
            found.pop(item.kind, None)
            if values.n_unique() > 1:
                found[item.kind] = pa.chunked_array([values.to_arrow().cast(pa.string())])
    finally:
        connection.close()
    return found


def _signals(connection: duckdb.DuckDBPyConnection, item: Measured) -> pl.Series:
    """The column of a stratum for the rows of the relation `asked`, in their places."""
    query = (f"SELECT s.{item.kind} AS label FROM asked AS a LEFT JOIN {parquet_list(list(item.parts))} AS s "
             "ON a.row_id::UUID = s.row_id ORDER BY a.place")  # fmt: skip
    return pl.Series("label", connection.sql(query).to_arrow_table()["label"])


def pooled(values: pl.Series) -> pl.Series:
    """Labels with null as `unknown`, and all of fewer than 50 rows or 1 % of the rows as `other`; where those are that
    few together, they stand with the most frequent label (`en or other`)."""
    told = values.fill_null(UNKNOWN).alias("label")
    least = max(LEAST_ROWS, LEAST_SHARE * len(values))
    counts = dict(told.value_counts().sort("count", "label", descending=[True, False]).iter_rows())
    rare = [label for label, count in counts.items() if count < least]
    if not rare:
        return told
    most = next(iter(counts))
    if sum(counts[label] for label in rare) >= least or most in rare:
        return told.replace(rare, [OTHER] * len(rare))
    return told.replace([most, *rare], [f"{most} or {OTHER}"] * (len(rare) + 1))
