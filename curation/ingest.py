"""A source's files -> row parts and rejects in the lake.

Each file gives its own parts, so that a grown source reads only its new files. Identical payloads of a source are
numbered in the order of their meta, then file and line, over all files: parts whose numbers move are written again.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import identity, parsing, registry, schema
from curation.catalog import Catalog, write_parquet
from curation.console import progress
from curation.errors import POOL_DIED, GateFailed, Problem, UserError
from curation.fingerprint import fingerprint, hash_bytes, hash_file
from curation.outputs import Manifest, Part
from curation.parsing import Parsed, Parsing
from curation.relations import parquet_list
from curation.source_files import LABELS, SourceFile, input_files, load_source, visible_files

PARSER_VERSION = 3
SHOWN_REJECTS = 5


@dataclass
class IngestReport:
    """Counts of one ingest. `num_files_read` are those that were new or changed; `ignored` the record keys that no
    row field took (they are kept in meta)."""

    name: str
    stage: str
    num_rows: int
    num_rejects: int
    num_files: int
    num_files_read: int
    parts_written: int
    ignored: list[str] = field(default_factory=list)


def _state(path: Path) -> list[int]:
    """Size, mtime and inode of a file, or of every file of a folder; nothing for a dataset of the hub."""
    files = [path] if path.is_file() else visible_files(path) if path.is_dir() else []
    return [number for stat in (file.stat() for file in files)
            for number in (stat.st_size, stat.st_mtime_ns, stat.st_ino)]  # fmt: skip


def _hash(path: Path, shown: str) -> str:
    """Of the bytes of a file, or of every file of a folder; of the id of a hub dataset, whose revision is pinned."""
    if path.is_dir():
        return fingerprint([[file.relative_to(path).as_posix(), hash_file(file)] for file in visible_files(path)])
    return hash_file(path) if path.is_file() else hash_bytes(shown.encode())


def ingest(catalog: Catalog, name: str, *, verify: bool = False, workers: int | None = None) -> IngestReport:
    """Bring a source's rows in the lake up to date with its files. Unchanged files (size, mtime and inode, or with
    `verify` their bytes) are not read again. Rejects are always kept; more than `reject_share` of them is GateFailed,
    and then the rows stay as they were."""
    source = load_source(catalog, name)
    where = catalog.project.relative(catalog.project.path("sources", name, ".yaml"))
    how = source.parsing(name)
    files = input_files(catalog, source, where)
    parser = fingerprint([PARSER_VERSION, registry.load("sources", how.reader).version, vars(how)])
    with catalog.writing("rows", name):
        target = catalog.folder("rows", name)
        known = _known_files(catalog, target, parser)
        fresh = {shown: path for shown, path in files.items()
                 if not _unchanged(known.get(shown), path, shown, verify)}  # fmt: skip
        work = catalog.temporary(f"rows-{name}")
        try:
            parsed = dict(_parse(fresh, how, work, catalog.project.workers(workers, _total(fresh))))
            records = _publish_rejects(catalog, name, files, known, parsed)
            _check(name, where, source, records, catalog)
            plan = _plan(target, files, known, parsed)
            written = _renumber(catalog, plan, how, work)
            _publish(catalog, target, name, source, parser, plan, records, files)
        finally:
            parsing.discard(work)
    total = sum(record["num_rows"] for record in records.values())
    ignored = sorted({key for record in records.values() for key in record["ignored"]})
    return IngestReport(name, source.stage, total, sum(record["num_rejects"] for record in records.values()),
                        len(files), len(fresh), written, ignored)  # fmt: skip


def _total(files: dict[str, Path]) -> int:
    return sum(path.stat().st_size for path in files.values() if path.is_file())


def _known_files(catalog: Catalog, target: Path, parser: str) -> dict[str, dict[str, Any]]:
    """What an earlier ingest under the same parsing says of each file."""
    manifest = catalog.manifest(target)
    if manifest is None or manifest.parameters.get("parser") != parser:
        return {}
    files = catalog.provenance(target).get("files", {})
    names = {part.name for part in manifest.parts}
    return {shown: record for shown, record in files.items() if set(record["parts"]) <= names}


def _unchanged(record: dict[str, Any] | None, path: Path, shown: str, verify: bool) -> bool:
    if record is None:
        return False
    if not verify and record["state"] == _state(path):
        return True
    return path.exists() and record["hash"] == _hash(path, shown)


def _parse(fresh: dict[str, Path], how: Parsing, work: Path, workers: int) -> Iterator[tuple[str, Parsed]]:
    folders = [work / f"file-{index:05d}" for index in range(len(fresh))]
    with progress(f"reading {how.source}", len(fresh)) as advance:
        if workers == 1 or len(fresh) < 2:
            for (shown, path), folder in zip(fresh.items(), folders, strict=True):
                yield shown, parsing.parse_file(path, shown, how, folder)
                advance()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(fresh)), context) as pool:
            jobs = [pool.submit(parsing.parse_file, path, shown, how, folder)
                    for (shown, path), folder in zip(fresh.items(), folders, strict=True)]  # fmt: skip
            try:
                for shown, job in zip(fresh, jobs, strict=True):
                    yield shown, job.result()
                    advance()
            except BrokenProcessPool as error:
                raise UserError(*POOL_DIED, where=how.source) from error


def _publish_rejects(catalog: Catalog, name: str, files: dict[str, Path], known: dict[str, dict[str, Any]],
                     parsed: dict[str, Parsed]) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Put the rejects in place and return one record per file: counts, ignored keys, parts of its rejects."""
    target = catalog.folder("rejects", name)
    target.mkdir(parents=True, exist_ok=True)
    before = catalog.manifest(target)
    old = {part.name: part for part in before.parts} if before else {}
    records: dict[str, dict[str, Any]] = {}
    parts: list[Part] = []
    for shown in files:
        if shown not in parsed:
            records[shown] = dict(known[shown])
            parts += [old[part] for part in records[shown]["rejects"] if part in old]
            continue
        item = parsed[shown]
        rejected = [_adopt(path, target) for path in item.rejects]
        parts += rejected
        records[shown] = {"num_rows": item.num_rows, "num_rejects": item.num_rejects, "ignored": item.ignored,
                          "rejects": [part.name for part in rejected]}  # fmt: skip
    unique = list({part.name: part for part in parts}.values())
    identity_of = fingerprint([part.hash for part in unique])
    if before is None or before.fingerprint != identity_of:
        manifest = Manifest(kind="rejects", name=name, fingerprint=identity_of, parts=unique)
        catalog.replace_manifest(target, manifest, {})
    return records


def _adopt(staged: Path, target: Path) -> Part:
    """Give a staged file its content name in the target folder."""
    digest = hash_file(staged)
    path = target / f"part-{digest[:16]}.parquet"
    num_rows = pq.read_metadata(staged).num_rows
    size = staged.stat().st_size
    staged.replace(path)
    return Part(name=path.name, num_rows=num_rows, num_bytes=size, hash=digest)


def _check(name: str, where: str, source: SourceFile, records: dict[str, dict[str, Any]], catalog: Catalog) -> None:
    rejected = sum(record["num_rejects"] for record in records.values())
    total = rejected + sum(record["num_rows"] for record in records.values())
    if total == 0:
        raise UserError("no record was found", "check 'path' and 'reader'", where=where)
    if rejected > source.reject_share * total:
        shown = [Problem(row["reason"], "", f"{row['file']}:{row['line']}") for row in _first_rejects(catalog, name)]
        needed = min(1.0, -(-rejected * 10_000 // total) / 10_000)
        what = f"{rejected:,} of {total:,} records were rejected, more than reject_share {source.reject_share:g} allows"
        step = f"mend them (kept in lake/rejects/{name}/) or set reject_share: {needed:g} in {where}"
        raise GateFailed([*shown, Problem(what, step, where)])


def _first_rejects(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    folder = catalog.folder("rejects", name)
    manifest = catalog.manifest(folder)
    batches = (batch for part in (manifest.parts if manifest else [])
               for batch in pq.ParquetFile(folder / part.name).iter_batches(SHOWN_REJECTS))  # fmt: skip
    rows = (row for batch in batches for row in batch.to_pylist())
    return list(itertools.islice(rows, SHOWN_REJECTS))


@dataclass
class Planned:
    """One part of the source to be: staged, or in place already (`part`)."""

    shown: str
    path: Path
    part: Part | None


def _plan(
    target: Path, files: dict[str, Path], known: dict[str, dict[str, Any]], parsed: dict[str, Parsed]
) -> list[Planned]:
    plan = []
    for shown in files:
        if shown in parsed:
            plan += [Planned(shown, path, None) for path in parsed[shown].parts]
        else:
            for name in known[shown]["parts"]:
                path = target / name
                part = Part(name=name, num_rows=pq.read_metadata(path).num_rows, num_bytes=path.stat().st_size,
                            hash=known[shown]["hashes"][name])  # fmt: skip
                plan.append(Planned(shown, path, part))
    return plan


def _renumber(catalog: Catalog, plan: list[Planned], how: Parsing, work: Path) -> int:
    """Number identical payloads over all parts and write the parts anew whose numbers move; returns how many parts are
    new in the lake."""
    moved = _moved(catalog, [item.path for item in plan])
    for index, numbers in moved.items():
        item = plan[index]
        table = pq.read_table(item.path)
        occurrences = table["occurrence"].to_pylist()
        ids = table["row_id"].combine_chunks().storage.to_pylist() if table.num_rows else []
        contents = table["content_hash"].combine_chunks().storage
        for position, occurrence in numbers:
            occurrences[position] = occurrence
            ids[position] = identity.row_id(how.source, contents[position].as_py(), occurrence)
        storage = pa.ExtensionArray.from_storage(schema.UUID, pa.array(ids, pa.binary(16)))
        table = table.set_column(
            table.schema.get_field_index("row_id"), schema.rows(how.stage).field("row_id"), storage
        )
        number = pa.array(occurrences, pa.int32())
        table = table.set_column(table.schema.get_field_index("occurrence"), "occurrence", number)
        item.path = work / f"renumbered-{index:05d}.parquet"
        item.part = None
        write_parquet(item.path, table.cast(schema.rows(how.stage)))
    return sum(item.part is None for item in plan)


def _moved(catalog: Catalog, paths: list[Path]) -> dict[int, list[tuple[int, int]]]:
    """part index -> (row index, occurrence) of the rows whose occurrence is not what it must be."""
    if not paths:
        return {}
    connection = catalog.session()
    try:
        union = " UNION ALL ".join(
            f"SELECT {index} AS part, file_row_number AS position, content_hash, occurrence, meta, file, line "
            f"FROM read_parquet('{str(path).replace(chr(39), chr(39) * 2)}', file_row_number = true)"
            for index, path in enumerate(paths))  # fmt: skip
        rows = connection.execute(
            f"WITH every AS ({union}), repeated AS (SELECT content_hash FROM {parquet_list(paths)} "
            "GROUP BY content_hash HAVING count(*) > 1 OR max(occurrence) > 0), numbered AS ("
            "SELECT part, position, occurrence, row_number() OVER (PARTITION BY content_hash "
            "ORDER BY meta NULLS FIRST, file, line) - 1 AS wanted "
            "FROM every WHERE content_hash IN (SELECT content_hash FROM repeated)) "
            "SELECT part, position, wanted FROM numbered WHERE wanted <> occurrence ORDER BY ALL"
        ).fetchall()
    finally:
        connection.close()
    return {part: [(position, wanted) for _, position, wanted in group]
            for part, group in itertools.groupby(rows, key=lambda row: row[0])}  # fmt: skip


def _publish(catalog: Catalog, target: Path, name: str, source: SourceFile, parser: str, plan: list[Planned],
             records: dict[str, dict[str, Any]], files: dict[str, Path]) -> None:  # fmt: skip
    target.mkdir(parents=True, exist_ok=True)
    for shown, record in records.items():
        mine = [item for item in plan if item.shown == shown]
        parts = [item.part or _adopt(item.path, target) for item in mine]
        for item, part in zip(mine, parts, strict=True):
            item.part = part
        path = files[shown]
        names = [part.name for part in parts]
        record |= {"parts": names, "hashes": {part.name: part.hash for part in parts}}
        record |= {"state": _state(path), "hash": _hash(path, shown)}
    parts = [item.part for item in plan if item.part is not None]
    told = ("licence", "revision", "origin", "teacher", "teacher_terms", "held_out", "shape", "reader")
    facts = {key: getattr(source, key) for key in told}
    facts |= {key: value for key in LABELS if (value := getattr(source, key)) is not None}
    manifest = Manifest(
        kind="rows", name=name, stage=source.stage, parts=parts,
        fingerprint=fingerprint([parser, [part.hash for part in parts]]),
        inputs={shown: record["hash"] for shown, record in records.items()},
        parameters={"parser": parser} | facts,
        counts={"num_rows": sum(part.num_rows for part in parts),
                "num_rejects": sum(record["num_rejects"] for record in records.values())},
    )  # fmt: skip
    provenance = {"files": records}
    if catalog.manifest(target) != manifest or catalog.provenance(target).get("files") != records:
        catalog.replace_manifest(target, manifest, provenance)


def read_bare(path: Path, folder: Path) -> tuple[str, list[Path]]:
    """A file without any project -> (stage, row parts written into `folder`). The shape is recognised. Raises UserError
    where nothing can be recognised or no row comes of it."""
    from curation.recognising import recognise_file

    seen = recognise_file(path)
    how = Parsing(path.name.split(".")[0], seen.reader, {}, seen.shape, seen.stage, {}, 0.0)
    parsed = parsing.parse_file(path, path.name, how, folder)
    if not parsed.parts:
        raise UserError("no record of it becomes a row", "look at its first lines", where=str(path))
    return seen.stage, parsed.parts


def num_held_out(catalog: Catalog, name: str) -> int:
    """Rows of a source whose prompts are held out."""
    folder, manifest = catalog.source(name)
    return sum(int(pc.sum(pq.read_table(folder / part.name, columns=["held_out"])["held_out"]).as_py() or 0)
               for part in manifest.parts)  # fmt: skip
