"""One JSON array of records, plain or packed, read in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from curation.sources import Record, Source
from curation.sources.jsonl import BROKEN, open_packed

BLOCK_BYTES = 1 << 20
SPACE = re.compile(r"[ \t\r\n,]*")
START = re.compile(r"[\ufeff \t\r\n]*")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class JsonArray(Source):
    """`[{...}, {...}]`. `line` of a record is its number in the array. What follows a broken record cannot be found
    again and is one reject."""

    version: ClassVar[int] = 3
    depends_on: ClassVar[tuple[str, ...]] = ("curation/sources/jsonl.py",)
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".json.gz", ".json.zst")
    max_record_chars: int = 32 << 20

    def read(self, path: Path) -> Iterator[Record]:
        number = 0
        try:
            for number, value in enumerate(self._values(path), 1):
                if isinstance(value, dict):
                    yield Record(number, value)
                else:
                    yield Record(number, problem="is no JSON object", raw=str(value)[:2000])
        except UnicodeDecodeError as error:
            yield Record(number + 1, problem=f"is not UTF-8 at byte {error.start} of its block; the rest is lost")
        except (ValueError, RecursionError) as error:
            yield Record(number + 1, problem=f"is no valid JSON: {error}; the rest of the file is lost")
        except BROKEN as error:
            yield Record(number + 1, problem=f"the file is cut off or broken: {error}")

    def _values(self, path: Path) -> Iterator[Any]:
        decoder = json.JSONDecoder(parse_constant=_no_constant)
        text = codecs.getincrementaldecoder("utf-8")()
        with open_packed(path) as stream:
            buffer, at, ended, opened, wanted = "", 0, False, False, 1
            while True:
                if len(buffer) - at < wanted and not ended:
                    block = stream.read(max(BLOCK_BYTES, wanted))
                    ended = not block
                    buffer, at = buffer[at:] + text.decode(block, final=ended), 0
                at = SPACE.match(buffer, at).end() if opened else START.match(buffer, at).end()  # type: ignore[union-attr]
                if at == len(buffer):
                    if not ended:
                        wanted = 1
                        continue
                    if opened:
                        raise ValueError("the array is never closed")
                    return
                if not opened:
                    if buffer[at] != "[":
                        raise ValueError("the file is no JSON array")
                    opened, at = True, at + 1
                    continue
                if buffer[at] == "]":
                    return
                try:
                    value, at = decoder.raw_decode(buffer, at)
                except json.JSONDecodeError:
                    if ended or len(buffer) - at > self.max_record_chars:
                        raise
                    wanted = 2 * (len(buffer) - at) + 1
                    continue
                wanted = 1
                yield value
