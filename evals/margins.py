"""Margins of preference pairs along a chain: do checkpoints prefer the chosen answers more than before?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation import statistics
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.statistics import Interval
from evals.pairing import Scored
from evals.pairs import PART
from evals.scores import read_beside


@dataclass(frozen=True)
class Margin:
    """A benchmark of pairs: the mean margin (chosen - rejected, in the unit `scored_by`) of every checkpoint of the
    chain, and the paired difference of `b` to `a` over `n` pairs. Between log-likelihoods summed, that difference is
    the mean reward margin that DPO states, divided by its beta, where `a` is the reference (Rafailov et al. 2023, arXiv
    2305.18290). `message` says why there is no difference."""

    benchmark: str
    scored_by: str
    means: dict[str, float | None]
    a: str
    b: str
    n: int = 0
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    message: str = ""

    @property
    def line(self) -> str:
        """One sentence."""
        if self.difference is None or self.interval is None or self.p is None:
            return f"{self.benchmark}: margins of {self.b} and {self.a} are not compared: {self.message}"
        moved = "grew" if self.interval.low > 0 else "shrank" if self.interval.high < 0 else "did not change detectably"
        return (f"{self.benchmark}: the margin ({self.scored_by}) {moved} from {self.a} to {self.b}: "
                f"{self.difference:+.3g} [{self.interval.low:.3g}, {self.interval.high:.3g}] over {self.n:,} pairs, "
                f"sign flip p {self.p:.2g}")  # fmt: skip


def margins(catalog: Catalog, columns: list[Checkpoint], start: Checkpoint,
            tables: dict[str, list[Scored | None]]) -> list[Margin]:  # fmt: skip
    """One entry per benchmark of pairs that the last column and `start` are scored on; never a gate."""
    found = []
    for benchmark, entries in tables.items():
        read = [None if entry is None else _pairs(catalog, item, benchmark, entry[1])
                for item, entry in zip(columns, entries, strict=True)]  # fmt: skip
        first, last = entries[columns.index(start)], entries[-1]
        before, now = read[columns.index(start)], read[-1]
        if first is None or last is None or before is None or now is None:
            continue
        by = str(last[1]["scored_by"])
        means = {item.id: None if entry is None or pairs is None or entry[1].get("scored_by") != by else _mean(pairs)
                 for item, entry, pairs in zip(columns, entries, read, strict=True)}  # fmt: skip
        found.append(_compare(benchmark, by, means, (start.id, str(first[1]["scored_by"]), before),
                              (columns[-1].id, now)))  # fmt: skip
    return found


def _pairs(catalog: Catalog, checkpoint: Checkpoint, benchmark: str, conditions: dict[str, Any]) -> pa.Table | None:
    return read_beside(catalog, checkpoint, benchmark, conditions, PART)


def _mean(pairs: pa.Table) -> float:
    return float(np.mean(pairs["margin"].drop_null().to_numpy()))


def _compare(benchmark: str, by: str, means: dict[str, float | None], a: tuple[str, str, pa.Table],
             b: tuple[str, pa.Table]) -> Margin:  # fmt: skip
    if a[1] != by:
        return Margin(benchmark, by, means, a[0], b[0], message=f"{a[1]} and {by} have no common unit")
    before = {row["sample_id"]: row["margin"] for row in a[2].to_pylist() if row["margin"] is not None}
    rows = [row for row in b[1].to_pylist() if row["margin"] is not None and row["sample_id"] in before]
    if not rows:
        return Margin(benchmark, by, means, a[0], b[0], message="no pair was scored by both")
    d = np.array([row["margin"] - before[row["sample_id"]] for row in rows])
    clusters = [row["cluster"] for row in rows]
    return Margin(benchmark, by, means, a[0], b[0], len(d), float(d.mean()), statistics.bca_interval(d, clusters),
                  statistics.sign_flip_test(d, clusters))  # fmt: skip
