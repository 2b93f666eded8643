"""What each annotator does: agreement with the others, gold and retest answers, position and length bias, speed.

Judges are measured like people, against people alone; nobody is measured against judges. Retests count for consistency
only, adjudications nowhere.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from curation.statistics import PairedLogit, exact_interval, paired_logit, wilson_interval
from curation.voting.annotator_figures import Annotator, Bias, Share
from curation.voting.annotator_flags import flagged
from curation.voting.vote_arrays import VoteArrays
from curation.voting.vote_consensus import Others, match, others

FASTEST_CHARS_PER_SECOND = 90.0  # 15 words of 6 characters: four times a reader's 238 words a minute (Brysbaert 2019)


def share(hits_N: NDArray[np.bool_], exact: bool = False) -> Share:
    """The share of hits with Wilson's interval, or Clopper-Pearson's."""
    count, num = int(np.sum(hits_N)), len(hits_N)
    return Share(count, num, count / num if num else None, (exact_interval if exact else wilson_interval)(count, num))


def annotators(votes: VoteArrays) -> list[Annotator]:
    """Every annotator's figures and flags, in the order of their names."""
    beside = others(votes)
    order = votes.answered_order()
    retests = retest_pairs(votes)
    found = [_one(votes, beside, order, retests, number) for number in range(len(votes.annotators))]
    return [replace(one, flags=flags) for one, flags in zip(found, flagged(found, beside), strict=True)]


def _one(votes: VoteArrays, beside: Others, order_V: NDArray[np.int64], retests: tuple[NDArray[np.int64], ...],
         number: int) -> Annotator:  # fmt: skip
    own_V = (votes.annotators_V == number) & (votes.labels_V >= 0)
    mine_V = own_V & votes.counted_I[votes.items_V]
    first, again = (places[votes.annotators_V[retests[0]] == number] for places in retests)
    labels = votes.labels_V[mine_V]
    gold_V = mine_V & (votes.gold_I[votes.items_V] >= 0)
    turned = (votes.first_V[first] != votes.first_V[again]) & (votes.first_V[first] >= 0) & (votes.first_V[again] >= 0)
    turned &= (votes.slots_V[first] >= 0) & (votes.slots_V[again] >= 0)
    agreed_V = mine_V & (beside.consensus_V >= 0)
    seconds = votes.seconds_V[own_V & np.isfinite(votes.seconds_V)]
    timed_V = own_V & np.isfinite(votes.seconds_V) & (votes.shown_chars_I[votes.items_V] > 0)
    answers = answers_by_slot(votes)[order_V[own_V[order_V]]]
    top_answer, top, top_expected = _top(votes, beside, mine_V)
    return Annotator(
        votes.annotators[number], bool(votes.judge_A[number]), int((votes.annotators_V == number).sum()),
        int(votes.discarded_A[number]), int(votes.drafts_A[number]),
        share(votes.labels_V[agreed_V] == beside.consensus_V[agreed_V]),
        match(votes, beside, mine_V), share(votes.labels_V[gold_V] == votes.gold_I[votes.items_V][gold_V]),
        share(votes.labels_V[first] == votes.labels_V[again]),
        share(votes.slots_V[first][turned] == votes.slots_V[again][turned], exact=True),
        slot_bias(votes, beside, mine_V), length_bias(votes, beside, mine_V), _logit(votes, beside, mine_V),
        float(np.median(seconds)) if len(seconds) else None,
        share(votes.shown_chars_I[votes.items_V[timed_V]] / np.maximum(votes.seconds_V[timed_V], 1e-9)
              > FASTEST_CHARS_PER_SECOND, exact=True),
        top_answer, top, top_expected, longest_run(answers), entropy_bits(answers),
        share(labels == votes.tie), share(labels == votes.both_bad))  # fmt: skip


def retest_pairs(votes: VoteArrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(places of first votes, places of the same annotators' votes on the repetition), verdicts alone."""
    again = np.flatnonzero((votes.role_I[votes.items_V] == "retest") & (votes.labels_V >= 0))
    wanted = votes.of_item_I[votes.items_V[again]] * len(votes.annotators) + votes.annotators_V[again]
    keys = votes.items_V * len(votes.annotators) + votes.annotators_V  # ascending: votes stand in this order
    at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
    there = (keys[at] == wanted) & (votes.labels_V[at] >= 0) if len(keys) else np.zeros(0, dtype=bool)
    return at[there], again[there]


def answers_by_slot(votes: VoteArrays) -> NDArray[np.int64]:
    """What every vote says by slot: the slot's number, then `tie` and `both_bad` as labels; -1 where unknown."""
    return np.where(votes.labels_V >= votes.tie, votes.labels_V, votes.slots_V)


def answer_name(votes: VoteArrays, answer: int) -> str:
    return votes.label_names[answer] if answer >= votes.tie else chr(ord("A") + answer)


def longest_run(answers_N: NDArray[np.int64]) -> int:
    """The most equal answers in a row; unknown ones (-1) are left out."""
    known = answers_N[answers_N >= 0]
    if not len(known):
        return 0
    breaks = np.flatnonzero(np.diff(known) != 0) + 1
    return int(np.diff([0, *breaks.tolist(), len(known)]).max())


def entropy_bits(answers_N: NDArray[np.int64]) -> float | None:
    """Shannon's entropy of the known answers; None without any."""
    known = answers_N[answers_N >= 0]
    if not len(known):
        return None
    shares = np.unique(known, return_counts=True)[1] / len(known)
    return abs(float(-(shares * np.log2(shares)).sum()))


def _top(votes: VoteArrays, beside: Others, mine_V: NDArray[np.bool_]) -> tuple[str | None, Share, float | None]:
    """The commonest answer by slot, its share, and its share among the others on the same items."""
    answers = answers_by_slot(votes)
    known_V = mine_V & (answers >= 0)
    if not known_V.any():
        return None, share(np.zeros(0, dtype=bool), exact=True), None
    values, counts = np.unique(answers[known_V], return_counts=True)
    top = int(values[np.argmax(counts)])
    if top >= votes.tie:
        expected_V = beside.share_VL[:, top]
    elif top < 2:
        expected_V = beside.slot_a_V if top == 0 else beside.slot_b_V
    else:
        expected_V = np.full(len(answers), np.nan)
    seen = expected_V[known_V & np.isfinite(expected_V)]
    return (answer_name(votes, top), share(answers[known_V] == top, exact=True),
            float(seen.mean()) if len(seen) else None)  # fmt: skip


def slot_bias(votes: VoteArrays, beside: Others, mine_V: NDArray[np.bool_]) -> Bias:
    """Choices of slot A among votes that chose a candidate whose slot is known. By chance one of k slots is A; slots
    are drawn, so whatever an item's candidates are worth, slot A holds the better one as often."""
    used_V = mine_V & (votes.slots_V >= 0)
    chose_a = votes.slots_V[used_V] == 0
    chance = 1 / np.maximum(votes.candidates_I[votes.items_V[used_V]], 1)
    expected = beside.decided_a_V[used_V]
    if not len(chose_a):
        return Bias(share(chose_a, exact=True), None, None, None)
    p_value = max(_against_chance(chose_a, chance), _paired(chose_a - expected))
    known = expected[np.isfinite(expected)]
    return Bias(share(chose_a, exact=True), float(chance.mean()), float(known.mean()) if len(known) else None, p_value)


def length_bias(votes: VoteArrays, beside: Others, mine_V: NDArray[np.bool_]) -> Bias:
    """Choices of the longer of two candidates of different length. The better candidate may well be the longer one, so
    only the others' votes tell what is usual."""
    lengths = votes.lengths_IK[votes.items_V]
    longer_V = (lengths[:, 1] > lengths[:, 0]).astype(np.int64)
    used_V = mine_V & (votes.candidates_I[votes.items_V] == 2) & (votes.labels_V >= 0) & (votes.labels_V < 2)
    used_V &= lengths[:, 0] != lengths[:, 1]
    chose = votes.labels_V[used_V] == longer_V[used_V]
    by_others = np.where(longer_V == 1, beside.decided_VK[:, 1], beside.decided_VK[:, 0])[used_V]
    known = np.isfinite(by_others)
    return Bias(share(chose, exact=True), None, float(by_others[known].mean()) if known.any() else None,
                _paired(chose - by_others) if known.sum() >= 5 else None)  # fmt: skip


def _against_chance(hits_N: NDArray[np.bool_], chance_N: NDArray[np.float64]) -> float:
    """Two-sided p-value of so many hits: exact where every chance is the same, else by the normal approximation."""
    from scipy import special, stats

    if np.ptp(chance_N) == 0 and chance_N[0] < 1:
        return float(stats.binomtest(int(hits_N.sum()), len(hits_N), float(chance_N[0])).pvalue)
    spread = math.sqrt(float((chance_N * (1 - chance_N)).sum()))
    gap = max(0.0, abs(float(hits_N.sum() - chance_N.sum())) - 0.5)
    return float(2 * special.ndtr(-gap / spread)) if spread > 0 else 1.0


def _paired(differences_N: NDArray[np.float64]) -> float:
    """Two-sided p-value that differences have the mean 0 (Student's t); 0 where fewer than five are known, so that
    another test decides alone."""
    from scipy import special

    known = differences_N[np.isfinite(differences_N)]
    if len(known) < 5:
        return 0.0
    if not known.any():
        return 1.0
    error = max(float(known.std(ddof=1)) / math.sqrt(len(known)), 1e-9)
    return float(2 * special.stdtr(len(known) - 1, -abs(float(known.mean())) / error))


def _logit(votes: VoteArrays, beside: Others, mine_V: NDArray[np.bool_]) -> PairedLogit:
    """`length` (characters), `slot_a` and `others` (share of their votes), chosen less rejected."""
    used_V = mine_V & (votes.candidates_I[votes.items_V] == 2) & (votes.slots_V >= 0) & (votes.labels_V < 2)
    used_V &= np.isfinite(beside.decided_VK[:, 0])
    labels, at = votes.labels_V[used_V], np.arange(int(used_V.sum()))
    lengths, decided = votes.lengths_IK[votes.items_V[used_V]], beside.decided_VK[used_V]
    features = np.stack([lengths[at, labels] - lengths[at, 1 - labels],
                         np.where(votes.slots_V[used_V] == 0, 1.0, -1.0),
                         decided[at, labels] - decided[at, 1 - labels]], axis=1)  # fmt: skip
    return paired_logit(features, ("length", "slot_a", "others"))
