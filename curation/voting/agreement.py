"""How far annotators agree: pairwise agreement, Cohen's and Fleiss' kappa, Krippendorff's alpha, Kendall's W.

Every coefficient takes any number of answers per unit and has a bootstrap interval over items. Where it is undefined it
has no value but a reason: without two annotators on a unit, or where everybody always gave the same answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curation.statistics import Interval, rule_of_three
from curation.voting.coefficients import (
    answered_together,
    cohen_statistic,
    coincidence_statistics,
    kendalls_w,
    worst_costs,
)
from curation.voting.item_bootstrap import NUM_RESAMPLES, bootstrap
from curation.voting.vote_arrays import ORDINAL, RANKING, VERDICT, Answers, VoteArrays

MOST_PAIRS = 500  # pairs of annotators of which Cohen's kappa is computed: those with most units in common
MOST_CELLS = 20_000  # of their confusion matrices together
BATCH = 50
GROUPS = ("question", "source", "topic", "round", "edition", "role", "week", "batch")
NO_PAIRS = "no unit has answers of two annotators"
ONE_ANSWER = "every answer is the same, so that chance alone agrees as well"
FEW_ITEMS = "too few items for an interval"


class Coefficient(NamedTuple):
    """A coefficient (at most 1; 0 is what chance gives) or a share, its interval of 95 %, and why either is missing."""

    value: float | None
    interval: Interval | None
    reason: str | None = None


class PairKappa(NamedTuple):
    """Cohen's kappa of two annotators on the units that both answered; quadratic weights where the level is ordinal."""

    annotators: tuple[str, str]
    num_units: int
    kappa: Coefficient
    weighted: Coefficient | None


@dataclass(frozen=True)
class Agreement:
    """Agreement on one question. `num_shared` counts units with two answers and more, on which all of it rests.

    pairwise: share of the pairs of answers to a unit that are the same. cohen: mean over pairs of annotators, weighted
    by their common units (Light 1971 where all answer all); `num_pairs` counts those with a kappa, `pairs` lists at
    most 500. fleiss, alpha: see `coincidence_statistics`. The ordinal and interval forms are None at a nominal level,
    `kendall_w` but for a ranking."""

    question: str
    level: str
    num_items: int
    num_units: int
    num_shared: int
    num_answers: int
    num_annotators: int
    pairwise: Coefficient
    cohen: Coefficient
    fleiss: Coefficient
    alpha: Coefficient
    alpha_ordinal: Coefficient | None
    alpha_interval: Coefficient | None
    cohen_weighted: Coefficient | None
    kendall_w: Coefficient | None
    num_pairs: int
    pairs: tuple[PairKappa, ...]


def agreement_on(answers: Answers, names: tuple[str, ...] = (), resamples: int = NUM_RESAMPLES) -> Agreement:
    """Agreement on one question; `names` are the annotators', by number."""
    counts = _counts(answers)
    given_U = counts.sum(axis=1)
    ordinal = answers.level == ORDINAL
    shared = (counts.sum(axis=1) >= 2).sum()
    found = _coincidences(answers, counts, resamples)
    cohen, weighted, num_pairs, pairs = _cohen(answers, names, resamples)
    return Agreement(
        answers.question, answers.level, len(np.unique(answers.items_U[given_U > 0])), int((given_U > 0).sum()),
        int(shared), len(answers.units_N), len(np.unique(answers.annotators_N)), found[0], cohen, found[1], found[2],
        found[3] if ordinal else None, found[4] if ordinal else None, weighted,
        _kendall(answers, resamples) if answers.question == RANKING else None, num_pairs, pairs)  # fmt: skip


def _counts(answers: Answers) -> NDArray[np.float64]:
    """How often each unit got each value, shape (U, C)."""
    width = max(1, len(answers.values))
    flat = np.bincount(answers.units_N * width + answers.values_N, minlength=len(answers.items_U) * width)
    return flat.reshape(len(answers.items_U), width).astype(float)


def _per_item(rows_UF: NDArray[np.float64], items_U: NDArray[np.int64], used_U: NDArray[np.bool_]) -> Any:
    """Rows of units, summed per item that has one."""
    items, place = np.unique(items_U[used_U], return_inverse=True)
    sums = np.zeros((len(items), rows_UF.shape[1]))
    np.add.at(sums, place.ravel(), rows_UF[used_U])
    return sums


def _coincidences(answers: Answers, counts_UC: NDArray[np.float64], resamples: int) -> list[Coefficient]:
    """pairwise, Fleiss' kappa, alpha nominal, ordinal, interval."""
    given = counts_UC.sum(axis=1, keepdims=True)
    shared, size = given[:, 0] >= 2, counts_UC.shape[1]
    same = np.eye(size)
    with np.errstate(invalid="ignore", divide="ignore"):
        coincident = counts_UC[:, :, None] * (counts_UC[:, None, :] - same)  # pairs of answers
        pairs = given * (given - 1)
        alike = np.trace(coincident, axis1=1, axis2=2)[:, None]
        rows = np.hstack([(coincident / (given[:, :, None] - 1)).reshape(len(given), -1), alike, pairs, alike / pairs,
                          np.ones_like(given)])  # fmt: skip
    rows[~shared] = 0
    features = _per_item(np.hstack([rows, counts_UC / np.maximum(given, 1), given > 0]), answers.items_U,
                         given[:, 0] > 0)  # fmt: skip
    scale = np.array(answers.values, dtype=float) if answers.level == ORDINAL else np.arange(size, dtype=float)
    if not shared.any():
        return [Coefficient(None, None, NO_PAIRS)] * 5
    values, intervals, still = bootstrap(features, coincidence_statistics(size, scale), resamples=resamples)
    worst = worst_costs(features.sum(axis=0), size, scale)
    bound = rule_of_three(len(features))
    lowest = (0.0, -1.0, -1.0, -1.0, -1.0)
    return [_told(value, interval, bound * cost if fixed else None, low)
            for value, interval, fixed, cost, low in
            zip(values, intervals, still, worst, lowest, strict=True)]  # fmt: skip


def _told(value: float, interval: Interval | None, spread: float | None, lowest: float) -> Coefficient:
    """A coefficient; `spread` stands in for an interval of width zero, which no sample proves."""
    if not math.isfinite(value):
        return Coefficient(None, None, ONE_ANSWER)
    if interval is None:
        return Coefficient(float(value), None, FEW_ITEMS)
    if spread is not None:
        interval = Interval(max(lowest, value - spread), min(1.0, value + spread))
    return Coefficient(float(value), interval)


def _cohen(answers: Answers, names: tuple[str, ...], resamples: int
           ) -> tuple[Coefficient, Coefficient | None, int, tuple[PairKappa, ...]]:  # fmt: skip
    from scipy import sparse

    units, one, other, value, second = answered_together(answers)
    ordinal, size = answers.level == ORDINAL, max(1, len(answers.values))
    if not len(units):
        missing = Coefficient(None, None, NO_PAIRS)
        return missing, missing if ordinal else None, 0, ()
    span = int(other.max()) + 1
    pairs, pair, common = np.unique(one * span + other, return_inverse=True, return_counts=True)
    chosen = np.sort(np.lexsort((pairs, -common))[: max(1, min(MOST_PAIRS, MOST_CELLS // size**2))])
    place = np.full(len(pairs), -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[pair] >= 0
    items, row = np.unique(answers.items_U[units[kept]], return_inverse=True)
    column = (place[pair[kept]] * size + value[kept]) * size + second[kept]
    shape = (len(items), len(chosen) * size * size)
    features = sparse.csr_array((np.ones(len(row)), (row.ravel(), column)), shape=shape)
    plain = _kappas(features, common[chosen], np.arange(size, dtype=float), 0.0, resamples)
    weighted = _kappas(features, common[chosen], _scale(answers), 2.0, resamples) if ordinal else plain
    told = tuple(
        PairKappa((_name(names, int(pairs[at]) // span), _name(names, int(pairs[at]) % span)), int(common[at]),
                  plain[1 + number], weighted[1 + number] if ordinal else None)
        for number, at in enumerate(chosen.tolist()))  # fmt: skip
    return plain[0], weighted[0] if ordinal else None, sum(item.kappa.value is not None for item in told), told


def _kappas(features: Any, units_P: NDArray[np.int64], scale_C: NDArray[np.float64], power: float, resamples: int
            ) -> list[Coefficient]:  # fmt: skip
    """The mean kappa, then every pair's. A pair that always agreed could lose about twice the share of units that may
    differ yet (two labels, equally frequent)."""
    values, intervals, still = bootstrap(features, cohen_statistic(len(units_P), scale_C, power), resamples=resamples)
    spread = [2 * rule_of_three(count) for count in (features.shape[0], *units_P.tolist())]
    return [_told(value, interval, room if fixed else None, -1.0)
            for value, interval, fixed, room in zip(values, intervals, still, spread, strict=True)]  # fmt: skip


def _scale(answers: Answers) -> NDArray[np.float64]:
    if answers.level == ORDINAL:
        return np.array(answers.values, dtype=float)
    return np.arange(max(1, len(answers.values)), dtype=float)


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if names else str(number)


def _kendall(answers: Answers, resamples: int) -> Coefficient:
    """Mean over items of Kendall's W."""
    items, known = kendalls_w(answers)
    if not len(items):
        return Coefficient(None, None, "no item was ranked by two annotators")

    def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(sums[..., :1] / sums[..., 1:])

    values, intervals, still = bootstrap(np.stack([known, np.ones(len(known))], axis=1), mean, resamples=resamples)
    return _told(values[0], intervals[0], rule_of_three(len(known)) if still[0] else None, 0.0)


def agreement(votes: VoteArrays, by: str | None = None, *, question: str = VERDICT, judges: bool = False,
              batch: int = BATCH, resamples: int = NUM_RESAMPLES) -> dict[str, Agreement]:  # fmt: skip
    """Agreement by group; one group `all` without `by`. Judges are left out unless asked for.

    `by` is `question` (all questions, whatever `question` says), `source`, `topic`, `round`, `edition` (of guidelines
    and questions), `role`, `week` (ISO, of an item's last vote), or `batch`: the items in the order in which they got
    their last vote, `batch` at a time. Retests never count, adjudications only by round; gold items count like any.
    Raises ValueError for another `by`."""
    if by not in (None, *GROUPS):
        raise ValueError(f"'{by}' is no grouping; known: {', '.join(GROUPS)}")
    asked = list(votes.answers) if by == "question" else [question] if question in votes.answers else []
    found = {}
    for name in asked:
        answers = votes.answers[name]
        items_N = answers.items_U[answers.units_N]
        counted_I = votes.role_I != "retest" if by == "round" else votes.counted_I
        keep = counted_I[items_N] & (judges | ~votes.judge_A[answers.annotators_N])
        groups_I = _groups(votes, by, batch, counted_I)
        for group in dict.fromkeys([name] if by == "question" else sorted({*groups_I[items_N[keep]].tolist()})):
            of_group = keep if by == "question" else keep & (groups_I[items_N] == group)
            found[group] = agreement_on(answers.of(of_group), votes.annotators, resamples)
    return found


def _groups(votes: VoteArrays, by: str | None, batch: int, counted_I: NDArray[np.bool_]) -> NDArray[np.object_]:
    """The group of every item."""
    if by in ("source", "topic", "round", "edition", "role"):
        return np.asarray(getattr(votes, f"{by}_I"))
    groups = np.full(len(votes.item_ids), "all", dtype=object)
    if by not in ("week", "batch"):
        return groups
    last = np.full(len(groups), np.datetime64("NaT", "s"))
    np.fmax.at(last, votes.items_V, votes.times_V)
    if by == "week":
        days = last.astype("datetime64[D]").tolist()
        return np.array(["unknown" if day is None else "{}-W{:02}".format(*day.isocalendar()) for day in days], object)
    answered = np.zeros(len(groups), dtype=bool)
    answered[votes.items_V] = True
    order = np.lexsort((votes.position_I, last))
    order = order[(answered & counted_I)[order]]
    for begin in range(0, len(order), batch):
        groups[order[begin : begin + batch]] = f"{begin + 1:06d}-{min(begin + batch, len(order)):06d}"
    return groups
