"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import Record, Source


class Parquet(Source):
    """One record a row, in batches of `batch_rows`. `line` is the row's number."""

    version: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    batch_rows: int = 1024

    def read(self, path: Path) -> Iterator[Record]:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(self.batch_rows):
                    for record in _records(batch, number + 1):
                        number = record.line
                        yield record
        except (pa.ArrowException, OSError) as error:
            what = str(error).splitlines()[0]
            yield Record(number + 1, problem=f"the file is cut off or no Parquet: {what}")


def _records(batch: pa.RecordBatch, first: int) -> Iterator[Record]:
    """The rows of a batch from number `first` on; where one holds a value that Python cannot (text that is not UTF-8, a
    date out of range), the batch is taken row by row."""
    try:
        yield from [Record(number, value) for number, value in enumerate(batch.to_pylist(), first)]
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            try:
                (value,) = batch.slice(index, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                yield Record(first + index, problem=f"holds a value that cannot be read: {error}")
            else:
                yield Record(first + index, value)
