"""Annotators and judges in a job's report: their figures, why they are flagged, and what to do about it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from curation.annotation.records import DISCARDED, JUDGE, SUBMITTED
from curation.judging import UNPARSED
from curation.statistics import wilson_interval

if TYPE_CHECKING:
    from curation.voting.annotator_figures import Annotator, Bias, Share
    from curation.voting.vote_arrays import VoteArrays

# flag -> what to do next
NEXT = {
    "adversarial": "Read some of the answers together: a question that was read the wrong way round is soon mended; "
                   "until then leave this annotator out.",
    "random": "Leave this annotator out, and see what is amiss before asking for more.",
    "weak": "Go through the disagreements together, or resolve with method: dawid_skene, which weighs voters.",
    "position_biased": "Ask this annotator to read both answers before choosing; method: dawid_skene allows for the "
                       "habit, a majority does not.",
    "fast": "Ask how these votes were made, and look at accuracy on gold items before counting them.",
    "constant": "Leave this annotator out: such votes tell nothing of the items.",
}  # fmt: skip


def figure(value: float | None, interval: Any, count: int | None = None) -> dict[str, Any]:
    """A value with its interval, as a report has it: `value`, `low`, `high`, and of a share the number `n` it is of."""
    low, high = (None, None) if interval is None else interval
    return {"value": value, "low": low, "high": high} | ({} if count is None else {"n": count})


def share_figure(share: Share) -> dict[str, Any] | None:
    """A share with its interval; None where nothing was there to count."""
    return figure(share.value, share.interval, share.num) if share.num else None


def bias_figure(bias: Bias) -> dict[str, Any] | None:
    """A share of choices, beside it that without preference (`chance`) and that of the others (`expected`)."""
    found = share_figure(bias.share)
    return found and found | {"chance": bias.by_chance, "expected": bias.expected, "p_value": bias.p_value}


def people(found: Sequence[Annotator]) -> list[dict[str, Any]]:
    """Figures and flags of every person, in the order of their names."""
    return [_figures(one) | {"flags": [_flag(flag) for flag in one.flags]} for one in found if not one.judge]


def _figures(one: Annotator) -> dict[str, Any]:
    length = one.logit.coefficients.get("length")
    return {
        "annotator": one.name, "votes": one.num_votes, "discarded": one.num_discarded, "drafts": one.num_drafts,
        "compared": one.match.num, "agreement": share_figure(one.consensus),
        "kappa": None if one.match.kappa is None else figure(one.match.kappa, one.match.interval),
        "gold": share_figure(one.gold), "retest": share_figure(one.retest),
        "same_slot_again": share_figure(one.retest_same_slot), "slot_a": bias_figure(one.slot_a),
        "longer": bias_figure(one.longer), "length_logit": None if length is None else figure(*length),
        "seconds": one.median_seconds, "too_fast": share_figure(one.too_fast), "top_answer": one.top_answer,
        "top": share_figure(one.top), "longest_run": one.longest_run, "entropy_bits": one.entropy_bits,
        "ties": one.ties.value, "both_bad": one.both_bad.value,
    }  # fmt: skip


def _flag(flag: Any) -> dict[str, Any]:
    why = flag.why[:1].upper() + flag.why[1:] + "."
    return {"flag": flag.name.replace("_", " "), "p_value": flag.p_value, "why": why, "next": NEXT[flag.name]}


def judges(found: Sequence[Annotator], votes: pa.Table) -> list[dict[str, Any]]:
    """Figures of every judge beside the median person's. `consistent`: of the items on which it could be read in both
    slot orders, those where it said the same; only these are votes. `unread`: items on which it could not."""
    asked: dict[str, Counter[str]] = {}
    columns = (votes[name].to_pylist() for name in ("annotator", "kind", "status", "values"))
    for name, kind, status, values in zip(*columns, strict=True):
        if kind == JUDGE and status in (SUBMITTED, DISCARDED):
            unread = status == DISCARDED and (orjson.loads(values or "{}") or {}).get("outcome") == UNPARSED
            asked.setdefault(name, Counter())["unread" if unread else status] += 1
    typical = [one.consensus.value for one in found if not one.judge and one.consensus.value is not None]
    told = []
    for one in (one for one in found if one.judge):
        counts = asked.get(one.name, Counter())
        read = counts[SUBMITTED] + counts[DISCARDED]
        same = figure(counts[SUBMITTED] / read, wilson_interval(counts[SUBMITTED], read), read) if read else None
        told.append(_figures(one) | {"asked": counts.total(), "unread": counts["unread"], "consistent": same,
                                     "people": statistics.median(typical) if typical else None})  # fmt: skip
    return told


def calibration(votes: VoteArrays) -> list[dict[str, Any]]:
    """What changed from calibration rounds to main rounds, of all people together and of each: agreement beyond chance
    and accuracy on gold items (see annotator_changes), and what the interval of the change says."""
    from curation.voting.annotator_changes import calibration_changes

    judged = {name for name, judge in zip(votes.annotators, votes.judge_A.tolist(), strict=True) if judge}
    found = []
    for one in calibration_changes(votes):
        alpha = "alpha" if one.annotator == "all" else "kappa with the others"
        for title, unit, change in ((alpha, "coefficient", one.agreement), ("gold right", "share", one.gold)):
            if one.annotator not in judged and change.difference is not None and change.interval is not None:
                low, high = change.interval
                verdict = "better" if low > 0 else "worse" if high < 0 else "cannot be told"
                found.append({"annotator": one.annotator, "figure": title, "unit": unit, "before": change.before,
                              "after": change.after, "votes": [one.num_before, one.num_after],
                              "change": figure(change.difference, change.interval), "verdict": verdict})  # fmt: skip
    return found
