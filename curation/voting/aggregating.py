"""What most voters say: counts of labels, the majority with its margin, and how sure a count makes one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Majority(NamedTuple):
    """What `majority` found of I items. `labels_I`: the label with most votes, -1 where the votes do not decide.
    `counts_IL`: (weighted) votes per label. `margin_I`: (votes of the first - votes of the second) / all votes, 0..1,
    NaN without votes. `confidence_I`: see `lead_confidence`; NaN without votes."""

    labels_I: NDArray[np.int64]
    counts_IL: Floats
    margin_I: Floats
    confidence_I: Floats


def label_counts(items_V: ArrayLike, labels_V: ArrayLike, num_items: int, num_labels: int,
                 weights_V: ArrayLike | None = None) -> Floats:  # fmt: skip
    """Votes per item and label, shape (I, L); each vote counts 1, or its weight."""
    cells = np.asarray(items_V, np.int64) * num_labels + np.asarray(labels_V, np.int64)
    weights = None if weights_V is None else np.asarray(weights_V, np.float64)
    return np.bincount(cells, weights, num_items * num_labels).reshape(num_items, num_labels).astype(np.float64)


def majority(items_V: ArrayLike, labels_V: ArrayLike, num_items: int, num_labels: int, *,
             weights_V: ArrayLike | None = None, min_votes: float = 1, min_margin: float = 0.0
             ) -> Majority:  # fmt: skip
    """The label with most votes of every item, where it leads: one label has more than any other, by `min_margin`
    (share of all votes, 0..1) or more, and there are `min_votes` or more."""
    counts = label_counts(items_V, labels_V, num_items, num_labels, weights_V)
    total = counts.sum(axis=1)
    order = np.sort(counts, axis=1)
    second = order[:, -2] if num_labels > 1 else np.zeros(num_items)
    with np.errstate(invalid="ignore", divide="ignore"):
        margin = (order[:, -1] - second) / total
    decided = (total >= max(min_votes, 1e-12)) & (margin > 0) & (margin >= min_margin - 1e-12)
    labels = np.where(decided, counts.argmax(axis=1), -1) if num_items else np.zeros(0, np.int64)
    sure = np.where(total > 0, lead_confidence(order[:, -1], second), np.nan)
    return Majority(labels.astype(np.int64), counts, margin, sure)


def lead_confidence(first_N: ArrayLike, second_N: ArrayLike) -> Floats:
    """The probability that of all voters there could be more say the first label than the second, given how many said
    each and nothing known before: P(p > 1/2) under Beta(first + 1, second + 1). 3 : 0 gives 0.94, 2 : 1 0.69, 1 : 0
    0.75, and a draw 0.5."""
    from scipy.special import betainc

    first, second = np.asarray(first_N, np.float64), np.asarray(second_N, np.float64)
    return np.asarray(betainc(second + 1, first + 1, 0.5), np.float64)


def pair_agreement(counts_IL: ArrayLike) -> Floats:
    """The share of pairs of voters of an item that gave the same label, 0..1 (Fleiss 1971, P_i); NaN under two
    votes."""
    counts = np.asarray(counts_IL, np.float64)
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total >= 2, (counts * (counts - 1)).sum(axis=1) / (total * (total - 1)), np.nan)
