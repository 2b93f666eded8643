"""Answers that are there already, below `lake/.cache/generation/`, one folder for each writer and way of sampling.

A shard is a JSON Lines file that is put in place whole, so that a killed command loses what was under way and nothing
else. Errors are not kept: they are asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from curation.fingerprint import hash_bytes
from curation.generation import ERROR, Answer
from curation.outputs import write_atomically

MANY = 256  # shards from which they are made one at the next start
Kept = dict[str, dict[str, Any]]


def read(folder: Path) -> Kept:
    """Answers by id, as `keep` was given them, each with the `software` that wrote it. A line that is none is no
    answer."""
    shards = sorted(folder.glob("*.jsonl"))
    found: Kept = {}
    for shard in shards:
        for line in shard.read_bytes().splitlines():
            record = _record(line)
            if record is not None:
                found.setdefault(record["id"], record)
    if len(shards) >= MANY:
        whole = _write(folder, [found[key] for key in sorted(found)])
        for shard in shards:
            if shard != whole:
                shard.unlink()
    return found


def keep(folder: Path, answers: Sequence[Answer], software: str) -> Kept:
    """Put answers that are no errors in a shard, and return them by id."""
    records = [_as_record(answer) | {"software": software} for answer in answers if answer.finish_reason != ERROR]
    if records:
        _write(folder, records)
    return {record["id"]: record for record in records}


def as_error(answer: Answer, software: str) -> Mapping[str, Any]:
    """An answer in the shape of what is kept."""
    return _as_record(answer) | {"software": software}


def _as_record(answer: Answer) -> dict[str, Any]:
    return answer._asdict()


def _write(folder: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    data = b"".join(orjson.dumps(record, option=orjson.OPT_SORT_KEYS) + b"\n" for record in records)
    path = folder / f"{hash_bytes(data)}.jsonl"
    write_atomically(path, data)
    return path


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    whole = isinstance(record, dict) and set(record) == {*Answer._fields, "software"}
    return record if whole else None
