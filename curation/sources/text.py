"""Plain text: one document a line, a block between empty lines, or the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Literal

from curation.sources import Record, Source
from curation.sources.jsonl import BROKEN, MAX_LINE_BYTES, open_packed


class Text(Source):
    """Records with the one field `text`. `document` says what is one: a `line` (the default), a `block` between empty
    lines, or the `file`."""

    version: ClassVar[int] = 2
    depends_on: ClassVar[tuple[str, ...]] = ("curation/sources/jsonl.py",)
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".txt.gz", ".txt.zst", ".md")
    document: Literal["line", "block", "file"] = "line"

    def read(self, path: Path) -> Iterator[Record]:
        line = 0
        try:
            with open_packed(path) as stream:
                for line, data in self._documents(stream):
                    yield _record(line, data)
        except BROKEN as error:
            yield Record(line + 1, problem=f"the file is cut off or broken: {error}")

    def _documents(self, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        if self.document == "file":
            yield 1, stream.read()
            return
        block: list[bytes] = []
        start = 1
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES), b""), 1):
            if line.strip():
                if not block:
                    start = number
                block.append(line)
            if block and (self.document == "line" or not line.strip()):
                yield start, b"".join(block)
                block = []
        if block:
            yield start, b"".join(block)


def _record(line: int, data: bytes) -> Record:
    try:
        return Record(line, {"text": data.decode().strip("\r\n")})
    except UnicodeDecodeError as error:
        return Record(line, problem=f"is not UTF-8 at byte {error.start}", raw=data[:2000].decode(errors="replace"))
