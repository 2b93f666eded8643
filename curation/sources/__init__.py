"""Readers: one file per format. A reader turns one file into records; shapes.py turns records into rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curation.registry import Plugin


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file. `line` is 1-based (the record's number where a format has no lines). Either `value` holds
    the fields, or `problem` says why it could not be read and `raw` holds the beginning of what was there."""

    line: int
    value: dict[str, Any] | None = None
    problem: str = ""
    raw: str = ""


class Source(Plugin):
    """A reader of one file format. `suffixes` are the file endings it is chosen for."""

    kind: ClassVar[str] = "sources"
    suffixes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read(self, path: Path) -> Iterator[Record]:
        """The records of one file in order, in bounded memory. A record that cannot be read is yielded with its
        problem, never skipped. A file that cannot be read to its end yields what was read, then a problem."""
