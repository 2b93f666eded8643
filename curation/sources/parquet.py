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

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    batch_rows: int = 1024

    def read(self, path: Path) -> Iterator[Record]:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(self.batch_rows):
                    for value in batch.to_pylist():
                        number += 1
                        yield Record(number, value)
        except (pa.ArrowException, OSError) as error:
            what = str(error).splitlines()[0]
            yield Record(number + 1, problem=f"the file is cut off or no Parquet: {what}")
