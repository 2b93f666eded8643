"""Who is right where voters differ: Dawid and Skene's model of voters, each with errors of their own.

A vote is a label that a voter gave to an item. The model (Dawid and Skene 1979, doi 10.2307/2346806): every item has a
true class, every voter a confusion matrix, and given the class votes are independent. Classes and matrices are found
together by expectation maximisation. A voter who always reverses is then as good a witness as one who is always right,
and one who says A whatever is shown weighs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMOOTHING = 2.0  # votes that the average voter's matrix counts for in every row of a voter's own
EXPECTED = 0.7  # how much better than chance a voter is taken to be before any vote; keeps a class what its name says
LEAST_VOTES = 5  # of a typical voter; with fewer a matrix is hardly more than what it is smoothed towards

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class DawidSkene(NamedTuple):
    """What `dawid_skene` found. `posteriors_IL`: probability of each class of each item. `confusion_ALL`: for voter a
    and true class t the probability of each label. `prior_L`: how frequent the classes are. `problem` says why the
    result tells little, and is null where it is sound."""

    posteriors_IL: Floats
    confusion_ALL: Floats
    prior_L: Floats
    log_likelihood: float
    iterations: int
    converged: bool
    problem: str | None


def dawid_skene(
    items_V: ArrayLike,
    annotators_V: ArrayLike,
    labels_V: ArrayLike,
    num_labels: int,
    *,
    num_items: int | None = None,
    num_annotators: int | None = None,
    frames_V: ArrayLike | None = None,
    frames_FL: ArrayLike | None = None,
    known_I: ArrayLike | None = None,
    alike: Sequence[int] = (),
    smoothing: float = SMOOTHING,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Classes of I items from V votes (item, voter and label as whole numbers from 0); any vote may be missing, and a
    voter may vote twice.

    A vote may be given in a frame of its own: `frames_FL[f, t]` is what an item of class t looks like in frame f, and
    `frames_V` the frame of every vote (by default all see the classes as they are). For pairs the class is which answer
    is better, the label which slot was chosen, and the frame which answer stood in slot A: a voter who prefers a slot
    is then told from one who cannot judge. `known_I` fixes classes that are known (-1: unknown). `alike` names classes
    whose numbers are arbitrary, so that they are equally frequent.

    A row of a matrix is (the voter's own counts + `smoothing` x the pooled row of all voters) / their sum; the pooled
    row has `smoothing` votes a voter of somebody who is fairly good, so that a class that hardly anybody votes for does
    not become a class for whatever fits badly. 0 is the maximum likelihood of the paper. Starts at the shares of the
    votes and ends where no probability moves by more than `tolerance`. An item without a vote has the prior. Raises
    ValueError for arrays of unequal length and for labels out of range.
    """
    items, annotators, labels = (np.asarray(values, np.int64) for values in (items_V, annotators_V, labels_V))
    if not len(items) == len(annotators) == len(labels):
        raise ValueError("items, annotators and labels must be of equal length")
    if len(labels) and (labels.min() < 0 or labels.max() >= num_labels):
        raise ValueError(f"labels must lie in 0..{num_labels - 1}")
    size = _count(items, num_items)
    voters = _count(annotators, num_annotators)
    frames = np.arange(num_labels)[None] if frames_FL is None else np.asarray(frames_FL, np.int64)
    seen_VL = frames[np.zeros(len(items), np.int64) if frames_V is None else np.asarray(frames_V, np.int64)]
    known = np.full(size, -1) if known_I is None else np.asarray(known_I, np.int64)
    cells_VL = (annotators[:, None] * num_labels + seen_VL) * num_labels + labels[:, None]
    posteriors = _fixed(_start(items, seen_VL, labels, size, num_labels), known)
    likelihood, converged, iterations = -np.inf, False, 0
    confusion, prior = _estimate(posteriors, items, cells_VL, voters, alike, smoothing)
    while not converged and iterations < max_iterations:
        iterations += 1
        after, likelihood = _expect(confusion, prior, items, cells_VL, size)
        after = _fixed(after, known)
        moved = float(np.abs(after - posteriors).max(initial=0.0))
        posteriors = after
        confusion, prior = _estimate(posteriors, items, cells_VL, voters, alike, smoothing)
        converged = moved < tolerance
    return DawidSkene(posteriors, confusion, prior, likelihood, iterations, converged,
                      _problem(items, annotators, voters, converged))  # fmt: skip


def _count(values: Ints, given: int | None) -> int:
    return given if given is not None else int(values.max(initial=-1)) + 1


def _start(items: Ints, seen_VL: Ints, labels: Ints, size: int, num_labels: int) -> Floats:
    """The share of each class among an item's votes; all alike where it has none."""
    agrees_VL = seen_VL == labels[:, None]
    counts = np.stack([np.bincount(items, weights=agrees_VL[:, place], minlength=size)
                       for place in range(num_labels)], axis=1)  # fmt: skip
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), 1 / num_labels)


def _fixed(posteriors: Floats, known: Ints) -> Floats:
    told = np.flatnonzero(known >= 0)
    if len(told):
        posteriors = posteriors.copy()
        posteriors[told] = 0
        posteriors[told, known[told]] = 1
    return posteriors


def _estimate(posteriors: Floats, items: Ints, cells_VL: Ints, voters: int, alike: Sequence[int], smoothing: float
              ) -> tuple[Floats, Floats]:  # fmt: skip
    """Confusion matrices and class frequencies that fit the posteriors best."""
    num_labels = posteriors.shape[1]
    counts = np.bincount(cells_VL.ravel(), weights=posteriors[items].ravel(), minlength=voters * num_labels**2)
    counts = counts.reshape(voters, num_labels, num_labels).astype(np.float64)  # without votes they are integers
    start = EXPECTED * np.eye(num_labels) + (1 - EXPECTED) / num_labels
    pooled = counts.sum(axis=0) + (smoothing * voters + 1e-9) * start
    pooled /= pooled.sum(axis=1, keepdims=True)
    total = counts.sum(axis=2, keepdims=True) + smoothing
    own = np.divide(counts + smoothing * pooled, total, out=np.zeros_like(counts), where=total > 0)
    confusion = np.where(total > 0, own, pooled)
    voted = np.bincount(items, minlength=len(posteriors)) > 0
    prior = posteriors[voted].sum(axis=0) + smoothing / num_labels
    prior = prior / prior.sum() if prior.sum() else np.full(num_labels, 1 / num_labels)
    if len(alike):
        prior[list(alike)] = prior[list(alike)].mean()
    return confusion, prior


def _expect(confusion: Floats, prior: Floats, items: Ints, cells_VL: Ints, size: int) -> tuple[Floats, float]:
    """(probability of each class of each item, log-likelihood of the votes)."""
    with np.errstate(divide="ignore"):
        told_VL = np.log(confusion).ravel()[cells_VL]
        start = np.log(prior)
    log_IL = np.stack([np.bincount(items, weights=told_VL[:, place], minlength=size) + start[place]
                       for place in range(len(prior))], axis=1)  # fmt: skip
    top = log_IL.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    weight = np.exp(log_IL - top)
    total = weight.sum(axis=1, keepdims=True)
    voted = np.bincount(items, minlength=size) > 0
    likelihood = float((np.log(total[voted]) + top[voted]).sum())
    return weight / total, likelihood


def _problem(items: Ints, annotators: Ints, voters: int, converged: bool) -> str | None:
    if not len(items):
        return "there are no votes"
    votes = np.bincount(annotators, minlength=voters)
    votes = votes[votes > 0]
    typical = float(np.median(votes))
    if len(votes) < 3:
        return f"{len(votes)} voters are too few to tell whose errors they are (3 or more)"
    if typical < LEAST_VOTES:
        return f"half the voters gave {typical:g} votes or fewer: their matrices are mostly the average voter's"
    if np.bincount(items).max() < 2:
        return "no item has two votes, so that nobody can be compared"
    return None if converged else "it did not settle"
