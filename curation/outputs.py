"""An output of the lake: its parts, its manifest, and how its small files are put in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """One Parquet file of an output. `hash` is xxh3-128 of its bytes, hex."""

    model_config = ConfigDict(frozen=True)
    name: str
    num_rows: int
    num_bytes: int
    hash: str


class Manifest(BaseModel):
    """What an output was made of. Holds no dates, hosts or absolute paths: those go into provenance.json."""

    model_config = ConfigDict(frozen=True)
    kind: str
    name: str
    fingerprint: str
    stage: str | None = None
    parts: list[Part] = []
    inputs: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    counts: dict[str, Any] = {}

    @property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file in one step: a reader sees the old bytes or the new ones. Drafts that killed processes left
    beside it are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            leftover.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(data)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


_MANIFESTS: dict[Path, tuple[tuple[int, int, int], Manifest]] = {}


def read_manifest(path: Path) -> Manifest | None:
    """A manifest file, parsed once for each state of it. Manifests are replaced by rename, so that a new one has
    another inode, or another time and size: what another process publishes is seen at the next call."""
    try:
        state = path.stat()
        key = (state.st_ino, state.st_mtime_ns, state.st_size)
        known = _MANIFESTS.get(path)
        if known is not None and known[0] == key:
            return known[1]
        with path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            manifest = Manifest.model_validate_json(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        _MANIFESTS.pop(path, None)
        return None
    _MANIFESTS[path] = (state.st_ino, state.st_mtime_ns, state.st_size), manifest
    return manifest


def finished(folder: str) -> Iterator[str]:
    """Every folder at or below `folder` that holds a manifest, without those being written (`.tmp-*`)."""
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "manifest.json":
                    yield folder
                elif not entry.name.startswith(".tmp-") and entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    except (FileNotFoundError, NotADirectoryError):  # removed by another process meanwhile
        return
    for path in folders:
        yield from finished(path)
