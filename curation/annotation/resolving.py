"""Votes -> what was decided about every item: a pair, a tie, both bad, disputed, or too few votes to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.annotation.comparing import (
    BAD,
    EQUAL,
    FIRST,
    NUM_LABELS,
    SECOND,
    Comparisons,
    Shown,
    compare,
    counting,
    round_order,
    shown,
)
from curation.annotation.methods import DECIMALS, Verdicts, verdicts
from curation.annotation.records import RESOLVED
from curation.annotation.resolution_files import Resolution
from curation.voting.aggregating import label_counts, majority, pair_agreement
from curation.voting.contradictions import Conflicts, Result, conflicts

COUNTED = {"pair": "pairs", "tie": "ties", "both_bad": "both_bad", "disputed": "disputed", "too_few": "too_few"}
Floats = NDArray[np.float64]


class Decision(NamedTuple):
    """What was decided about two candidates of an item; see RESOLVED for the columns."""

    outcome: str
    chosen: str | None
    rejected: str | None
    for_chosen: int
    for_rejected: int
    num_votes: int
    agreement: float | None
    confidence: float | None
    adjudicated: bool

    @property
    def margin(self) -> float | None:
        """(votes for chosen - votes for rejected) / votes, -1..1; null unless a pair was decided by votes."""
        if self.outcome != "pair" or not self.num_votes:
            return None
        return round((self.for_chosen - self.for_rejected) / self.num_votes, DECIMALS)


@dataclass(frozen=True)
class Resolved:
    """What came of a job's votes. `table` is RESOLVED, in the order of rounds and positions, without the resolution's
    name; `pairs` gives, by item, every decided pair of its candidates, the best with the worst first. `places` are the
    rows of the items in the table of items that was resolved."""

    table: pa.Table
    pairs: dict[str, list[Decision]]
    places: dict[str, int]
    conflicts: Conflicts
    counts: dict[str, int]
    notes: list[str]


def min_votes_of(resolution: Resolution, overlaps: Sequence[int | None], most: int) -> int:
    """The votes that an item needs: the resolution's, else 2, or less where the rounds ask fewer annotators an item, or
    where a round that asks nobody (imported votes) has no item with two."""
    if resolution.min_votes is not None:
        return resolution.min_votes
    asked = [most if number is None else number for number in overlaps]
    return max(1, min([2, *asked]))


def resolve(items: pa.Table, votes: pa.Table, resolution: Resolution, min_votes: int = 2) -> Resolved:
    """Resolve the votes (VOTES, the current ones) on a job's items (ITEMS; of other jobs those that decide or repeat
    them count too). Gold items are no result: they are there to see how well people vote, and Dawid-Skene learns from
    them. A repeated item (retest) is folded into the first. Where an item was adjudicated, its adjudicators' majority
    is the outcome, with confidence 1 by rule; all other figures stay those of the first votes. Of items that show the
    same in several rounds the latest round that has enough votes counts. Items of one round that judge the same two
    answers both ways are disputed, but for what an adjudicator said."""
    every = [item for item in shown(items) if len(item.keys) > 1 or item.of_item]
    jobs = items["job"].to_pylist()
    mine = [item for item in every if jobs[item.place] == resolution.job and item.of_item is None
            and wanted(item.round, resolution.rounds)]  # fmt: skip
    mine.sort(key=lambda item: (round_order(item.round), item.place))
    ids = {item.item_id for item in mine}
    repeating = {item.item_id: (item.of_item, item.role) for item in every if item.of_item in ids}
    repeats = {item: str(of) for item, (of, role) in repeating.items() if role == "retest"}
    deciding = {item: str(of) for item, (of, role) in repeating.items() if role != "retest"}
    ignored = [label for label, how in ((EQUAL, resolution.ties), (BAD, resolution.both_bad)) if how == "ignore"]
    told = counting(votes, ids | repeats.keys(), judges=resolution.judges, without=resolution.without)
    told.sort(key=lambda vote: vote["item_id"] in ids)  # an answer to the item itself counts before its repetition
    first = compare(mine, told, repeats, ignored=ignored)
    rounds = {item.item_id: round_order(item.round) for item in every}
    led = sorted(counting(votes, deciding.keys(), judges=False), key=lambda vote: rounds[vote["item_id"]])
    leads = compare(mine, led, deciding)
    said, notes = verdicts(first, resolution)
    by_item = _decisions(first, said, leads, resolution, min_votes)
    return _collected(items, mine, by_item, notes, first, resolution.method)


def wanted(name: str, rounds: Sequence[str]) -> bool:
    """Whether a round is one of `rounds` (names, or kinds of them)."""
    return name in rounds or name.partition("-")[0] in rounds


def _decisions(found: Comparisons, said: Verdicts, leads: Comparisons, resolution: Resolution, min_votes: int
               ) -> list[list[Decision]]:  # fmt: skip
    """By item: what was decided about its best and worst candidate, then about every other two."""
    size = found.num_comparisons
    counts = label_counts(found.comparison_V, found.labels_V, size, NUM_LABELS)
    agreement = pair_agreement(counts)
    decided = majority(leads.comparison_V, leads.labels_V, size, NUM_LABELS)
    lead_total = np.maximum(decided.counts_IL.sum(axis=1), 1)
    lead_gap = (decided.counts_IL[:, FIRST] - decided.counts_IL[:, SECOND]) / lead_total
    order: list[list[Decision]] = []
    for number, item in enumerate(found.items):
        start, stop = int(found.offsets_I1[number]), int(found.offsets_I1[number + 1])
        judged = bool(leads.num_voters_I[number])
        gap = lead_gap if judged else said.lead_C
        best = start + _best_and_worst(item, found, gap, start, stop)
        mine = []
        for place in [best, *(other for other in range(start, stop) if other != best)]:
            keys = (item.keys[found.first_C[place]], item.keys[found.second_C[place]])
            voters = int(counts[place].sum())
            label, sure = int(said.label_C[place]), float(said.confidence_C[place])
            if judged:
                label, sure = int(decided.labels_I[place]), 1.0
            elif sure < resolution.min_confidence:
                label = -1
            outcome = "too_few" if voters < min_votes and not judged else _outcome(label)
            mine.append(_decision(outcome, label, keys, counts[place], agreement[place], sure,
                                  judged and outcome != "disputed", voters))  # fmt: skip
        order.append(mine)
    return order


def _best_and_worst(item: Shown, found: Comparisons, gap_C: Floats, start: int, stop: int) -> int:
    """The number, inside an item, of the comparison of its best with its worst candidate (lowest keys first)."""
    if stop - start == 1:
        return 0
    score = np.zeros(len(item.keys))
    np.add.at(score, found.first_C[start:stop], gap_C[start:stop])
    np.add.at(score, found.second_C[start:stop], -gap_C[start:stop])
    score = np.round(score, DECIMALS)
    best = int(score.argmax())
    worst = int(np.where(np.arange(len(score)) == best, np.inf, score).argmin())
    ends = {best, worst}
    return next(place for place in range(stop - start)
                if {int(found.first_C[start + place]), int(found.second_C[start + place])} == ends)  # fmt: skip


def _outcome(label: int) -> str:
    return {FIRST: "pair", SECOND: "pair", EQUAL: "tie", BAD: "both_bad"}.get(label, "disputed")


def _decision(outcome: str, label: int, keys: tuple[str, str], counts: Floats, agreement: float, sure: float,
              adjudicated: bool, voters: int) -> Decision:  # fmt: skip
    chosen, rejected = (keys[label], keys[1 - label]) if outcome == "pair" else (None, None)
    votes = (int(counts[label]), int(counts[1 - label])) if outcome == "pair" else (0, 0)
    share = None if np.isnan(agreement) else round(float(agreement), DECIMALS)
    known = None if outcome == "too_few" else round(sure, DECIMALS)
    return Decision(outcome, chosen, rejected, *votes, voters, share, known, adjudicated)


def _collected(items: pa.Table, mine: Sequence[Shown], by_item: Sequence[list[Decision]], notes: list[str],
               found: Comparisons, method: str) -> Resolved:  # fmt: skip
    """The table, the pairs and the counts, without gold items and what a later round shows again."""
    last: dict[tuple[bytes, tuple[bytes, ...]], int] = {}
    for number, item in enumerate(mine):
        what = (item.context, tuple(sorted(item.nodes)))
        before = last.get(what)
        if item.role != "gold" and (before is None or mine[before].round == item.round
                                    or by_item[number][0].outcome != "too_few"):  # fmt: skip
            last[what] = number
    kept = [number for number, item in enumerate(mine) if item.role != "gold"
            and mine[last[item.context, tuple(sorted(item.nodes))]].round == item.round]  # fmt: skip
    rows = items.select(["item_id", "job", "round", "row_id", "source", "topic"]).take(
        pa.array([mine[number].place for number in kept], pa.int64())).to_pylist()  # fmt: skip
    results = {number: _results(mine[number], by_item[number]) for number in kept}
    told: dict[tuple[bytes, frozenset[bytes]], set[tuple[bytes, bool]]] = {}
    for of_item in results.values():
        for result, one in of_item:
            told.setdefault((result.context, frozenset(result[1:3])), set()).add((result.better, one.adjudicated))
    pairs = {}
    for number, row in zip(kept, rows, strict=True):
        stands = [one for result, one in results[number]
                  if _stands(result, told[result.context, frozenset(result[1:3])])]  # fmt: skip
        first = by_item[number][0]
        if first.outcome == "pair" and first not in stands:
            first = first._replace(outcome="disputed", chosen=None, rejected=None, adjudicated=False)
        row |= _row(first) | {"method": method, "resolution": None}
        pairs[mine[number].item_id] = stands
    gold = sum(item.role == "gold" for item in mine)
    counts = {"items": len(mine), "gold": gold, "superseded": len(mine) - gold - len(kept),
              "votes": int(found.num_voters_I.sum()), "annotators": len(found.people)}  # fmt: skip
    counts |= {name: sum(row["outcome"] == outcome for row in rows) for outcome, name in COUNTED.items()}
    counts["adjudicated"] = sum(bool(row["adjudicated"]) for row in rows)
    places = {mine[number].item_id: mine[number].place for number in kept}
    return Resolved(pa.Table.from_pylist(rows, schema=RESOLVED), pairs, places,
                    conflicts([result for of_item in results.values() for result, _ in of_item]), counts,
                    notes)  # fmt: skip


def _results(item: Shown, decisions: Sequence[Decision]) -> list[tuple[Result, Decision]]:
    """The decided pairs of an item as results."""
    node = dict(zip(item.keys, item.nodes, strict=True))
    return [(Result(item.context, node[one.chosen or ""], node[one.rejected or ""], item.item_id), one)
            for one in decisions if one.outcome == "pair"]  # fmt: skip


def _stands(result: Result, told: set[tuple[bytes, bool]]) -> bool:
    """Whether nobody says the opposite of the same two answers elsewhere; where adjudicators spoke, they alone count.
    Two equal answers cannot be told apart, and stand."""
    if result.better == result.worse:
        return True
    ways = {better for better, adjudicated in told if adjudicated} or {better for better, _ in told}
    return ways == {result.better}


def _row(one: Decision) -> dict[str, Any]:
    pair = one.outcome == "pair"
    return {"outcome": one.outcome, "chosen": one.chosen, "rejected": one.rejected, "num_votes": one.num_votes,
            "for_chosen": one.for_chosen if pair else None, "agreement": one.agreement, "confidence": one.confidence,
            "margin": one.margin, "adjudicated": one.adjudicated}  # fmt: skip
