"""An audit at one context length and a sweep over twenty, of stored anatomy, beside the same counts in SQL.

`python -m tests.benchmarks.audit` takes 1,000,000 rows, `--small` 100,000. The anatomy is synthetic and lies in a
Parquet file, as after `kedge audit` has measured it once. The peer is one DuckDB query over that file with the counts
that one would write by hand (rows whole, answers and thoughts kept, trained tokens kept, per source): it knows no
masks, so its trained tokens assume one span per row, and it gives no verdict.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from curation.auditing.audit import mirror_for
from curation.auditing.case import Case, checks_of
from curation.auditing.judged import by_source
from curation.auditing.sweep import sweep
from curation.catalog import write_parquet
from tests.benchmarks import wanted_rows

LENGTHS = tuple(256 * (step + 1) for step in range(20))
ONE = 2_048


def anatomy(rows: int) -> pa.Table:
    """Anatomy columns of `rows` conversations of 100 to 6,000 tokens, one trained span each, with their sources."""
    rng = np.random.default_rng(0)
    tokens, start = rng.integers(100, 6_000, rows), rng.integers(5, 90, rows)
    close = start + (tokens - start) // 2
    columns: dict[str, Any] = {"tokens": tokens, "trained_tokens": tokens - start - 1, "last_stop": tokens - 2,
                               "think_open": start, "think_close": close, "answer_start": close + 1,
                               "answer_end": tokens - 2}  # fmt: skip
    edges = pa.array(np.arange(rows + 1), pa.int32())
    return pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()} | {
        "mask_starts": pa.ListArray.from_arrays(edges, pa.array(start, pa.int32())),
        "mask_lengths": pa.ListArray.from_arrays(edges, pa.array(tokens - start - 1, pa.int32())),
        "render_error": pa.nulls(rows, pa.string()),
        "source": pa.array(np.array(["chat", "code", "math", "web"])[rng.integers(0, 4, rows)]),
    })  # fmt: skip


def one_length(path: Path) -> None:
    """Read, audit at one length, judge."""
    table = pq.read_table(path)
    case = Case("benchmark", "sft", table, table, mirror_for("trl_sft", {"max_length": ONE}))
    judged = case.judged(case.mirror.fates(table))
    checks_of(case, judged, by_source(judged))


def twenty_lengths(path: Path) -> None:
    """Read and sweep."""
    table = pq.read_table(path)
    sweep(Case("benchmark", "sft", table, table, mirror_for("trl_sft", {})), LENGTHS)


def by_hand(path: Path, lengths: tuple[int, ...]) -> None:
    """The peer's query."""
    for length in lengths:
        duckdb.sql(
            f"SELECT source, count(*), count(*) FILTER (tokens <= {length}), count(*) FILTER (answer_end <= {length}), "
            f"count(*) FILTER (think_close < {length}), sum(least(trained_tokens, greatest(0, {length} - think_open))) "
            f"FROM read_parquet('{path}') GROUP BY source").fetchall()  # fmt: skip


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a call, the better of two."""
    found = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(found)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, print the table and the JSON line, and return what the line holds."""
    rows = wanted_rows(arguments, __doc__ or "", small=100_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "anatomy.parquet"
        write_parquet(path, anatomy(rows))
        found = {"one_length": (timed(lambda: one_length(path)), timed(lambda: by_hand(path, (ONE,)))),
                 "sweep": (timed(lambda: twenty_lengths(path)), timed(lambda: by_hand(path, LENGTHS)))}  # fmt: skip
    table = Table(title=f"{rows:,} rows; DuckDB by hand in brackets")
    for name in ("step", "seconds", "CPU seconds", "CPU against DuckDB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    line: dict[str, float] = {"rows": rows}
    for step, (own, peer) in found.items():
        table.add_row(step, f"{own[0]:.2f} ({peer[0]:.2f})", f"{own[1]:.2f} ({peer[1]:.2f})", f"{own[1] / peer[1]:.2f}")
        line |= {f"seconds_{step}": round(own[0], 3), f"rows_per_cpu_second_{step}": round(rows / own[1], 1),
                 f"cpu_ratio_to_duckdb_{step}": round(own[1] / peer[1], 3)}  # fmt: skip
    line["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Console(width=100).print(table)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
