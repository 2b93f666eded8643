"""CSV and TSV with a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from curation.sources import Record, Source
from curation.sources.jsonl import BROKEN, open_packed


class CsvTable(Source):
    """One record a row, every value text, empty values absent. `delimiter` defaults to a tab for .tsv, else a comma.
    `line` is the line on which the record ends."""

    version: ClassVar[int] = 2
    depends_on: ClassVar[tuple[str, ...]] = ("curation/sources/jsonl.py",)
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
    delimiter: str | None = None

    def read(self, path: Path) -> Iterator[Record]:
        delimiter = self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        csv.field_size_limit(32 << 20)
        line = 0
        try:
            with open_packed(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                rows = csv.reader(text, delimiter=delimiter, strict=True)
                header = next(rows, [])
                for row in rows:
                    line = rows.line_num
                    if len(row) != len(header):
                        problem = f"has {len(row)} values where the header has {len(header)}"
                        yield Record(line, problem=problem, raw=delimiter.join(row)[:2000])
                    else:
                        yield Record(line, {k: v for k, v in zip(header, row, strict=True) if v != ""})
        except UnicodeDecodeError as error:
            yield Record(line + 1, problem=f"is not UTF-8 at byte {error.start} of its block; the rest is lost")
        except (csv.Error, *BROKEN) as error:
            yield Record(line + 1, problem=f"the file is cut off or broken: {error}")
