"""JSON lines, plain or packed (.gz, .zst): one record a line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

import orjson
import zstandard

from curation.sources import Record, Source

MAX_LINE_BYTES = 32 << 20
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, OSError)


def open_packed(path: Path) -> IO[bytes]:
    """A file as a stream of bytes, unpacked by its ending."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.open(path, "rb"), 1 << 20)
    return path.open("rb")


class JsonLines(Source):
    """One JSON object a line. A line longer than `max_line_bytes` is a reject, read past in bounded memory."""

    version: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz")
    max_line_bytes: int = MAX_LINE_BYTES

    def read(self, path: Path) -> Iterator[Record]:
        number = 0
        try:
            with open_packed(path) as stream:
                while line := stream.readline(self.max_line_bytes):
                    number += 1
                    if len(line) == self.max_line_bytes and not line.endswith(b"\n"):
                        size = len(line) + _skip_line(stream, self.max_line_bytes)
                        problem = f"the line has {size:,} bytes, more than {self.max_line_bytes:,}"
                        yield Record(number, problem=problem, raw=_beginning(line))
                        continue
                    if line.isspace():
                        continue
                    yield _record(number, line)
        except BROKEN as error:
            yield Record(number + 1, problem=f"the file is cut off or broken: {error}")


def _record(number: int, line: bytes) -> Record:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            return Record(number, problem=f"is not UTF-8 at byte {wrong.start}", raw=_beginning(line))
        return Record(number, problem=f"is no valid JSON: {error}", raw=_beginning(line))
    if not isinstance(value, dict):
        return Record(number, problem="is no JSON object", raw=_beginning(line))
    return Record(number, value)


def _beginning(line: bytes) -> str:
    return line[:2000].decode(errors="replace")


def _skip_line(stream: IO[bytes], block: int) -> int:
    skipped = 0
    while piece := stream.readline(block):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
