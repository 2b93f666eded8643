"""Every estimator of the project: paired differences, intervals, tests, power. Pure functions over numpy arrays.

Differences are `d = score of B - score of A` in shares (-1..1); a positive difference is a gain. A cluster is a group
of items that are not independent (variants of one question, questions about one passage).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
POWER = 0.80
NUM_RESAMPLES = 9_999


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Mean(NamedTuple):
    """A mean with its standard error, the number of values and of independent clusters."""

    mean: float
    se: float
    n: int
    num_clusters: int


def clustered_mean(values_N: ArrayLike, clusters_N: ArrayLike | None = None) -> Mean:
    """Mean of N values and its cluster-robust standard error: sqrt(G/(G-1) * sum_g (sum_{i in g} (x_i - mean))^2) / n
    (Miller 2024, arXiv 2411.00640, appendix A; the factor G/(G-1) as in inspect_ai). With clusters of one this is
    sd(ddof=1)/sqrt(n). The error is NaN with fewer than two clusters. Raises ValueError without values."""
    values = np.asarray(values_N, dtype=float)
    if not len(values):
        raise ValueError("there are no values")
    mean = float(values.mean())
    sums = _sums(values - mean, clusters_N)[0]
    groups = len(sums)
    if groups < 2:
        return Mean(mean, math.nan, len(values), groups)
    se = math.sqrt(groups / (groups - 1) * float(np.sum(sums**2))) / len(values)
    return Mean(mean, se, len(values), groups)


def _sums(values_N: NDArray[np.float64], clusters_N: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum and size of every cluster (shape G)."""
    if clusters_N is None:
        return values_N, np.ones(len(values_N), dtype=np.int64)
    _, place, sizes = np.unique(np.asarray(clusters_N), return_inverse=True, return_counts=True)
    sums: NDArray[np.float64] = np.bincount(place.ravel(), weights=values_N).astype(np.float64)
    return sums, sizes.astype(np.int64)


def t_interval(mean: Mean, alpha: float = ALPHA) -> Interval:
    """mean ± t(1 - alpha/2; G-1) * SE; infinite with fewer than two clusters."""
    from scipy import stats

    if mean.num_clusters < 2:
        return Interval(-math.inf, math.inf)
    half = float(stats.t.ppf(1 - alpha / 2, mean.num_clusters - 1)) * mean.se
    return Interval(mean.mean - half, mean.mean + half)


def rule_of_three(num_clusters: int, alpha: float = ALPHA) -> float:
    """The largest share of clusters that could differ though none of G did: 1 - (alpha/2)^(1/G) (Clopper-Pearson at
    zero). It stands in for an interval of width zero, which no sample proves."""
    return float(1 - (alpha / 2) ** (1 / num_clusters))


def bonett_price_interval(losses: int, gains: int, n: int, alpha: float = ALPHA) -> Interval:
    """Interval of a paired difference of two proportions, (gains - losses)/n: adjusted Wald with one added to both
    discordant counts and two to n (Bonett and Price 2012, doi 10.1177/0962280211415467). Keeps its width where no item
    differs, unlike sd(d)/sqrt(n). Limits lie in -1..1."""
    from scipy import stats

    lost, won = (losses + 1) / (n + 2), (gains + 1) / (n + 2)
    centre = won - lost
    half = float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt((lost + won - centre**2) / (n + 2))
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def bca_interval(values_N: ArrayLike, clusters_N: ArrayLike | None = None, alpha: float = ALPHA) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a mean, clusters resampled whole (Efron 1987; 9,999
    resamples, fixed seed). Where all cluster means are equal it is mean ± rule_of_three."""
    from scipy import stats

    values = np.asarray(values_N, dtype=float)
    sums, sizes = _sums(values, clusters_N)
    mean = float(values.mean())
    if len(sums) < 2:
        return Interval(-math.inf, math.inf)
    if np.ptp(sums / sizes) == 0:
        bound = rule_of_three(len(sums), alpha)
        return Interval(mean - bound, mean + bound)

    def ratio(sum_of: NDArray[np.float64], size_of: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.sum(sum_of, axis=axis) / np.sum(size_of, axis=axis))

    found = stats.bootstrap((sums, sizes.astype(float)), ratio, paired=True, vectorized=True, method="BCa",
                            confidence_level=1 - alpha, n_resamples=NUM_RESAMPLES, batch=1_000,
                            rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    if math.isfinite(found.low) and math.isfinite(found.high):
        return Interval(float(found.low), float(found.high))
    return t_interval(clustered_mean(values, clusters_N), alpha)


def mcnemar_exact(losses: int, gains: int) -> float:
    """Two-sided exact p-value that losses and gains are equally likely: min(1, 2 * BinomCDF(min; losses + gains, 1/2));
    1 where nothing differs."""
    from scipy import stats

    if losses + gains == 0:
        return 1.0
    return float(stats.binomtest(gains, losses + gains).pvalue)


def sign_flip_test(values_N: ArrayLike, clusters_N: ArrayLike | None = None) -> float:
    """Two-sided p-value that the mean of d is 0: the signs of whole clusters are flipped (all ways up to 13 clusters,
    9,999 random ones beyond; fixed seed)."""
    from scipy import stats

    sums, _ = _sums(np.asarray(values_N, dtype=float), clusters_N)
    if not np.any(sums):
        return 1.0

    def total(sum_of: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.sum(sum_of, axis=axis))

    found = stats.permutation_test((sums,), total, permutation_type="samples", vectorized=True, batch=1_000,
                                   n_resamples=NUM_RESAMPLES, rng=np.random.default_rng(0))  # fmt: skip
    return float(found.pvalue)


def holm(p_values_N: ArrayLike, alpha: float = ALPHA) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(adjusted p-values, the level of each one's interval), both shape N: Holm's step-down procedure. The k-th
    smallest of N p-values is tested at alpha / (N - k + 1), and its interval has that level; once a hypothesis is
    kept, those after it keep its level."""
    p_values = np.asarray(p_values_N, dtype=float)
    if not len(p_values):
        return p_values, p_values
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))  # statsmodels' multipletests collects garbage at every call, 0.2 s
    adjusted[order] = np.minimum(1, np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order]))
    steps = alpha / (len(p_values) - np.arange(len(p_values)))
    kept = np.flatnonzero(p_values[order] > steps)
    if len(kept):
        steps[kept[0] :] = steps[kept[0]]
    levels = np.empty(len(p_values))
    levels[order] = steps
    return adjusted, levels


def wilson_interval(count: int, n: int, alpha: float = ALPHA) -> Interval:
    """Wilson's score interval of a share; (0, 1) without samples."""
    from statsmodels.stats.proportion import proportion_confint

    if not n:
        return Interval(0.0, 1.0)
    low, high = proportion_confint(count, n, alpha=alpha, method="wilson")
    return Interval(float(low), float(high))


def _z(alpha: float, power: float) -> float:
    """z(1 - alpha/2) + z(power): 2.80 at 5 % and 80 %."""
    from scipy import stats

    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))


def smallest_detectable(se: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The true difference that a two-sided test at `alpha` finds with `power`: 2.80 * SE (Miller 2024)."""
    return _z(alpha, power) * se


def smallest_detectable_binary(discordant_share: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The same for n right-or-wrong items of which `discordant_share` differ: 2.80 * sqrt(psi / n)."""
    return _z(alpha, power) * math.sqrt(discordant_share / n)


def items_needed(se: float, n: int, difference: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """Items that find `difference` (> 0) with `power`, given the standard error seen on n items. Raises ValueError for
    a difference of 0 or less."""
    if difference <= 0:
        raise ValueError("the difference to find must be above 0")
    return math.ceil(n * (_z(alpha, power) * se / difference) ** 2)


def samples_needed(difference: float, n: int, between: float, within: float, alpha: float = ALPHA,
                   power: float = POWER) -> int | None:  # fmt: skip
    """Samples per item, K, that find `difference` on n items: Var = (between + within / K) / n with the variance of the
    items' true differences and the summed sampling variances of one sample (Miller 2024); None where no number of
    samples does."""
    room = n * (difference / _z(alpha, power)) ** 2 - between
    return None if room <= 0 else max(1, math.ceil(within / room))


def unpaired_interval(share_a: float, share_b: float, n_a: int, n_b: int, alpha: float = ALPHA) -> Interval:
    """Wald interval of the difference of two shares known only as aggregates; the widest case, for published tables."""
    from scipy import stats

    se = math.sqrt(share_a * (1 - share_a) / n_a + share_b * (1 - share_b) / n_b)
    half = float(stats.norm.ppf(1 - alpha / 2)) * se
    return Interval(share_b - share_a - half, share_b - share_a + half)


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased chance that one of k samples is right: 1 - C(n-c, k) / C(n, k) (Chen 2021, arXiv 2107.03374). Raises
    ValueError unless 0 <= c <= n and 1 <= k <= n."""
    if not (0 <= num_right <= num_samples and 1 <= k <= num_samples):
        raise ValueError("needs 0 <= right <= samples and 1 <= k <= samples")
    if num_samples - num_right < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(num_samples - num_right + 1, num_samples + 1)))


def exact_interval(count: int, n: int, alpha: float = ALPHA) -> Interval:
    """Clopper-Pearson's interval of a share, which covers it at least as often as it says; (0, 1) without samples. Of
    the discordant pairs alone it belongs to McNemar's exact test."""
    from statsmodels.stats.proportion import proportion_confint

    if not n:
        return Interval(0.0, 1.0)
    low, high = proportion_confint(count, n, alpha=alpha, method="beta")
    return Interval(float(low), float(high))


def share_interval(values_N: ArrayLike, clusters_N: ArrayLike | None = None, alpha: float = ALPHA
                   ) -> tuple[Interval, str]:  # fmt: skip
    """(interval of the share of ones among N zeros and ones, how it was made). `wilson` where every cluster has one
    value; else `cluster-robust`: Wilson's score interval with the sample size that gives the cluster-robust standard
    error (effective size n / design effect, Kish 1965; no larger than n); `wilson` too where the robust error is zero
    or unknown."""
    from statsmodels.stats.proportion import proportion_confint

    values = np.asarray(values_N, dtype=float)
    if len(values):
        mean = clustered_mean(values, clusters_N)
        spread = mean.mean * (1 - mean.mean)
        if mean.num_clusters < mean.n and math.isfinite(mean.se) and mean.se > 0 and spread > 0:
            size = min(float(mean.n), spread / mean.se**2)
            low, high = proportion_confint(mean.mean * size, size, alpha=alpha, method="wilson")
            return Interval(float(low), float(high)), "cluster-robust"
    return wilson_interval(int(values.sum()), len(values), alpha), "wilson"


class PairedLogit(NamedTuple):
    """Coefficients of `paired_logit` by feature: (log-odds per standard deviation, interval). `separating` features
    were left out: they never, or always, favour the chosen side."""

    coefficients: dict[str, tuple[float, Interval]]
    separating: dict[str, str]
    num_pairs: int
    problem: str | None


def paired_logit(differences_NF: ArrayLike, names: Sequence[str], clusters_N: ArrayLike | None = None,
                 alpha: float = ALPHA) -> PairedLogit:  # fmt: skip
    """Logistic regression of which of two sides is chosen on their differences (chosen minus rejected), without an
    intercept: P(chosen) = sigmoid(b * d / s), with s the root mean square of a feature's differences, so that b is the
    log-odds that one such difference adds (Bradley-Terry with features; McFadden 1974). Which side stands first is not
    told, so signs alternate, which leaves the likelihood as it is. Intervals are Wald's, from the cluster-robust
    covariance where clusters repeat.

    Features without a difference are left out; so are those whose differences all have one sign, whose coefficient is
    infinite (`separating`: + or -). `problem` says why there are no coefficients: too few pairs (fewer than 10 a
    feature), or features that together separate the sides."""
    import warnings

    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationError, PerfectSeparationWarning

    values = np.asarray(differences_NF, dtype=float).reshape(-1, len(names))
    up, down = np.asarray((values > 0).any(axis=0)), np.asarray((values < 0).any(axis=0))
    separating = {name: "+" if up[place] else "-" for place, name in enumerate(names) if up[place] != down[place]}
    kept = [place for place in range(len(names)) if up[place] and down[place]]
    size = len(values)
    if not kept or size < 10 * len(kept):
        return PairedLogit({}, separating, size, f"{size} pairs are too few for {len(kept)} features" if kept
                           else "no feature differs both ways")  # fmt: skip
    scaled = values[:, kept] / np.sqrt((values[:, kept] ** 2).mean(axis=0))
    signs = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)
    clusters = None if clusters_N is None else np.unique(np.asarray(clusters_N), return_inverse=True)[1].ravel()
    repeated = clusters is not None and 1 < clusters.max() + 1 < size
    how = {"cov_type": "cluster", "cov_kwds": {"groups": clusters}} if repeated else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fit = sm.Logit(signs > 0, scaled * signs[:, None]).fit(disp=0, maxiter=100, **how)
        except (PerfectSeparationError, PerfectSeparationWarning, ConvergenceWarning, np.linalg.LinAlgError):
            return PairedLogit({}, separating, size, "the features together separate chosen from rejected, or repeat "
                               "each other")  # fmt: skip
    limits = fit.conf_int(alpha)
    if not np.isfinite(limits).all() or np.abs(fit.params).max() > 20:
        return PairedLogit({}, separating, size, "the features together separate chosen from rejected, or repeat each "
                           "other")  # fmt: skip
    found = {names[place]: (float(value), Interval(float(low), float(high)))
             for place, value, (low, high) in zip(kept, fit.params, limits, strict=True)}  # fmt: skip
    return PairedLogit(found, separating, size, None)
