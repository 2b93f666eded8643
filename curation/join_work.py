"""What a join measure works with: a connection, the row parts of all sources, scratch and cache folders, workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curation.console import progress
from curation.errors import POOL_DIED, UserError

if TYPE_CHECKING:
    import duckdb

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RowPart:
    """One row part with its signal parts by measure: the same rows in the same order. `hash` is of the part's bytes."""

    source: str
    stage: str
    path: Path
    hash: str
    num_rows: int
    signals: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class JoinWork:
    """What a join measure works with.

    `connection` is in memory, bounded, spills to disk, and has the views of `Catalog.session` and one view
    `signals_MEASURE` (row_id, source and its columns) per needed measure. `parts` are the row parts of the measure's
    stages in source and part order, `against` those of the stages that it compares with. `priorities` ranks the
    sources, 0 first. `folder` is scratch, gone after the join. `cache` outlives it, for runs of the same measure with
    the same options: files in it are named by the hash of their inputs and put in place by rename. `previous` is the
    evidence of the same measure over an earlier set of rows. `counts` goes into the evidence's manifest.
    """

    connection: duckdb.DuckDBPyConnection
    parts: tuple[RowPart, ...]
    against: tuple[RowPart, ...]
    priorities: Mapping[str, int]
    folder: Path
    cache: Path
    previous: Path | None
    workers: int
    counts: dict[str, Any] = field(default_factory=dict)

    def run(self, function: Callable[[Job], Result], jobs: Sequence[Job], label: str) -> Iterator[Result]:
        """function(job) for every job, results in the order of jobs, with a progress bar: in fresh processes, or in
        this one where there is one worker or job."""
        with progress(label, len(jobs)) as advance:
            if self.workers <= 1 or len(jobs) < 2:
                for job in jobs:
                    yield function(job)
                    advance()
                return
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(self.workers, len(jobs)), spawn) as pool:
                try:
                    for result in pool.map(function, jobs):
                        yield result
                        advance()
                except BrokenProcessPool as error:
                    raise UserError(*POOL_DIED, where=label) from error
