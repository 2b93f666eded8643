"""All figures of an annotation job's report, as one mapping that the page, the terminal and `--json` share. Pure: what
the lake holds comes in as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.annotation import report_words
from curation.annotation.report_counts import Plan, cost, first_items, funnel, round_counts, speed
from curation.annotation.report_items import worst
from curation.annotation.report_people import calibration, figure, judges, people
from curation.annotation.store import current
from curation.voting.vote_arrays import ORDINAL, RANKING, VERDICT, VoteArrays, arrays

MOST_POINTS = 12  # on the plot over time
BATCHES = (10, 20, 25, 50, 100, 200, 250, 500)
GROUPS = ("round", "source", "topic")
MOST_GROUPS = 20


@dataclass(frozen=True)
class Evidence:
    """What a report is made of. `items` and `votes` are the job's, of all its rounds, and those of adjudications of its
    items; `plans` their rounds in order. `resolved` is what the resolution named by `resolution` makes of the votes as
    they are, empty where it cannot, and `resolved_by` says how, or why not. `source` is the preference source that it
    writes; `stale`: it was not written since the votes changed. `contradictions` and `cycles` are ids of items whose
    results cannot all be right, `answers` says what was written and edited."""

    job: str
    items: pa.Table
    votes: pa.Table
    resolved: pa.Table
    plans: Sequence[Plan]
    resolution: str = ""
    resolved_by: str = ""
    source: str = ""
    stale: bool = False
    contradictions: Sequence[tuple[str, ...]] = ()
    cycles: Sequence[tuple[str, ...]] = ()
    answers: str = ""


def study(evidence: Evidence) -> dict[str, Any]:
    """The figures of the report. Shares are 0..1, times in seconds; a figure with an interval is a mapping of `value`,
    `low`, `high` (95 %) and, where it is a share, `n`; what is not known is null."""
    from curation.voting.annotators import annotators

    items, votes = evidence.items, current(evidence.votes)
    votes = votes.filter(pc.is_in(votes["item_id"], items["item_id"].combine_chunks()))
    made = arrays(items, votes)
    voters = annotators(made)
    rounds = [item | {"name": item["round"] if item["job"] == evidence.job else f"{item['job']} {item['round']}"}
              for item in round_counts(items, votes, evidence.plans)]  # fmt: skip
    own = [plan for plan in evidence.plans if plan.job == evidence.job]
    newest = own[-1] if own else Plan(evidence.job, "")
    steps = funnel(_resolvable(items, evidence.resolved), votes, evidence.resolved)
    paid = cost(rounds, evidence.plans, steps, evidence.job)
    found: dict[str, Any] = {
        "job": evidence.job, "round": newest.round, "edition": newest.edition, "guidelines": newest.guidelines,
        "questions": [dict(question) for question in newest.questions], "rounds": rounds, "funnel": steps,
        "resolved": evidence.resolved.num_rows > 0, "resolution": evidence.resolution, "source": evidence.source,
        "resolved_by": evidence.resolved_by, "stale": evidence.stale, "answers": evidence.answers,
        "agreement": agreements(made, newest), "over_time": over_time(made), "annotators": people(voters),
        "judges": judges(voters, votes), "calibration": calibration(made), "cost": paid,
        "speed": speed(votes, paid["votes_left"]), "worst": worst(items, votes, evidence.resolved),
        "contradictions": [list(pair) for pair in evidence.contradictions],
        "cycles": [list(circle) for circle in evidence.cycles],
    }  # fmt: skip
    found["verdict"] = report_words.verdict(found)
    found["findings"] = report_words.findings(found)
    found["cost_lines"] = report_words.cost_lines(found)
    found["untold"] = report_words.untold(found)
    found["next"] = report_words.next_steps(found)
    return found


def _resolvable(items: pa.Table, resolved: pa.Table) -> pa.Table:
    """The items of the rounds that are resolved: the main ones and whatever was; all, where there is no such round. An
    adjudication belongs to the item that it decides."""
    first = first_items(items)
    round_of = dict(zip(items["item_id"].to_pylist(), items["round"].to_pylist(), strict=True))
    rounds = {name for name in round_of.values() if name.startswith("main")} | {*resolved["round"].to_pylist()}
    mine = [round_of.get(first[item]) in rounds for item in round_of]
    return items.filter(pa.array(mine, pa.bool_())) if any(mine) else items


def agreements(votes: VoteArrays, plan: Plan) -> list[dict[str, Any]]:
    """Agreement of people on every question, and on the first of them by round, source and topic where there is more
    than one. `alpha` is ordinal for ratings and rankings; `problem` says why there is none."""
    from curation.voting.agreement import agreement

    by_question = agreement(votes, "question")
    if len(votes.label_names) == 4 and VERDICT in by_question:
        by_question.pop(RANKING, None)  # of two candidates the ranking says what the verdict says
    names = {VERDICT: next((item["name"] for item in plan.questions if item["kind"] in ("preference", "ranking")),
                           VERDICT)}  # fmt: skip
    found = []
    for question, made in by_question.items():
        found.append(_agreement(made, names.get(question, question), "all", ""))
        if question == next(iter(by_question)):
            for by in GROUPS:
                groups = agreement(votes, by, question=question)
                if len(groups) > 1:
                    found += [_agreement(group, names.get(question, question), by, value)
                              for value, group in list(groups.items())[:MOST_GROUPS]]  # fmt: skip
    return found


def _agreement(made: Any, question: str, by: str, value: str) -> dict[str, Any]:
    ordinal = made.level == ORDINAL
    alpha = made.alpha_ordinal if ordinal else made.alpha
    coefficients = {"pairwise": made.pairwise, "cohen": made.cohen_weighted if ordinal else made.cohen,
                    "fleiss": None if ordinal else made.fleiss, "alpha": alpha}  # fmt: skip
    told = {name: None if one is None or one.value is None else figure(one.value, one.interval)
            for name, one in coefficients.items()}  # fmt: skip
    return {"question": question, "scale": made.level, "by": by, "value": value, "items": made.num_items,
            "shared": made.num_shared, "votes": made.num_answers, "annotators": made.num_annotators,
            "problem": alpha.reason if alpha.value is None else None, **told}  # fmt: skip


def over_time(votes: VoteArrays) -> list[dict[str, Any]]:
    """Agreement on the verdict (else on the first question) in groups of items, in the order in which their last votes
    came; at most 12 groups."""
    from curation.voting.agreement import agreement

    if not votes.answers:
        return []
    question = VERDICT if VERDICT in votes.answers else next(iter(votes.answers))
    answered = len({*votes.items_V.tolist()})
    batch = next((size for size in BATCHES if size * MOST_POINTS >= answered), -(-answered // MOST_POINTS))
    found = []
    for name, made in agreement(votes, "batch", question=question, batch=batch).items():
        first, last = (int(number) for number in name.split("-"))
        told = _agreement(made, question, "batch", f"{first}–{last}")
        found.append({"label": told["value"], "first": first, "last": last,
                      **{key: told[key] for key in ("items", "votes", "pairwise", "alpha")}})  # fmt: skip
    return found
