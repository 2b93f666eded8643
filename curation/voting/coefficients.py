"""Coefficients of agreement as functions of sums over items, for intervals by resampling: Cohen's and Fleiss' kappa,
Krippendorff's alpha; and Kendall's W.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from curation.voting.item_bootstrap import Statistic
from curation.voting.vote_arrays import Answers


def coincidence_statistics(size: int, scale_C: NDArray[np.float64]) -> Statistic:
    """The function from summed features to (pairwise, Fleiss' kappa, Krippendorff's alpha nominal, ordinal, interval).

    Fleiss' kappa (1971) with unequal numbers of answers is Gwet's form (Handbook of Inter-Rater Reliability, 2014,
    chapter 2): observed agreement is the mean over units with two answers and more of the share of agreeing pairs;
    chance agreement takes the mean over all units of each value's share in the unit. With equal numbers it is Fleiss'.

    Alpha (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability): 1 - (n - 1) * sum o_ck d_ck / sum n_c n_k
    d_ck over the values of units with two answers and more, each pair of a unit with m answers counting 1 / (m - 1);
    d is 1 for different values (nominal), (sum of n_g for g from c to k, less (n_c + n_k) / 2) squared (ordinal), and
    the squared difference (interval)."""
    differ = 1 - np.eye(size)
    interval = (scale_C[:, None] - scale_C[None, :]) ** 2

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        coincident = sums[..., : size * size].reshape(*sums.shape[:-1], size, size)
        alike, pairs, shares, shared = np.moveaxis(sums[..., size * size : size * size + 4], -1, 0)
        held, units = sums[..., size * size + 4 : -1], sums[..., -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = ((held / units[..., None]) ** 2).sum(axis=-1)
            kappa = np.where(1 - chance > 1e-12, (shares / shared - chance) / (1 - chance), np.nan)
            alphas = [_alpha(coincident, distance) for distance in
                      (differ, ordinal_distance(coincident.sum(axis=-1)), interval)]  # fmt: skip
            return np.stack([alike / pairs, kappa, *alphas], axis=-1)

    return statistic


def ordinal_distance(totals_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Krippendorff's squared ordinal distances (..., C, C) of values that were given `totals` times."""
    middle = np.cumsum(totals_C, axis=-1) - totals_C / 2
    return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2)


def _alpha(coincident: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    totals = coincident.sum(axis=-1)
    count = totals.sum(axis=-1)
    seen = (coincident * distance).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * distance).sum(axis=(-2, -1)) / (count - 1)
    return np.where(expected > 1e-9, 1 - seen / expected, np.nan)


def worst_costs(sums_F: NDArray[np.float64], size: int, scale_C: NDArray[np.float64]) -> list[float]:
    """What each coefficient loses where an item that agreed disagrees as far as it can, per share of such items."""
    coincident = sums_F[: size * size].reshape(size, size)
    totals = coincident.sum(axis=1)
    count = max(totals.sum(), 2.0)
    costs = [1.0]
    for distance in (1 - np.eye(size), 1 - np.eye(size), ordinal_distance(totals), (scale_C[:, None] - scale_C) ** 2):
        seen = distance[np.ix_(totals > 0, totals > 0)].max(initial=0.0)
        expected = float((totals[:, None] * totals * distance).sum()) / count**2
        costs.append(float(seen / expected) if expected > 0 else math.inf)
    return costs


def answered_together(answers: Answers) -> tuple[NDArray[np.int64], ...]:
    """Every pair of answers of two annotators to a unit: (unit, first annotator, second, their values); the first has
    the smaller number."""
    order = np.lexsort((answers.annotators_N, answers.units_N))
    units, who, values = answers.units_N[order], answers.annotators_N[order], answers.values_N[order]
    most = int(np.bincount(units).max(initial=0)) if len(units) else 0
    found = []
    for step in range(1, most):
        at = np.flatnonzero(units[step:] == units[:-step])
        found.append(np.stack([units[at], who[at], who[at + step], values[at], values[at + step]]))
    return tuple(np.concatenate(found, axis=1) if found else np.zeros((5, 0), dtype=np.int64))


def cohen_statistic(num_pairs: int, scale_C: NDArray[np.float64], power: float) -> Statistic:
    """From summed confusion matrices of pairs of annotators (P * C * C) to (mean kappa, P kappas): 1 - observed /
    expected disagreement (Cohen 1960), where disagreements weigh |difference| ** power (1968: 1 linear, 2 quadratic;
    0 is the unweighted kappa). The mean weighs a pair by its units."""
    size = len(scale_C)
    apart = np.abs(scale_C[:, None] - scale_C[None, :])
    weight = (apart > 0).astype(float) if power == 0 else apart**power

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        confusion = sums.reshape(*sums.shape[:-1], num_pairs, size, size)
        rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
        count = rows.sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = (rows @ weight * columns).sum(axis=-1) / count
            kappa = np.where(expected > 1e-12, 1 - (confusion * weight).sum(axis=(-2, -1)) / expected, np.nan)
            known = np.isfinite(kappa)
            mean = np.where(known, kappa * count, 0).sum(axis=-1) / np.where(known, count, 0).sum(axis=-1)
        return np.concatenate([mean[..., None], kappa], axis=-1)

    return statistic


def kendalls_w(answers: Answers) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(items, Kendall's coefficient of concordance of each, 0..1): W = 12 S / (m^2 (k^3 - k) - m sum T) over the m
    annotators who ranked all k candidates, ties at their mean rank and corrected for (Kendall and Gibbons 1990, chapter
    6). Items of one candidate, one complete ranking, or ties alone are left out."""
    num_items = int(answers.items_U.max(initial=-1)) + 1
    items_N = answers.items_U[answers.units_N]
    size_I = np.bincount(answers.items_U[np.unique(answers.units_N)], minlength=num_items)
    rankings, of, counts = np.unique(np.stack([items_N, answers.annotators_N]), axis=1, return_inverse=True,
                                     return_counts=True)  # fmt: skip
    of = of.ravel()
    whole_R = counts == size_I[rankings[0]]
    order = np.lexsort((answers.values_N, of))
    begins = np.cumsum(counts) - counts
    _, tied, times = np.unique(of[order] * len(answers.values) + answers.values_N[order], return_inverse=True,
                               return_counts=True)  # fmt: skip
    at = np.arange(len(order)) - begins[of[order]]
    rank_N = np.empty(len(order))
    rank_N[order] = (np.bincount(tied, weights=at) / times)[tied] + 1
    ties_R = np.bincount(of[order], weights=(times[tied] ** 2 - 1).astype(float), minlength=len(counts))
    kept = whole_R[of]
    sums_U = np.bincount(answers.units_N[kept], weights=rank_N[kept], minlength=len(answers.items_U))
    rankers = np.bincount(rankings[0][whole_R], minlength=num_items).astype(float)
    ranked = np.unique(answers.units_N[kept])
    middle = rankers * (size_I + 1) / 2
    spread = np.bincount(answers.items_U[ranked], weights=(sums_U[ranked] - middle[answers.items_U[ranked]]) ** 2,
                         minlength=num_items)  # fmt: skip
    ties = np.bincount(rankings[0][whole_R], weights=ties_R[whole_R], minlength=num_items)
    room = rankers**2 * (size_I.astype(float) ** 3 - size_I) - rankers * ties
    known = np.flatnonzero((rankers >= 2) & (size_I >= 2) & (room > 1e-9))
    return known, 12 * spread[known] / room[known]
