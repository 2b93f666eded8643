"""One benchmark, two checkpoints: the paired difference, its interval, and the verdict.

The rule. d is the paired difference of the scores, m the benchmark's margin, [lo, hi] the interval of d at the level
that Holm's procedure gives it inside the family of a checkpoint's gates. FAIL: hi < -m. PASS: lo > -m. UNDECIDED
otherwise. `improved` and `regressed` are a second label: the interval excludes 0 and the adjusted p-value is below
5 %. A drop can be real and still pass its margin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curation import statistics
from curation.errors import Problem
from curation.statistics import ALPHA, Interval
from evals.pairing import NotComparable, Pair, pair
from evals.suites import SuiteBenchmark

MAX_TRUNCATED_SHARE = 0.01
FAIL, PASS, UNDECIDED, NOT_GATED, UNREADABLE = "FAIL", "PASS", "UNDECIDED", "not gated", "NOT COMPARABLE"
IMPROVED, REGRESSED, UNCHANGED = "improved", "regressed", "no detected change"


@dataclass
class Comparison:
    """Checkpoint `b` against checkpoint `a` on one benchmark. Scores and differences are shares of 1; `against` says
    why `a` was chosen (start, given, best, base) and `num_candidates` of how many earlier ones the best was picked.
    `interval` is the plain 95 % one, `adjusted` (at 1 - `level`) the one that decides. `lost` counts the items that b
    answers worse by what became of them."""

    benchmark: str
    a: str
    b: str
    against: str
    gate: bool
    margin: float
    num_candidates: int = 1
    n: int = 0
    num_clusters: int = 0
    num_unshared: int = 0
    num_errors: int = 0
    score_a: float | None = None
    score_b: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    adjusted: Interval | None = None
    level: float = ALPHA
    test: str = ""
    p: float | None = None
    p_adjusted: float | None = None
    losses: int = 0
    gains: int = 0
    smallest_detectable: float | None = None
    lost: dict[str, int] = field(default_factory=dict)
    verdict: str = NOT_GATED
    direction: str = UNCHANGED
    message: str = ""


class Judged(NamedTuple):
    """A comparison with the items it was made of; None where the two may not be compared."""

    comparison: Comparison
    items: Pair | None


def compare(benchmark: SuiteBenchmark, table_a: pa.Table, table_b: pa.Table, a: str, b: str, against: str,
            num_candidates: int = 1) -> Judged:  # fmt: skip
    """One comparison before adjustment. A comparison with the first base is reported and never gates."""
    made = Comparison(benchmark.name, a, b, against, benchmark.gate and against != "base", benchmark.margin,
                      num_candidates)  # fmt: skip
    try:
        items = pair(table_a, table_b)
    except NotComparable as error:
        made.verdict, made.message = UNREADABLE, str(error)
        return Judged(made, None)
    mean = statistics.clustered_mean(items.d, items.clusters)
    made.n, made.num_clusters, made.difference = mean.n, mean.num_clusters, mean.mean
    made.num_unshared, made.num_errors = items.num_unshared, items.num_errors
    made.score_a, made.score_b = float(items.a.mean()), float(items.b.mean())
    made.losses, made.gains, made.lost = int((items.d < 0).sum()), int((items.d > 0).sum()), items.lost()
    made.smallest_detectable = statistics.smallest_detectable(standard_error(items))
    if items.binary and not items.clustered:
        made.test, made.p = "exact McNemar", statistics.mcnemar_exact(made.losses, made.gains)
    else:
        made.test, made.p = "sign flip", statistics.sign_flip_test(items.d, items.clusters)
    made.interval = interval_of(items, items.d)
    return Judged(made, items)


def standard_error(items: Pair) -> float:
    """The clustered standard error of d, at least what the rule of three leaves open where no item differs."""
    mean = statistics.clustered_mean(items.d, items.clusters)
    return max(mean.se if mean.num_clusters > 1 else 1.0, statistics.rule_of_three(mean.num_clusters) / 2
               if mean.se == 0 else 0.0)  # fmt: skip


def interval_of(items: Pair, d: np.ndarray, level: float = ALPHA) -> Interval:
    """The interval of the mean of d: Bonett-Price for independent right-or-wrong items, Student's t over clusters for
    clustered ones, the BCa bootstrap for graded or repeated ones."""
    if items.binary and not items.clustered:
        return statistics.bonett_price_interval(int((d < 0).sum()), int((d > 0).sum()), len(d), level)
    mean = statistics.clustered_mean(d, items.clusters)
    if not items.binary or mean.se == 0:
        return statistics.bca_interval(d, items.clusters, level)
    return statistics.t_interval(mean, level)


def verdict_of(interval: Interval, margin: float) -> str:
    """FAIL, PASS or UNDECIDED for a margin (a loss of score, 0..1)."""
    return FAIL if interval.high < -margin else PASS if interval.low > -margin else UNDECIDED


def decide(judged: list[Judged]) -> None:
    """Set level, adjusted interval and p-value, verdict and direction of the comparisons of one checkpoint. The gates
    form one family for Holm's procedure; a best of k earlier checkpoints costs a factor k besides, because it was
    picked for its score. What does not gate keeps the plain 95 % interval."""
    readable = [(made, items) for made, items in judged if items is not None]
    gates = [made for made, _ in readable if made.gate]
    adjusted, levels = statistics.holm([min(1.0, (made.p or 0.0) * made.num_candidates) for made in gates])
    for made, p, level in zip(gates, adjusted, levels, strict=True):
        made.p_adjusted, made.level = float(p), float(level) / made.num_candidates
    for made, items in readable:
        interval = interval_of(items, items.d, made.level)
        made.adjusted = interval
        significant = (made.p_adjusted if made.p_adjusted is not None else made.p or 0.0) < ALPHA
        if significant and interval.excludes_zero():
            made.direction = IMPROVED if interval.low > 0 else REGRESSED
        if made.gate:
            made.verdict = verdict_of(interval, made.margin)
            made.message = needs(made, items) if made.verdict == UNDECIDED else ""


def needs(made: Comparison, items: Pair) -> str:
    """What would decide an undecided gate: samples per item where they are repeated, and items."""
    error, n = standard_error(items), len(items.d)
    wanted = statistics.items_needed(error, n, made.margin) if made.margin > 0 else None
    texts = []
    if items.repeats > 1 and made.margin > 0:
        drawn = items.repeats / (items.repeats - 1) * (items.a * (1 - items.a) + items.b * (1 - items.b))
        within = float(drawn.mean())
        between = max(0.0, float(items.d.var(ddof=1)) - within / items.repeats)
        samples = statistics.samples_needed(made.margin, n, between, within)
        texts += [f"K = {samples} samples per item"] if samples is not None else []
    if wanted is not None and wanted > n:
        texts.append(f"n = {wanted:,} items (there are {n:,})")
    loss = f"a loss of {100 * made.margin:.3g} points"
    return f"needs {' or '.join(texts)} to find {loss}" if texts else f"the difference lies too close to {loss}"


def truncation_decides(made: Comparison, items: Pair, num_truncated: int, num_samples: int) -> Problem | None:
    """An instrument problem where more than one in a hundred answers of b were cut and the verdict would be another
    one, had they been right: the budget decides then, not the model."""
    if not made.gate or num_truncated <= MAX_TRUNCATED_SHARE * num_samples:
        return None
    other = verdict_of(interval_of(items, items.b_without_cuts - items.a, made.level), made.margin)
    if other == made.verdict:
        return None
    return Problem(
        f"{made.benchmark}: {num_truncated} of {num_samples} answers of {made.b} were cut by the budget; against "
        f"{made.a} it is {made.verdict} with them wrong and {other} with them right",
        "raise max_new_tokens in the benchmark, or look for loops in the probes, and evaluate again",
    )
