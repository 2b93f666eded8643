"""Bootstrap intervals of statistics that are functions of sums over items.

Every item gives a row of features (counts of its answers); a statistic is computed from their sum alone. So a resample
is a row of weights times the features, and leaving one item out is one subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.statistics import ALPHA, Interval

NUM_RESAMPLES = 999
SEED = 0
AT_ONCE = 4_000_000  # numbers held at a time
MOST_LEFT_OUT = 30_000_000  # numbers that leaving out every item in turn may take; beyond it intervals are percentiles
MOST_UNDEFINED = 0.05  # share of resamples without a value from which there is no interval

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (..., F) sums -> (..., S) statistics


def bootstrap(features_IF: Any, statistic: Statistic, alpha: float = ALPHA, resamples: int = NUM_RESAMPLES
              ) -> tuple[NDArray[np.float64], list[Interval | None], NDArray[np.bool_]]:  # fmt: skip
    """(S values, their intervals, which did not vary at all): items resampled whole with a fixed seed, and the
    bias-corrected and accelerated interval (Efron 1987), its acceleration from leaving out each item; plain percentiles
    where that would take too long. `features_IF` may be a sparse matrix of scipy.

    An interval is None with fewer than two items, and where more than 5 % of the resamples have no value."""
    total = np.asarray(features_IF.sum(axis=0), dtype=float).ravel()
    values = statistic(total)
    size = features_IF.shape[0]
    if size < 2:
        return values, [None] * len(values), np.zeros(len(values), dtype=bool)
    drawn_BS = np.concatenate([statistic(sums) for sums in _resampled(features_IF, resamples)])
    left_out = size * len(total) <= MOST_LEFT_OUT
    without_IS = np.concatenate([statistic(sums) for sums in _without(features_IF, total)]) if left_out else None
    intervals: list[Interval | None] = []
    still = np.zeros(len(values), dtype=bool)
    for place, value in enumerate(values):
        drawn = drawn_BS[:, place]
        known = drawn[np.isfinite(drawn)]
        if not math.isfinite(value) or len(known) < (1 - MOST_UNDEFINED) * len(drawn):
            intervals.append(None)
            continue
        still[place] = np.ptp(known) < 1e-12
        intervals.append(_interval(float(value), known, None if without_IS is None else without_IS[:, place], alpha))
    return values, intervals, still


def _resampled(features_IF: Any, resamples: int) -> Iterator[NDArray[np.float64]]:
    """Sums of features over items drawn with replacement, some resamples at a time."""
    size, width = features_IF.shape
    rng = np.random.default_rng(SEED)
    step = max(1, AT_ONCE // max(size, width))
    for begin in range(0, resamples, step):
        count = min(step, resamples - begin)
        drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(float)
        yield np.asarray(weights @ features_IF)


def _without(features_IF: Any, total_F: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The total less each item in turn."""
    step = max(1, AT_ONCE // len(total_F))
    for begin in range(0, features_IF.shape[0], step):
        part = features_IF[begin : begin + step]
        yield total_F - (part if isinstance(part, np.ndarray) else part.toarray())


def _interval(value: float, drawn_B: NDArray[np.float64], without_I: NDArray[np.float64] | None, alpha: float
              ) -> Interval:  # fmt: skip
    from scipy.special import ndtr, ndtri

    below = float((drawn_B < value).mean() + (drawn_B == value).mean() / 2)
    shift, speed = float(ndtri(below)), 0.0
    if without_I is not None and np.isfinite(without_I).all():
        gap = without_I.mean() - without_I
        spread = float((gap**2).sum()) ** 1.5
        speed = float((gap**3).sum()) / (6 * spread) if spread > 0 else 0.0
    ends = np.array([alpha / 2, 1 - alpha / 2])
    if math.isfinite(shift):
        moved = shift + ndtri(ends)
        ends = ndtr(shift + moved / (1 - speed * moved))
    low, high = np.quantile(drawn_B, ends)
    return Interval(float(low), float(high))
