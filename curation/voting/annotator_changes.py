"""What calibration changed: agreement and gold accuracy in the calibration rounds and in the main rounds after them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from curation.statistics import Interval
from curation.voting.agreement import agreement_on
from curation.voting.annotators import share
from curation.voting.item_bootstrap import NUM_RESAMPLES
from curation.voting.vote_arrays import VERDICT, VoteArrays
from curation.voting.vote_consensus import match, others


class Change(NamedTuple):
    """A figure before and after, and the difference after - before with its interval of 95 %; None where a side is
    unknown."""

    before: float | None
    after: float | None
    difference: float | None
    interval: Interval | None


class Calibrated(NamedTuple):
    """What changed for one annotator, or for `all`: agreement beyond chance (of one: vote_consensus.match, which does
    not depend on how many answered an item; of all: Krippendorff's alpha among people) and the share of gold items
    answered right; with the votes on either side."""

    annotator: str
    num_before: int
    num_after: int
    agreement: Change
    gold: Change


def difference(before: float | None, around: Interval | None, after: float | None, about: Interval | None) -> Change:
    """The difference of two independent figures, its interval recovered from theirs: lower limit d - sqrt((after -
    low)^2 + (high - before)^2), and so above (Newcombe 1998, method 10, where the intervals are Wilson's; Zou and
    Donner 2008, doi 10.1002/sim.3095)."""
    if before is None or after is None:
        return Change(before, after, None, None)
    gap = after - before
    if around is None or about is None:
        return Change(before, after, gap, None)
    down = math.hypot(after - about.low, around.high - before)
    up = math.hypot(about.high - after, before - around.low)
    return Change(before, after, gap, Interval(gap - down, gap + up))


def calibration_changes(votes: VoteArrays, resamples: int = NUM_RESAMPLES) -> list[Calibrated]:
    """`all` first, then every annotator in the order of their names; nothing where there is no calibration round, or no
    main round. The items differ between the rounds, so that a change may be the items' too."""
    rounds_I = votes.round_I.astype(str)
    sides_I = [np.char.startswith(rounds_I, name) for name in ("calibration", "main")]
    sides_V = [(side & votes.counted_I)[votes.items_V] & (votes.labels_V >= 0) for side in sides_I]
    if not all(side.any() for side in sides_V):
        return []
    answers = votes.answers[VERDICT]
    people = ~votes.judge_A[answers.annotators_N]
    alphas = [agreement_on(answers.of(people & (side & votes.counted_I)[answers.items_U[answers.units_N]]),
                           resamples=resamples).alpha for side in sides_I]  # fmt: skip
    before, after = alphas
    person_V = ~votes.judge_A[votes.annotators_V]
    first_V, second_V = (side & person_V for side in sides_V)
    found = [Calibrated("all", int(first_V.sum()), int(second_V.sum()),
                        difference(before.value, before.interval, after.value, after.interval),
                        _gold(votes, first_V, second_V))]  # fmt: skip
    beside = others(votes)
    for number, name in enumerate(votes.annotators):
        own = [side & (votes.annotators_V == number) for side in sides_V]
        first, second = (match(votes, beside, side) for side in own)
        found.append(Calibrated(name, int(own[0].sum()), int(own[1].sum()),
                                difference(first.kappa, first.interval, second.kappa, second.interval),
                                _gold(votes, *own)))  # fmt: skip
    return found


def _gold(votes: VoteArrays, before_V: np.ndarray, after_V: np.ndarray) -> Change:
    gold_V = votes.gold_I[votes.items_V]
    first, second = (share((votes.labels_V == gold_V)[side & (gold_V >= 0)]) for side in (before_V, after_V))
    return difference(first.value, first.interval, second.value, second.interval)
