"""Plain text: one document a line, a block between empty lines, or the whole file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Literal

from curation.sources import Record, Source
from curation.sources.jsonl import BROKEN, MAX_LINE_BYTES, beginning, limited_lines, open_packed


class Text(Source):
    """Records with the one field `text`. `document` says what is one: a `line` (the default), a `block` between empty
    lines, or the `file`. A document with a line longer than 32 MiB is a reject."""

    version: ClassVar[int] = 3
    depends_on: ClassVar[tuple[str, ...]] = ("curation/sources/jsonl.py",)
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".txt.gz", ".txt.zst", ".md")
    document: Literal["line", "block", "file"] = "line"

    def read(self, path: Path) -> Iterator[Record]:
        line = 0
        try:
            with open_packed(path) as stream:
                for record in self._documents(stream):
                    line = record.line
                    yield record
        except BROKEN as error:
            yield Record(line + 1, problem=f"the file is cut off or broken: {error}")

    def _documents(self, stream: IO[bytes]) -> Iterator[Record]:
        if self.document == "file":
            yield _record(1, stream.read().removeprefix(codecs.BOM_UTF8))
            return
        block: list[bytes] = []
        start, problem = 1, ""
        for number, line, too_long in limited_lines(stream, MAX_LINE_BYTES):
            if line.strip() or too_long:
                if not block:
                    start = number
                block.append(line)
                problem = problem or too_long
            if block and (self.document == "line" or not line.strip()):
                yield _record(start, b"".join(block), problem)
                block, problem = [], ""
        if block:
            yield _record(start, b"".join(block), problem)


def _record(line: int, data: bytes, problem: str = "") -> Record:
    if problem:
        return Record(line, problem=problem, raw=beginning(data))
    try:
        return Record(line, {"text": data.decode().strip("\r\n")})
    except UnicodeDecodeError as error:
        return Record(line, problem=f"is not UTF-8 at byte {error.start}", raw=beginning(data))
