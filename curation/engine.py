"""A part measure over row parts: in this process, or in a pool of fresh processes. Each finished part appears whole."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.catalog import write_parquet
from curation.measures import PartMeasure


@dataclass(frozen=True)
class PartJob:
    """Measure `rows` (a row part of `stage`) into `target`; `draft` is where it is written first."""

    rows: Path
    target: Path
    draft: Path
    stage: str


def run_parts(measure: PartMeasure, jobs: Sequence[PartJob], workers: int, done: Callable[[], None]) -> None:
    """Run every job; `done` is called after each. A part is renamed into place when it is complete, so an interrupted
    run goes on with the parts that are missing. Spawned processes: no state of this one leaks into a measure."""
    if workers <= 1 or len(jobs) < 2:
        for job in jobs:
            measure_part(measure, job)
            done()
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure_part, measure, job) for job in jobs]):
            future.result()
            done()


def measure_part(measure: PartMeasure, job: PartJob) -> None:
    """Measure one part. Raises RuntimeError where the measure returned other rows or columns than it declares."""
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
    write_parquet(job.draft, table)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.draft.replace(job.target)
