"""What a series does: a level that lasts, a spike against what came before, a slope with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from curation.statistics import ALPHA, Interval
from trainers.monitors.readings import Series

MAD = 1.4826  # of a normal law: standard deviation over median absolute deviation


def lasting(series: Series, holds: NDArray[np.bool_], steps: int, readings: int = 3) -> Iterator[int]:
    """Indices at which a condition has held without a break for `steps` steps and as many as `readings` readings: one
    for each stretch, since it must break before it counts again."""
    start, told = -1, False
    for index, here in enumerate(holds.tolist()):
        if not here:
            start, told = -1, False
            continue
        start = index if start < 0 else start
        if not told and series.steps[index] - series.steps[start] >= steps - 1 and index - start + 1 >= readings:
            told = True
            yield index


def spikes(
    values: NDArray[np.float64], deviations: float, window: int, readings: int, share: float = 0.0, least: float = 1e-12
) -> Iterator[int]:
    """Indices of values that lie more than `deviations` robust standard deviations above the median of the (at most)
    `window` values before them, of which there must be `readings`. The deviation is MAD x 1.4826 (Leys et al. 2013, J.
    Exp. Soc. Psychol. 49:764), not taken below `share` x |median| nor below `least`. Neighbouring spikes count once;
    they are no part of the windows after them, unless they last for a whole window."""
    calm: list[float] = []
    run = 0
    for index, value in enumerate(values.tolist()):
        if len(calm) >= readings:
            before = np.array(calm[-window:])
            middle = float(np.median(before))
            spread = max(MAD * float(np.median(np.abs(before - middle))), share * abs(middle), least)
            if value > middle + deviations * spread:
                if run == 0:
                    yield index
                run += 1
                if run >= window:
                    calm, run = [], 0
                continue
        run = 0
        calm.append(value)


def rise(series: Series, alpha: float = ALPHA) -> tuple[float, Interval]:
    """How far a straight line through N readings climbs from the first to the last step, with the interval of its
    slope times that distance (least squares, Student's t with N - 2 degrees of freedom); infinite with fewer than three
    readings or steps."""
    x, y = series.steps.astype(float), series.values
    if len(x) < 3 or x[-1] == x[0]:
        return 0.0, Interval(-math.inf, math.inf)
    span = float(x[-1] - x[0])
    centred = (x - x.mean()) / span
    spread = float(np.sum(centred**2))
    slope = float(np.sum(centred * (y - y.mean())) / spread)
    left = y - y.mean() - slope * centred
    error = math.sqrt(float(np.sum(left**2)) / (len(x) - 2) / spread)
    reach = _quantile(1 - alpha / 2, len(x) - 2) * error
    return slope, Interval(slope - reach, slope + reach)


@lru_cache(100_000)
def _quantile(share: float, freedom: int) -> float:
    """Of Student's t."""
    from scipy.stats import t

    return float(t.ppf(share, freedom))


def mean_interval(values: NDArray[np.float64], alpha: float = ALPHA) -> tuple[float, Interval]:
    """Mean of N readings and Student's interval; infinite with fewer than two."""
    if len(values) < 2:
        return float(values.mean()) if len(values) else math.nan, Interval(-math.inf, math.inf)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = _quantile(1 - alpha / 2, len(values) - 1) * error
    return mean, Interval(mean - reach, mean + reach)


def early(series: Series, steps: int, readings: int = 3) -> tuple[float, int] | None:
    """Median of the first `steps` steps' readings (and of at least `readings`), with the index behind them; None where
    there are not yet as many."""
    if not series:
        return None
    end = max(int(np.searchsorted(series.steps, series.steps[0] + steps)), readings)
    if len(series.steps) <= end:
        return None
    return float(np.median(series.values[:end])), end


def averaged(series: Series, steps: NDArray[np.int64]) -> Series:
    """Means of a series between given steps: at each the readings behind the one before it; steps without any are left
    out."""
    edges = np.concatenate(([0], np.searchsorted(series.steps, steps, side="right")))
    ends = zip(steps.tolist(), edges[:-1], edges[1:], strict=True)
    found = [(step, float(series.values[first:last].mean())) for step, first, last in ends if last > first]
    return Series(np.array([step for step, _ in found], np.int64), np.array([value for _, value in found]))


def calmed(series: Series, readings: int = 5) -> Series:
    """Each value replaced by the median of the last `readings`, itself included: one reading alone neither makes nor
    breaks a stretch."""
    made = [np.median(series.values[max(0, end - readings) : end]) for end in range(1, len(series.steps) + 1)]
    return Series(series.steps, np.array(made))


def smoothed(series: Series, steps: int) -> NDArray[np.float64]:
    """At every reading the median of the readings of the last `steps` steps, itself included (at least three, where
    there are as many)."""
    first = np.searchsorted(series.steps, series.steps - steps, side="right")
    return np.array([np.median(series.values[min(start, max(0, index - 2)) : index + 1])
                     for index, start in enumerate(first)])  # fmt: skip
