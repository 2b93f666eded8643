"""Part measures over row parts: in this process, or in a pool of fresh processes. Each finished part appears whole.

`curation.engines` runs the same tasks on Ray and Slurm: the bytes of a part depend on its rows and its measure alone.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.catalog import write_parquet
from curation.errors import POOL_DIED, UserError
from curation.measures import PartMeasure

SHOWN_PARTS = 3


@dataclass(frozen=True)
class PartJob:
    """Measure `rows` (a row part of `stage`) into `target`; it is written beside `draft` first."""

    rows: Path
    target: Path
    draft: Path
    stage: str


Task = tuple[PartMeasure, PartJob]


def run_parts(measure: PartMeasure, jobs: Sequence[PartJob], workers: int, done: Callable[[], None]) -> None:
    """Run every job of one measure; `done` is called after each."""
    run_tasks([(measure, job) for job in jobs], workers, done)


def run_tasks(tasks: Sequence[Task], workers: int, done: Callable[[], None]) -> None:
    """Run every task; `done` is called after each. A part is renamed into place when it is complete, so an interrupted
    run goes on with the parts that are missing. Spawned processes: no state of this one leaks into a measure. Raises
    UserError with the parts that were being measured when a worker process was killed."""
    if workers <= 1 or len(tasks) < 2:
        for measure, job in tasks:
            measure_part(measure, job)
            done()
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), spawn, initializer=single_threaded) as pool:
        try:
            for future in as_completed([pool.submit(measure_part, measure, job) for measure, job in tasks]):
                future.result()
                done()
        except BrokenProcessPool as error:
            raise UserError(*killed(tasks)) from error


def single_threaded() -> None:
    """Leave the cores of this process to its siblings. Polars reads the variable when it is imported."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    pa.set_cpu_count(1)


def measure_part(measure: PartMeasure, job: PartJob) -> None:
    """Measure one part. Raises RuntimeError where the measure returned other rows or columns than it declares."""
    mark = _mark(job)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    file = pq.ParquetFile(job.rows)
    wanted = [name for name in measure.reads(job.stage) if name in file.schema_arrow.names]
    rows = pq.read_table(job.rows, columns=["row_id", *wanted])
    values = measure.measure(rows.select(wanted), job.stage)
    if values.num_rows != rows.num_rows or values.schema.names != measure.columns.names:
        raise RuntimeError(f"{measure.plugin_name()} returned {values.num_rows} rows with {values.schema.names} for "
                           f"{rows.num_rows} rows with {measure.columns.names}")  # fmt: skip
    ids = rows["row_id"].combine_chunks()
    field = schema.IDENTITY[0] if ids.type == schema.UUID else ("row_id", ids.type)
    table = pa.Table.from_arrays(
        [ids, *values.cast(measure.columns).columns], schema=pa.schema([field, *measure.columns])
    )
    draft = job.draft.with_name(f"{job.draft.name}.{platform.node()}-{os.getpid()}")  # a twin may run on another node
    write_parquet(draft, table)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(job.target)
    mark.unlink(missing_ok=True)


def _mark(job: PartJob) -> Path:
    """Stands beside the draft while a part is being measured."""
    return job.draft.with_name(f"{job.draft.name}.started")


def unmark(tasks: Sequence[Task]) -> None:
    """Forget what an earlier run began."""
    for _, job in tasks:
        _mark(job).unlink(missing_ok=True)


def killed(tasks: Sequence[Task]) -> tuple[str, str]:
    """What is wrong and what to do next, after the death of a process that measured some of `tasks`."""
    begun = [f"{measure.plugin_name()} of {job.rows.parent.name}/{job.rows.name}" for measure, job in tasks
             if not job.target.exists() and _mark(job).exists()]  # fmt: skip
    finished = sum(job.target.exists() for _, job in tasks)
    shown = ", ".join(begun[:SHOWN_PARTS]) + (f" and {len(begun) - SHOWN_PARTS} more" * (len(begun) > SHOWN_PARTS))
    what, then = POOL_DIED
    return f"{what}, while measuring {shown or 'nothing yet'}", f"{then}: {finished:,} of {len(tasks):,} parts are " \
        "finished and stay"  # fmt: skip
