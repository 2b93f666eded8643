"""One input file -> staged row parts and rejects, in bounded memory. Runs in worker processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from curation import identity, registry, schema
from curation.catalog import write_parquet
from curation.conversations import Rejected
from curation.shapes import SHAPES
from curation.sources import Record, Source

ROWS_PER_PART = 65_536
BYTES_PER_PART = 64 << 20
RECORD_CHARS = 2_000
REJECTS_PER_PART = 16_384


@dataclass(frozen=True)
class Parsing:
    """How a source's records become rows: everything that decides the bytes of a part besides the file itself."""

    source: str
    reader: str
    reader_options: dict[str, Any]
    shape: str
    stage: str
    fields: dict[str, str]
    held_out: float


@dataclass
class Parsed:
    """What one file gave: staged parts of rows and of rejects in order, counts, ignored keys."""

    parts: list[Path] = field(default_factory=list)
    rejects: list[Path] = field(default_factory=list)
    num_rows: int = 0
    num_rejects: int = 0
    ignored: list[str] = field(default_factory=list)


def parse_file(path: Path, shown: str, how: Parsing, folder: Path) -> Parsed:
    """Parse one file into `folder`; `shown` is the name that rows and rejects carry. Row ids are those of a first
    occurrence. Raises UserError for a reader that cannot run at all."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = registry.make("sources", how.reader, how.reader_options, where=how.source)
    assert isinstance(reader, Source)
    parsed, rejects, ignored = Parsed(), [], set()
    columns: dict[str, list[Any]] = {name: [] for name in schema.rows(how.stage).names}
    held = 0
    for record in reader.read(path):
        try:
            row, size, unused = make_row(record, shown, how)
        except Rejected as error:
            raw = record.raw or orjson.dumps(record.value, default=str, option=orjson.OPT_NON_STR_KEYS).decode() \
                if record.raw or _clean(record.value) else repr(record.value)  # fmt: skip
            rejects.append((how.source, shown, record.line, str(error), raw[:RECORD_CHARS]))
            if len(rejects) >= REJECTS_PER_PART:
                _flush_rejects(rejects, folder, parsed)
            continue
        ignored |= unused
        for name, values in columns.items():
            values.append(row.get(name))
        held += size
        if len(columns["row_id"]) >= ROWS_PER_PART or held >= BYTES_PER_PART:
            _flush(columns, how.stage, folder, parsed)
            held = 0
    if columns["row_id"]:
        _flush(columns, how.stage, folder, parsed)
    if rejects:
        _flush_rejects(rejects, folder, parsed)
    parsed.ignored = sorted(ignored)
    return parsed


def _flush_rejects(rejects: list[tuple[Any, ...]], folder: Path, parsed: Parsed) -> None:
    columns = zip(*rejects, strict=True)
    arrays = [pa.array(list(column), item.type) for column, item in zip(columns, schema.REJECTS, strict=True)]
    path = folder / f"rejects-{len(parsed.rejects):05d}.parquet"
    write_parquet(path, pa.Table.from_arrays(arrays, schema=schema.REJECTS))
    parsed.rejects.append(path)
    parsed.num_rejects += len(rejects)
    rejects.clear()


def _clean(value: Any) -> bool:
    try:
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        return False
    return True


def make_row(record: Record, shown: str, how: Parsing) -> tuple[dict[str, Any], int, set[str]]:
    """The columns of one row, its bytes (payload and meta), and the record's keys that went to meta. Raises
    Rejected."""
    if record.value is None:
        raise Rejected(record.problem)
    value = record.value
    for wanted, present in how.fields.items():
        if present not in value:
            raise Rejected(f"has no field '{present}' (mapped to '{wanted}')")
        value = {key: item for key, item in value.items() if key != present} | {wanted: value[present]}
    fields, used = SHAPES[how.shape].parse(value, how.stage)
    unused = {key: item for key, item in value.items() if key not in used and item is not None}
    payload = identity.payload_bytes(fields, how.stage)
    try:
        meta = orjson.dumps(unused, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str).decode()
    except (TypeError, ValueError) as error:
        raise Rejected(f"holds what JSON cannot: {error}") from error
    content, prompt = identity.content_hash(payload), identity.prompt_hash(fields)
    fields |= {
        "row_id": identity.row_id(how.source, content, 0),
        "content_hash": content,
        "prompt_hash": prompt,
        "stage": how.stage,
        "source": how.source,
        "held_out": identity.is_held_out(prompt, how.held_out),
        "occurrence": 0,
        "meta": meta if unused else None,
        "file": shown,
        "line": record.line,
    }
    return fields, len(payload) + len(meta), set(unused)


def _flush(columns: dict[str, list[Any]], stage: str, folder: Path, parsed: Parsed) -> None:
    of = schema.rows(stage)
    arrays = []
    for item in of:
        values = columns[item.name]
        if item.type == schema.UUID:
            arrays.append(pa.ExtensionArray.from_storage(schema.UUID, pa.array(values, pa.binary(16))))
        else:
            arrays.append(pa.array(values, item.type))
        values.clear()
    table = pa.Table.from_arrays(arrays, schema=of)
    path = folder / f"staged-{len(parsed.parts):05d}.parquet"
    write_parquet(path, table)
    parsed.parts.append(path)
    parsed.num_rows += table.num_rows


def first_records(path: Path, reader: Source, count: int) -> Iterator[Record]:
    """The first `count` records of a file."""
    for number, record in enumerate(reader.read(path)):
        if number >= count:
            return
        yield record


def discard(folder: Path) -> None:
    """Remove a staging folder."""
    shutil.rmtree(folder, ignore_errors=True)
