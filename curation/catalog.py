"""The catalogue: the only code that opens DuckDB or writes the lake.

The lake (Parquet and manifests) is the truth. `lake/catalog.duckdb` is an index of it that can be deleted and rebuilt.
Work is written under `lake/.tmp-*`, synced, renamed to its place and then registered by one short insert, so that a
command killed at any moment leaves nothing half-visible and the same command run again finishes the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tenacity

from curation import schema
from curation.config import SHIPPED, Project
from curation.errors import LockHeld, UserError, did_you_mean
from curation.fingerprint import hash_file
from curation.outputs import Manifest, Part, finished, read_manifest, sync, write_atomically
from curation.relations import empty_relation, parquet_list, quoted

ROWS_PER_GROUP = 16_384
BYTES_PER_GROUP = 64 << 20
INDEX = "catalog.duckdb"
TOGETHER = 5.0  # seconds after which the index has what `together` published
ENTERING = "entering-"


@dataclass
class Draft:
    """A folder being written. Fill `manifest` before leaving the `publishing` block."""

    folder: Path
    manifest: Manifest | None = None


def write_parquet(
    path: Path,
    data: pa.Table | str,
    *,
    connection: duckdb.DuckDBPyConnection | None = None,
    order_by: str = "",
    columns: str = "*",
) -> Part:
    """Write one Parquet file whose bytes depend on its rows alone, and return its Part. The only Parquet writer.

    `data` is an Arrow table, written in its order, or a SQL query, run on `connection` and written in the total order
    `order_by` (required: without it the order, and so the bytes, would depend on threads); `columns` are those of it
    that are written. zstd level 3.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        if connection is None or not order_by:
            raise ValueError("a query needs a connection and a total order")
        target = str(path).replace("'", "''")
        connection.execute(
            f"COPY (SELECT {columns} FROM ({data}) ORDER BY {order_by}) TO '{target}' "
            f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE {ROWS_PER_GROUP})"
        )
    else:
        table = data.combine_chunks()
        groups = max(1, -(-table.nbytes // BYTES_PER_GROUP))
        rows = min(ROWS_PER_GROUP, max(1, -(-table.num_rows // groups)))
        pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=rows)
    sync(path)
    num_rows = pq.read_metadata(path).num_rows
    return Part(name=path.name, num_rows=num_rows, num_bytes=path.stat().st_size, hash=hash_file(path))


class Catalog:
    """A project's lake and its index."""

    def __init__(self, project: Project):
        self.project = project
        self.lake = project.lake
        self._waiting: list[list[Any]] | None = None  # index rows that `together` holds back
        self._entered_at = 0.0
        self._mend_index()

    # ---- folders and manifests

    def folder(self, kind: str, *names: str) -> Path:
        """`lake/KIND/NAME/...`."""
        return self.lake.joinpath(kind, *names)

    def manifest(self, folder: Path) -> Manifest | None:
        """The manifest of a finished output; None where there is none, which means that nothing is there."""
        return read_manifest(folder / "manifest.json")

    def manifests(self, kind: str, name: str | None = None) -> list[tuple[Path, Manifest]]:
        """Every finished output of a kind (and name) with its folder, ordered by path."""
        found = []
        for folder in sorted(map(Path, finished(str(self.folder(kind))))):
            manifest = self.manifest(folder)
            if manifest is not None and manifest.kind == kind and name in (None, manifest.name):
                found.append((folder, manifest))
        return found

    def latest(self, kind: str, name: str, fingerprint_prefix: str = "") -> tuple[Path, Manifest] | None:
        """The output of a kind and name that was published last (by provenance.json), or None."""
        found = [item for item in self.manifests(kind, name) if item[1].fingerprint.startswith(fingerprint_prefix)]
        return max(found, key=lambda item: (self.provenance(item[0]).get("created_at", ""), item[1].fingerprint),
                   default=None)  # fmt: skip

    def provenance(self, folder: Path) -> dict[str, Any]:
        """Dates, host and command of an output; outside every fingerprint and byte comparison."""
        try:
            return dict(json.loads((folder / "provenance.json").read_bytes()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    # ---- writing

    @contextlib.contextmanager
    def writing(self, kind: str, name: str) -> Iterator[None]:
        """Hold the right to write one thing. Another process that wants it fails at once with LockHeld, told which
        command holds it. The lock dies with its process."""
        path = self.lake / ".locks" / f"{kind}-{name.replace('/', '_')}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "another kedge command"
                raise LockHeld(f"{kind} '{name}' is being written by {holder}", "wait for it to end, then run the "
                               "same command again") from None  # fmt: skip
            stream.truncate(0)
            stream.write(f"'{command_line()}' (process {os.getpid()})")
            stream.flush()
            try:
                yield
            finally:
                stream.truncate(0)

    def temporary(self, label: str) -> Path:
        """A fresh folder `lake/.tmp-PID-LABEL-...`; those of dead processes are removed first."""
        self.lake.mkdir(parents=True, exist_ok=True)
        self.sweep()
        folder = self.lake / f".tmp-{os.getpid()}-{label.replace('/', '_')}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    def sweep(self) -> list[Path]:
        """Remove temporary folders of processes that are gone, and return them."""
        gone = []
        for folder in self.lake.glob(".tmp-*"):
            pid = folder.name.split("-")[1]
            if pid.isdigit() and int(pid) != os.getpid() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder)
        return gone

    @contextlib.contextmanager
    def publishing(self, target: Path) -> Iterator[Draft]:
        """Write a folder elsewhere and put it in place whole. The block fills `draft.folder` and `draft.manifest`; an
        exception leaves nothing behind. A target that a faster twin published meanwhile is kept."""
        folder = self.temporary(target.name)
        try:
            draft = Draft(folder)
            yield draft
            if draft.manifest is None:
                raise RuntimeError("nothing was written: draft.manifest is not set")
            for path in folder.rglob("*"):
                if path.is_file():
                    sync(path)
            self._write_records(folder, draft.manifest, {})
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and self.manifest(target) is None:
                shutil.rmtree(target)  # a leftover without a manifest was never published
            with self._entering():
                if not target.exists():
                    folder.rename(target)
                    sync(target.parent)
                self.register(target, draft.manifest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def replace_manifest(self, target: Path, manifest: Manifest, provenance: dict[str, Any]) -> None:
        """Switch a growing output (rows, signals) to a new list of content-named parts, then remove the parts that it
        no longer names. Readers see the old list or the new one."""
        keep = {part.name for part in manifest.parts}
        with self._entering():
            self._write_records(target, manifest, provenance)
            for path in target.glob("part-*.parquet"):
                if path.name not in keep:
                    path.unlink()
            self.register(target, manifest)

    def _write_records(self, folder: Path, manifest: Manifest, extra: dict[str, Any]) -> None:
        created = {"created_at": datetime.now(UTC).isoformat(), "host": platform.node(), "command": command_line()}
        write_atomically(folder / "provenance.json", json.dumps(created | extra, indent=1, sort_keys=True).encode())
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(folder / "manifest.json", text.encode())

    # ---- the index

    @contextlib.contextmanager
    def _entering(self) -> Iterator[None]:
        """A mark from before an output is visible until the index has it: what a killed command leaves, the next one
        mends."""
        mark = self.lake / ".locks" / f"{ENTERING}{os.getpid()}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        yield  # an exception leaves the mark too: the output may be visible and not entered
        if not self._waiting:
            mark.unlink(missing_ok=True)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Publish many small outputs: the index, which is opened and closed for each insert, has them every TOGETHER
        seconds and at the end. The mark of `_entering` stands as long as one is missing."""
        if self._waiting is not None:
            yield
            return
        self._waiting, self._entered_at = [], time.monotonic()
        mark = self.lake / ".locks" / f"{ENTERING}{os.getpid()}"
        try:
            yield
        except BaseException:
            self._waiting = None
            if mark.exists():
                self._enter_all()  # with an output that is visible and did not come to be registered
                mark.unlink(missing_ok=True)
            raise
        rows, self._waiting = self._waiting, None
        if rows:
            self._enter(rows)
            mark.unlink(missing_ok=True)

    def _mend_index(self) -> None:
        """Enter what a killed command published and did not live to enter."""
        marks = [path for path in (self.lake / ".locks").glob(f"{ENTERING}*")
                 if not psutil.pid_exists(int(path.name.removeprefix(ENTERING)))]  # fmt: skip
        if marks:
            with contextlib.suppress(LockHeld):
                self._enter_all()
                for mark in marks:
                    mark.unlink(missing_ok=True)

    @contextlib.contextmanager
    def index(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The DuckDB file, opened for a moment. Waits up to ten seconds for another process, then LockHeld."""
        path = self.lake / INDEX
        self.lake.mkdir(parents=True, exist_ok=True)
        read_only = read_only and path.exists()
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(duckdb.IOException),
            stop=tenacity.stop_after_delay(10),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
            reraise=True,
        )
        holder = self.lake / ".locks" / "index.holder"
        try:
            connection = waiting(lambda: duckdb.connect(str(path), read_only=read_only))
        except duckdb.IOException as error:
            who = holder.read_text() if holder.exists() else "another process"
            raise LockHeld(f"{INDEX} is open in {who}", "close it, then run the same command again") from error
        try:
            if not read_only:
                holder.parent.mkdir(exist_ok=True)
                holder.write_text(f"'{command_line()}' (process {os.getpid()})")
                connection.execute((SHIPPED / "schema.sql").read_text())
            yield connection
        finally:
            connection.close()

    def register(self, folder: Path, manifest: Manifest) -> None:
        """Enter a published output into the index by one short insert."""
        row = self._index_row(folder, manifest)
        if self._waiting is None:
            self._enter([row])
            return
        self._waiting.append(row)
        if time.monotonic() - self._entered_at > TOGETHER:
            self._enter(self._waiting)
            self._waiting, self._entered_at = [], time.monotonic()

    def _enter(self, rows: list[list[Any]]) -> None:
        with self.index() as connection:
            if rows:
                connection.executemany("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _index_row(self, folder: Path, manifest: Manifest) -> list[Any]:
        return [folder.relative_to(self.lake).as_posix(), manifest.kind, manifest.name, manifest.fingerprint,
                manifest.stage, manifest.num_rows, manifest.model_dump_json()]  # fmt: skip

    def rebuild(self) -> int:
        """Make the index anew from the lake; returns the number of outputs entered."""
        (self.lake / INDEX).unlink(missing_ok=True)
        return self._enter_all()

    def _enter_all(self) -> int:
        rows = []
        for path in sorted(self.lake.rglob("manifest.json")):
            if path.relative_to(self.lake).parts[0].startswith(".tmp-"):
                continue
            manifest = self.manifest(path.parent)
            if manifest is not None:
                rows.append(self._index_row(path.parent, manifest))
        self._enter(rows)
        return len(rows)

    # ---- reading

    def sources(self, stage: str | None = None) -> dict[str, tuple[Path, Manifest]]:
        """Ingested sources (of a stage) by name, in name order."""
        found = {manifest.name: (folder, manifest) for folder, manifest in self.manifests("rows")
                 if stage in (None, manifest.stage)}  # fmt: skip
        return dict(sorted(found.items()))

    def source(self, name: str) -> tuple[Path, Manifest]:
        """Folder and manifest of one ingested source. Raises UserError with "did you mean"."""
        known = self.sources()
        if name not in known:
            raise UserError(f"there is no ingested source '{name}'", did_you_mean(name, known))
        return known[name]

    def row_parts(self, stage: str | None = None, source: str | None = None) -> list[Path]:
        """The row parts of all sources (of a stage, of one source), in source order and part order."""
        return [folder / part.name for name, (folder, manifest) in self.sources(stage).items()
                if source in (None, name) for part in manifest.parts]  # fmt: skip

    def session(self, *, threads: int | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in memory with the views `rows` (common columns of all stages), `rows_STAGE` (all columns
        of one) and `rows_benchmark` (benchmark items, no part of `rows`). It may read the lake and nothing else, and
        spills to `lake/.tmp-PID-duckdb`. The caller closes it."""
        connection = duckdb.connect(":memory:")
        connection.execute(f"SET memory_limit = {quoted(self.project.file.memory)}")
        connection.execute("SET preserve_insertion_order = true")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET arrow_lossless_conversion = true")
        if threads:
            connection.execute(f"SET threads = {threads}")
        connection.execute(f"SET temp_directory = {quoted(self._spill())}")
        common = ", ".join(name for name, _ in schema.IDENTITY + schema.ORIGIN)
        for stage in (*schema.STAGES, schema.BENCHMARK):
            parts = self.row_parts(stage)
            body = f"SELECT * FROM {parquet_list(parts)}" if parts else empty_relation(schema.rows(stage))
            connection.execute(f"CREATE VIEW rows_{stage} AS {body}")
        union = " UNION ALL ".join(f"SELECT {common} FROM rows_{stage}" for stage in schema.STAGES)
        connection.execute(f"CREATE VIEW rows AS {union}")
        return connection

    def _spill(self) -> Path:
        """One folder per process for what DuckDB spills, removed when the process ends."""
        folder = self.lake / f".tmp-{os.getpid()}-duckdb"
        if not folder.exists():
            self.sweep()
            folder.mkdir(parents=True)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def confine(self, connection: duckdb.DuckDBPyConnection) -> None:
        """From here on the connection reads files of the lake and nothing else, and no setting can be changed."""
        connection.execute(f"SET allowed_directories = [{quoted(self.lake.resolve())}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")


def command_line() -> str:
    """The command as the user typed it, without the interpreter's path."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500]
