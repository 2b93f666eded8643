"""JSON lines, plain or packed (.gz, .zst): one record a line."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
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

    version: ClassVar[int] = 3
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz")
    max_line_bytes: int = MAX_LINE_BYTES

    def read(self, path: Path) -> Iterator[Record]:
        number = 0
        try:
            with open_packed(path) as stream:
                for number, line, problem in limited_lines(stream, self.max_line_bytes):
                    if problem:
                        yield Record(number, problem=problem, raw=beginning(line))
                    elif line and not line.isspace():
                        yield _record(number, line)
        except BROKEN as error:
            yield Record(number + 1, problem=f"the file is cut off or broken: {error}")


def limited_lines(stream: IO[bytes], limit: int) -> Iterator[tuple[int, bytes, str]]:
    """(number, line, problem) of every line, without a byte order mark. Of a line longer than `limit` bytes, only the
    beginning is held, and `problem` says so."""
    for number in itertools.count(1):
        line = stream.readline(limit)
        if not line:
            return
        problem = ""
        if len(line) == limit and not line.endswith(b"\n"):
            size = len(line) + _skip_line(stream, limit)
            problem = f"the line has {size:,} bytes, more than {limit:,}" if size > limit else ""
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, problem


def _record(number: int, line: bytes) -> Record:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            return Record(number, problem=f"is not UTF-8 at byte {wrong.start}", raw=beginning(line))
        return Record(number, problem=f"is no valid JSON: {error}", raw=beginning(line))
    if not isinstance(value, dict):
        return Record(number, problem="is no JSON object", raw=beginning(line))
    return Record(number, value)


def beginning(line: bytes) -> str:
    """What a reject keeps of a line."""
    return line[:2000].decode(errors="replace")


def _skip_line(stream: IO[bytes], block: int) -> int:
    skipped = 0
    while piece := stream.readline(block):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
