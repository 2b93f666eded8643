"""What is told of one annotator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from curation.statistics import Interval, PairedLogit
from curation.voting.vote_consensus import Match


class Share(NamedTuple):
    """`hits` of `num`, with an interval of 95 %; no value without any."""

    hits: int
    num: int
    value: float | None
    interval: Interval


class Bias(NamedTuple):
    """How often a choice fell on one side (`share`, Clopper-Pearson's interval). `by_chance` is the share without any
    preference, by the items' numbers of slots; `expected` the share among the others' votes on the same items, None
    where they have none. `p_value` is that of no bias: exact against chance and paired against the others' votes (the
    larger p), or the latter alone where chance says nothing; None where it cannot be told."""

    share: Share
    by_chance: float | None
    expected: float | None
    p_value: float | None


class Flag(NamedTuple):
    """What is wrong with an annotator: `random`, `weak`, `adversarial`, `position_biased`, `fast` or `constant`; the
    p-value is adjusted over the annotators by Holm's procedure; `why` gives the figures in words."""

    name: str
    p_value: float
    why: str


@dataclass(frozen=True)
class Annotator:
    """One annotator's figures.

    consensus: votes that equal what most of the others said of the item; items without one answer that most gave are
    left out. match: agreement with the others beyond chance, see vote_consensus.match. gold: right verdicts on gold
    items. retest: equal verdicts on an item and its repetition; retest_same_slot: repetitions in the other order in
    which the same slot was chosen again. slot_a: choices (no ties) of the candidate in slot A. longer: choices of the
    longer of two candidates; logit: log-odds of being chosen by length, slot and the others' votes together
    (statistics.paired_logit). too_fast: votes at over 90 characters a second. top: the commonest answer by slot
    (`A`, `B`, `tie`, `both_bad`) and its share; top_expected the others' share of it. longest_run: equal answers by
    slot in a row, in the order of answering; entropy_bits of the answers by slot, 0..2 for two candidates."""

    name: str
    judge: bool
    num_votes: int
    num_discarded: int
    num_drafts: int
    consensus: Share
    match: Match
    gold: Share
    retest: Share
    retest_same_slot: Share
    slot_a: Bias
    longer: Bias
    logit: PairedLogit
    median_seconds: float | None
    too_fast: Share
    top_answer: str | None
    top: Share
    top_expected: float | None
    longest_run: int
    entropy_bits: float | None
    ties: Share
    both_bad: Share
    flags: tuple[Flag, ...] = ()
