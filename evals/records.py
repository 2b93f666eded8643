"""Items of a benchmark from files on disk, with the place of each for error messages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.config import shown
from curation.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def data_files(path: Path, split: str) -> list[Path]:
    """The file at `path`, or the files of a split in the folder `path` (`test.jsonl`, `test-00000-of-00001.parquet`,
    `main/test.parquet`), in name order; empty where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    found = [item for item in sorted(path.rglob("*")) if item.is_file() and item.name.endswith(SUFFIXES)]
    return [item for item in found if item.name.split(".")[0] == split or item.name.startswith(f"{split}-")]


def read_records(files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, fields) of every record in order. Raises UserError where a file or record cannot be read: a
    benchmark that loses items silently would not be the same benchmark."""
    for path in files:
        number = 0
        try:
            for number, record in _records(path):
                if not isinstance(record, dict):
                    raise UserError("is no mapping of fields", "write one JSON object per item",
                                    where=f"{shown(path)}:{number}")  # fmt: skip
                yield f"{shown(path)}:{number}", record
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"cannot be read: {error}", "mend or copy the file again",
                            where=f"{shown(path)}:{number + 1}") from error  # fmt: skip


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    if path.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield number, record
        return
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.suffixes:
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                yield number, json.loads(line)
        return
    value = json.loads(data)
    yield from enumerate(value if isinstance(value, list) else [value], 1)
