"""The three ways from votes to verdicts on comparisons: a majority, Dawid and Skene's, Bradley and Terry's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curation.annotation.comparing import BAD, EQUAL, FIRST, FRAMES, NUM_LABELS, SECOND, Comparisons
from curation.annotation.records import BOTH_BAD, TIE
from curation.annotation.resolution_files import Resolution
from curation.voting.aggregating import label_counts, lead_confidence, majority
from curation.voting.bradley_terry import bradley_terry, wins_matrix
from curation.voting.dawid_skene import dawid_skene

DECIMALS = 6  # of probabilities in the lake: more would depend on the order of sums
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Verdicts(NamedTuple):
    """What a method says of C comparisons: the leading label (-1: none), its probability, and how strong the first is
    beside the second (for the order of more than two)."""

    label_C: Ints
    confidence_C: Floats
    lead_C: Floats


def verdicts(found: Comparisons, resolution: Resolution) -> tuple[Verdicts, list[str]]:
    """What the resolution's method says, and what is to be known about it."""
    counts = label_counts(found.comparison_V, found.labels_V, found.num_comparisons, NUM_LABELS)
    if resolution.method == "bradley_terry":
        return _by_strength(found, counts), []
    if resolution.method == "dawid_skene":
        return _by_voters(found)
    weights = np.array([resolution.weights.get(name, 1.0) for name in found.people])
    said = majority(found.comparison_V, found.labels_V, found.num_comparisons, NUM_LABELS,
                    weights_V=weights[found.annotators_V] if len(weights) else None,
                    min_margin=resolution.min_margin)  # fmt: skip
    total = np.maximum(said.counts_IL.sum(axis=1), 1e-12)
    lead = (said.counts_IL[:, FIRST] - said.counts_IL[:, SECOND]) / total
    return Verdicts(said.labels_I, np.nan_to_num(said.confidence_I), lead), []


def _by_voters(found: Comparisons) -> tuple[Verdicts, list[str]]:
    """Dawid and Skene over labels as the slots had them: then a voter who says A whatever is shown is told from one who
    cannot judge, and a repeated item in the opposite order tells about both slots. Which key comes first is arbitrary,
    so that both are equally frequent."""
    gold = np.full(found.num_comparisons, -1)
    for number, item in enumerate(found.items):
        if item.gold is not None and item.role == "gold":
            start, stop = found.offsets_I1[number : number + 2]
            for place in range(start, stop):
                pair = (item.keys[found.first_C[place]], item.keys[found.second_C[place]])
                known = {pair[0]: FIRST, pair[1]: SECOND, BOTH_BAD: BAD}
                gold[place] = known.get(item.gold, EQUAL if item.gold == TIE and len(item.keys) == 2 else -1)
    said = dawid_skene(found.comparison_V, found.annotators_V, found.seen_V, NUM_LABELS,
                       num_items=found.num_comparisons, num_annotators=len(found.people), frames_V=found.frames_V,
                       frames_FL=FRAMES, known_I=gold, alike=(FIRST, SECOND))  # fmt: skip
    chance = np.round(said.posteriors_IL, DECIMALS)
    top = chance.max(axis=1, initial=0.0)
    label = np.where(top > 0.5, chance.argmax(axis=1), -1) if len(chance) else np.zeros(0, np.int64)
    notes = [] if said.problem is None else [f"Dawid-Skene is no better than a majority here: {said.problem}"]
    return Verdicts(label.astype(np.int64), top, chance[:, FIRST] - chance[:, SECOND]), notes


def _by_strength(found: Comparisons, counts: Floats) -> Verdicts:
    """Bradley and Terry over all answers to a prompt, whichever items they were shown in. Where most voters call a pair
    a tie, or both bad, that stands."""
    players: dict[bytes, dict[bytes, int]] = {}
    for item in found.items:
        known = players.setdefault(item.context, {})
        for node in item.nodes:
            known.setdefault(node, len(known))
    ends = np.array([[players[found.items[item].context][found.items[item].nodes[place]] for place in pair]
                     for item, *pair in zip(found.item_C, found.first_C, found.second_C, strict=True)],
                    np.int64).reshape(-1, 2)  # fmt: skip
    contexts = list(players)
    numbers = {context: number for number, context in enumerate(contexts)}
    group_C = np.array([numbers[found.items[item].context] for item in found.item_C], np.int64)
    size_G = np.array([len(players[context]) for context in contexts], np.int64)
    score = np.array([1.0, 0.0, 0.5])
    chance, gap = np.full(found.num_comparisons, 0.5), np.zeros(found.num_comparisons)
    for size in np.unique(size_G):
        groups = np.flatnonzero(size_G == size)
        within = np.full(len(contexts), -1)
        within[groups] = np.arange(len(groups))
        mine = within[group_C] >= 0
        cast = np.flatnonzero(mine[found.comparison_V] & (found.labels_V != BAD))
        at = found.comparison_V[cast]
        wins = wins_matrix(ends[at, 0], ends[at, 1], score[found.labels_V[cast]], int(size), within[group_C[at]],
                           len(groups))  # fmt: skip
        fitted = bradley_terry(wins)
        where = within[group_C[mine]]
        chance[mine] = fitted.beats(ends[mine, 0], ends[mine, 1], where)
        gap[mine] = fitted.strength_GK[where, ends[mine, 0]] - fitted.strength_GK[where, ends[mine, 1]]
    chance = np.round(chance, DECIMALS)
    label = np.select([chance > 0.5, chance < 0.5], [FIRST, SECOND], -1)
    confidence = np.maximum(chance, 1 - chance)
    most = counts.argmax(axis=1) if len(counts) else np.zeros(0, np.int64)
    order = np.sort(counts, axis=1)
    other = (order[:, -1] > order[:, -2]) & (most >= EQUAL)
    sure = lead_confidence(order[:, -1], order[:, -2])
    return Verdicts(np.where(other, most, label).astype(np.int64), np.where(other, sure, confidence), gap)
