"""Which annotators cannot be relied on: tests over their figures, each corrected over all annotators (Holm 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curation.statistics import ALPHA, holm
from curation.voting.annotator_figures import Annotator, Flag
from curation.voting.vote_consensus import Others

FEWEST_VOTES = 10
LEAST_TYPICAL = 0.1  # kappa of the typical annotator under which there is no agreement to hold anybody to
NOT_CHANCE = 0.01  # level at which agreement is told from chance, to acquit; not corrected
LEAST_BIAS = 0.10  # share beyond chance under which a position bias is not worth a flag
FAST_SHARE = 0.2  # share of votes that may be implausibly fast
SAME_SHARE = 0.8  # share of equal answers by slot that may pass
BEYOND_OTHERS = 0.2  # and how far it must exceed the others' share on the same items


def flagged(found: Sequence[Annotator], beside: Others) -> list[tuple[Flag, ...]]:
    """Every annotator's flags. An annotator is flagged at 5 % over all annotators together, and never on fewer than ten
    votes.

    adversarial: agrees less with the others than chance. random: agrees less than the typical annotator (the median of
    the people's kappas), and not above chance at 1 %. weak: agrees less than half as much as the typical one, though
    above chance. position_biased: chooses slot A (or another) at a rate that neither drawn slots nor the others' votes
    explain, by .10 and more. fast: more than a fifth of the votes at over 90 characters a second. constant: more than
    .80 of the answers by slot are the same, .20 more than the others gave it. An annotator who is constant or position
    biased is not called random or weak beside: it is the same thing seen twice.

    Most of the annotators must be good: where most are not, their consensus is worth nothing. Where the typical kappa
    is under .1, nobody is called adversarial, random or weak, since there is nothing to hold them to."""
    agreeing = beside.typical >= LEAST_TYPICAL
    tests = {
        "adversarial": [_p(-one.match.z if agreeing and one.match.z is not None else None) for one in found],
        "random": [_below(one, beside.typical) if agreeing else 1.0 for one in found],
        "weak": [_below(one, beside.typical / 2) if agreeing else 1.0 for one in found],
        "position_biased": [_position(one) for one in found],
        "fast": [_fast(one) for one in found],
        "constant": [_constant(one) for one in found],
    }
    adjusted = {name: holm(values)[0] for name, values in tests.items()}
    return [_flags(one, {name: float(values[place]) for name, values in adjusted.items()})
            for place, one in enumerate(found)]  # fmt: skip


def _flags(one: Annotator, p_values: dict[str, float]) -> tuple[Flag, ...]:
    found = {name for name, p_value in p_values.items() if p_value < ALPHA and one.num_votes >= FEWEST_VOTES}
    if "adversarial" in found or found & {"position_biased", "constant"}:
        found -= {"random", "weak"}
    above = _p(one.match.z) < NOT_CHANCE
    found -= {"random"} if above else {"weak"}
    return tuple(Flag(name, p_values[name], _why(name, one)) for name in p_values if name in found)


def _p(z: float | None) -> float:
    """One-sided p-value of a standard normal as large as z; 1 where there is none."""
    return 1.0 if z is None else 0.5 * math.erfc(z / math.sqrt(2))


def _below(one: Annotator, typical: float) -> float:
    """P-value that the kappa is `typical` or more."""
    from scipy import special

    if one.match.kappa is None or one.match.error is None:
        return 1.0
    return float(special.stdtr(one.match.num - 1, (one.match.kappa - typical) / one.match.error))


def _position(one: Annotator) -> float:
    share, chance, p_value = one.slot_a.share.value, one.slot_a.by_chance, one.slot_a.p_value
    if share is None or chance is None or p_value is None or abs(share - chance) < LEAST_BIAS:
        return 1.0
    if one.slot_a.expected is not None and (share - one.slot_a.expected) * (share - chance) <= 0:
        return 1.0
    return p_value


def _fast(one: Annotator) -> float:
    return 1.0 if one.judge else _more(one.too_fast.hits, one.too_fast.num, FAST_SHARE)


def _constant(one: Annotator) -> float:
    if one.top_expected is not None and (one.top.value or 0) - one.top_expected < BEYOND_OTHERS:
        return 1.0
    return _more(one.top.hits, one.top.num, SAME_SHARE)


def _more(count: int, num: int, share: float) -> float:
    """Exact one-sided p-value that the share is not above `share`."""
    from scipy import special

    return float(special.bdtrc(count - 1, num, share)) if count else 1.0


def _why(name: str, one: Annotator) -> str:
    kappa = f"kappa with the others {one.match.kappa or 0:.2f} on {one.match.num} votes"
    return {
        "adversarial": f"agrees less with the others than chance: {kappa}",
        "random": f"does not agree with the others above chance: {kappa}",
        "weak": f"agrees far less with the others than is typical: {kappa}",
        "position_biased": f"chose slot A in {one.slot_a.share.hits} of {one.slot_a.share.num} choices",
        "fast": f"{one.too_fast.hits} of {one.too_fast.num} votes came faster than one can read",
        "constant": f"gave the answer {one.top_answer} in {one.top.hits} of {one.top.num} votes",
    }[name]
