"""What the others said of each vote's item, and how far an annotator agrees with them beyond chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curation.statistics import Interval
from curation.voting.vote_arrays import VoteArrays

ROUNDS_OF_WEIGHTS = 5
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Others:
    """Of every vote, what the other people said of the same item; NaN (-1) where nobody else did. Judges are no others.

    consensus_V: the label that most of them gave, every vote alike; -1 where two labels tie. weight_VL: the weight of
    those who gave each label; share_VL: its share. decided_VK: the share of each candidate among their votes for a
    candidate. decided_a_V: that of the candidate that stood in slot A for this vote; slot_a_V, slot_b_V: the share
    among all votes of the candidate in slot A (B, of two). Weights are how far people agree with others (`weights_A`),
    so that one who answers at random, or the wrong way round, spoils nobody's figures."""

    consensus_V: NDArray[np.int64]
    weight_VL: NDArray[np.float64]
    share_VL: NDArray[np.float64]
    decided_VK: NDArray[np.float64]
    decided_a_V: NDArray[np.float64]
    slot_a_V: NDArray[np.float64]
    slot_b_V: NDArray[np.float64]
    weights_A: NDArray[np.float64]
    typical: float  # the median of people's kappas; NaN without any


class Match(NamedTuple):
    """Agreement with the others on `num` votes: `seen` is the mean share of the others who said the same, `chance` its
    expectation were the annotator's answers dealt to the same items at random, `kappa` = (seen - chance) / (1 - chance)
    with an interval of 95 % over items. `z` is seen - chance in standard deviations of that dealing. None where it
    cannot be told."""

    num: int
    seen: float | None
    chance: float | None
    kappa: float | None
    interval: Interval | None
    z: float | None
    error: float | None  # standard error of kappa


def others(votes: VoteArrays) -> Others:
    """The others' votes, people weighted by their kappa (.01 to 1), found in a few rounds from equal weights."""
    weights = np.ones(len(votes.annotators))
    people = np.flatnonzero(~votes.judge_A)
    beside = _beside(votes, weights, math.nan)
    for _ in range(ROUNDS_OF_WEIGHTS):
        found = [match(votes, beside, _counted(votes) & (votes.annotators_V == number)).kappa for number in people]
        kappas = np.array([math.nan if kappa is None else kappa for kappa in found])
        weights[people] = np.clip(np.nan_to_num(kappas), LEAST_WEIGHT, 1)
        typical = float(np.nanmedian(kappas)) if np.isfinite(kappas).any() else math.nan
        beside = _beside(votes, weights, typical)
    return beside


def _counted(votes: VoteArrays) -> NDArray[np.bool_]:
    return (votes.labels_V >= 0) & votes.counted_I[votes.items_V]


def _beside(votes: VoteArrays, weights_A: NDArray[np.float64], typical: float) -> Others:
    size, num_labels = len(votes.item_ids), len(votes.label_names)
    voting = _counted(votes) & ~votes.judge_A[votes.annotators_V]
    labels = np.maximum(votes.labels_V, 0)
    cell_V = votes.items_V * num_labels + labels

    def beside(weights_V: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the others by label; a retest or a judge's vote takes nothing away."""
        given = np.bincount(cell_V[voting], weights=weights_V[voting], minlength=size * num_labels)
        rest = np.asarray(given, dtype=float).reshape(size, num_labels)[votes.items_V]
        rest[np.flatnonzero(voting), labels[voting]] -= weights_V[voting]
        rest[np.abs(rest) < 1e-9] = 0.0
        return rest

    plain, weighted = beside(np.ones(len(labels))), beside(weights_A[votes.annotators_V])
    most = plain.max(axis=1, keepdims=True, initial=0)
    clear = ((plain == most).sum(axis=1) == 1) & (most[:, 0] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_VL = weighted / weighted.sum(axis=1, keepdims=True)
        candidates = weighted[:, : votes.tie]
        decided_VK = candidates / candidates.sum(axis=1, keepdims=True)
    two, first = votes.candidates_I[votes.items_V] == 2, np.maximum(votes.first_V, 0)
    known, at = votes.first_V >= 0, np.arange(len(labels))
    slot_b = np.where(known & two, share_VL[at, 1 - np.minimum(first, 1)], np.nan)
    return Others(np.where(clear, np.argmax(plain, axis=1), -1), weighted, share_VL, decided_VK,
                  np.where(known, decided_VK[at, first], np.nan), np.where(known, share_VL[at, first], np.nan), slot_b,
                  weights_A, typical)  # fmt: skip


def match(votes: VoteArrays, beside: Others, mine_V: NDArray[np.bool_]) -> Match:
    """How the votes `mine_V` of one annotator match the others', each of these by its weight. Chance and its standard
    deviation are exact over all ways to deal the same answers to the same items (Hoeffding 1951, A combinatorial
    central limit theorem)."""
    used = np.flatnonzero(mine_V & (beside.weight_VL.sum(axis=1) > 0))
    labels, weight_NL = votes.labels_V[used], beside.weight_VL[used]
    num = len(used)
    if num < 2:
        return Match(num, None, None, None, None, None, None)
    weight_N = weight_NL.sum(axis=1)
    total = float(weight_N.sum())
    seen_N = weight_NL[np.arange(num), labels]
    counts_L = np.bincount(labels, minlength=weight_NL.shape[1])
    by_label = weight_NL.mean(axis=0)
    by_item = weight_NL @ counts_L / num
    seen, chance = float(seen_N.sum()) / total, float(counts_L @ by_label) / total
    centred = weight_NL - by_item[:, None] - by_label + float(counts_L @ by_label) / num
    spread = math.sqrt(float((centred**2 @ counts_L).sum()) / (num - 1)) / total
    room = 1 - chance
    if room < 1e-9 or spread < 1e-9:
        return Match(num, seen, chance, None, None, None, None)
    kappa = (seen - chance) / room
    error = math.sqrt(float(((seen_N - seen * weight_N) ** 2).sum()) * num / (num - 1)) / total
    error = max(error, spread / 2) / room
    interval = Interval(max(-1.0, kappa - 1.96 * error), min(1.0, kappa + 1.96 * error))
    return Match(num, seen, chance, kappa, interval, (seen - chance) / spread, error)
