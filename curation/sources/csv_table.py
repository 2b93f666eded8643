"""CSV and TSV with a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from curation.sources import Record, Source
from curation.sources.jsonl import BROKEN, open_packed

FIELD_CHARS = 32 << 20


class CsvTable(Source):
    """One record a row, every value text, empty values absent, empty lines passed over. `delimiter` defaults to a tab
    for .tsv, else a comma. `line` is the line on which the record ends. What follows a field that is too long (32 Mi
    characters: a quote that is never closed) is lost with it and is one reject."""

    version: ClassVar[int] = 3
    depends_on: ClassVar[tuple[str, ...]] = ("curation/sources/jsonl.py",)
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
    delimiter: str | None = None

    def read(self, path: Path) -> Iterator[Record]:
        delimiter = self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        csv.field_size_limit(FIELD_CHARS)
        rows: Any = None
        try:
            # bytes that are not UTF-8 become lone surrogates, so that they spoil their own record alone
            with (
                open_packed(path) as stream,
                io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text,
            ):
                rows = csv.reader(text, delimiter=delimiter, strict=True)
                yield from _records(rows, delimiter)
        except BROKEN as error:
            line = 1 if rows is None else rows.line_num + 1
            yield Record(line, problem=f"the file is cut off or broken: {error}")


def _records(rows: Any, delimiter: str) -> Iterator[Record]:
    header: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            lost = "field limit" in str(error)
            yield Record(rows.line_num, problem=f"is no valid CSV: {error}{'; the rest is lost' if lost else ''}")
            if lost or header is None:
                return
            continue
        if header is None:
            header = row
            if twice := {name for name in header if header.count(name) > 1}:
                yield Record(rows.line_num, problem=f"the header names {min(twice)!r} twice; the file is not read")
                return
        elif row:
            yield _record(rows.line_num, row, header, delimiter)


def _record(line: int, row: list[str], header: list[str], delimiter: str) -> Record:
    if len(row) != len(header):
        raw = delimiter.join(row)[:2000].encode(errors="surrogateescape").decode(errors="replace")
        return Record(line, problem=f"has {len(row)} values where the header has {len(header)}", raw=raw)
    return Record(line, {name: item for name, item in zip(header, row, strict=True) if item != ""})
