"""Strengths from paired comparisons: Bradley and Terry's model by Newton's method, many small tournaments at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RIDGE = 0.1  # precision of a normal prior on each strength: three wins of three give 90 %, one of one 79 %
LARGEST_STEP = 1.0
MAX_ITERATIONS = 500

Floats = NDArray[np.float64]


class Strengths(NamedTuple):
    """What `bradley_terry` found of G tournaments of K players. `strength_GK`: log-odds, of mean 0 in each tournament.
    `covariance_GKK`: of these (inverse of the observed information). `components_G`: in how many parts the players fall
    between which nobody played; strengths of different parts cannot be compared. `finite_G`: whether the strengths are
    finite without the ridge, that is, whether of any two sets of players each won against the other (Ford 1957)."""

    strength_GK: Floats
    covariance_GKK: Floats
    components_G: NDArray[np.int64]
    finite_G: NDArray[np.bool_]
    iterations: int

    def beats(self, first_N: ArrayLike, second_N: ArrayLike, groups_N: ArrayLike | None = None) -> Floats:
        """The probability that `first` is stronger than `second`, players of the tournament `groups` (by default of the
        first): the standard normal at their difference over its standard error; 0.5 where nothing is known."""
        from scipy.special import ndtr

        first, second = np.asarray(first_N, np.int64), np.asarray(second_N, np.int64)
        group = np.zeros(len(first), np.int64) if groups_N is None else np.asarray(groups_N, np.int64)
        of = self.covariance_GKK
        spread = of[group, first, first] + of[group, second, second] - 2 * of[group, first, second]
        gap = self.strength_GK[group, first] - self.strength_GK[group, second]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(spread > 0, gap / np.sqrt(spread), 0.0)
        return np.asarray(ndtr(ratio), np.float64)

    def interval(self, alpha: float = 0.05) -> Floats:
        """Wald's interval of every strength, shape (G, K, 2)."""
        from scipy.special import ndtri

        half = float(ndtri(1 - alpha / 2)) * np.sqrt(np.diagonal(self.covariance_GKK, axis1=1, axis2=2))
        return np.stack([self.strength_GK - half, self.strength_GK + half], axis=2)


def wins_matrix(first_M: ArrayLike, second_M: ArrayLike, score_M: ArrayLike, num_players: int,
                groups_M: ArrayLike | None = None, num_groups: int = 1, weights_M: ArrayLike | None = None
                ) -> Floats:  # fmt: skip
    """`wins_GKK[g, i, j]`: how often i won against j. `score_M` is 1 where the first of a match won, 0 where the second
    did, and 0.5 for a tie, which is half a win for each."""
    first, second = np.asarray(first_M, np.int64), np.asarray(second_M, np.int64)
    score = np.asarray(score_M, np.float64)
    weights = np.ones(len(first)) if weights_M is None else np.asarray(weights_M, np.float64)
    group = np.zeros(len(first), np.int64) if groups_M is None else np.asarray(groups_M, np.int64)
    size = num_groups * num_players**2
    forth = np.bincount((group * num_players + first) * num_players + second, weights * score, size)
    back = np.bincount((group * num_players + second) * num_players + first, weights * (1 - score), size)
    return np.asarray((forth + back).reshape(num_groups, num_players, num_players), np.float64)


def bradley_terry(wins_GKK: ArrayLike, *, ridge: float = RIDGE, tolerance: float = 1e-10) -> Strengths:
    """Strengths s with P(i wins against j) = sigmoid(s_i - s_j) (Bradley and Terry 1952) of G tournaments of K players,
    `wins_GKK` as of `wins_matrix` (G may be left out): the maximum of the log-likelihood - ridge / 2 * |s|^2, by
    Newton's method with bounded steps (the function is concave; Hunter 2004, doi 10.1214/aos/1079120141, for when the
    maximum without a ridge exists).

    Raises ValueError for a ridge of 0 where some tournament has no finite maximum; `finite_G` tells which."""
    wins = np.asarray(wins_GKK, np.float64)
    wins = wins[None] if wins.ndim == 2 else wins
    wins = wins * (1 - np.eye(wins.shape[1]))
    played = wins + wins.swapaxes(1, 2)
    finite = np.asarray(_reachable(wins > 0).all(axis=(1, 2)), bool)
    together = _reachable(played > 0).sum(axis=2)  # size of each player's part
    components = np.rint((1 / np.maximum(together, 1)).sum(axis=1)).astype(np.int64)
    if ridge <= 0 and not finite.all():
        raise ValueError("strengths are infinite where somebody never won or lost: give a ridge above 0")
    num_groups, size, _ = wins.shape
    strength = np.zeros((num_groups, size))
    gauge = np.full((size, size), 1 / max(size, 1))  # fixes the mean, along which the likelihood is flat
    information = np.zeros_like(wins)
    iterations = 0
    for _ in range(MAX_ITERATIONS):
        iterations += 1
        gradient, information = _derivatives(strength, wins, played, ridge)
        step = np.linalg.solve(information + gauge, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True, initial=0.0)
        step *= np.minimum(1.0, LARGEST_STEP / np.maximum(longest, 1e-300))
        strength = strength + step
        strength -= strength.mean(axis=1, keepdims=True)
        if float(np.abs(step).max(initial=0.0)) < tolerance:
            break
    information = _derivatives(strength, wins, played, ridge)[1]
    covariance = np.linalg.inv(information + gauge) - gauge
    return Strengths(strength, covariance, components, finite, iterations)


def _derivatives(strength: Floats, wins: Floats, played: Floats, ridge: float) -> tuple[Floats, Floats]:
    """(gradient, negative second derivatives)."""
    gap = strength[:, :, None] - strength[:, None, :]
    chance = 1 / (1 + np.exp(-gap))
    gradient = (wins - played * chance).sum(axis=2) - ridge * strength
    weight = played * chance * (1 - chance)
    size = strength.shape[1]
    diagonal = weight.sum(axis=2)[:, :, None] * np.eye(size)
    return gradient, diagonal - weight + ridge * np.eye(size)


def _reachable(edges_GKK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which players a path of edges leads to, each to itself too."""
    size = edges_GKK.shape[1]
    reach = edges_GKK | np.eye(size, dtype=bool)
    for _ in range(max(size - 1, 0).bit_length()):
        reach = np.matmul(reach, reach)
    return reach
