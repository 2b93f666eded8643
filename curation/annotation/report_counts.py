"""What became of a job's items and votes, and what that cost: the counts of its report. Pure functions over ITEMS,
VOTES (an annotator's last answers, see store.current) and RESOLVED."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from curation.annotation.records import JUDGE, PERSON, SUBMITTED

TOO_LITTLE = 20  # votes under which no time per vote is projected


class Plan(NamedTuple):
    """What was asked for in a round, as it was frozen with it."""

    job: str
    round: str
    edition: str = ""
    questions: tuple[Mapping[str, Any], ...] = ()
    guidelines: str = ""
    annotators_per_item: int | None = 3  # None: votes came from elsewhere, nobody was asked for a number
    price_per_vote: float | None = None
    currency: str = "EUR"
    budget_items: int | None = None
    budget_votes: int | None = None


def first_items(items: pa.Table) -> dict[str, str]:
    """item_id -> the item that it repeats or decides, at last; its own id where it does neither."""
    of_item = dict(zip(items["item_id"].to_pylist(), items["of_item"].to_pylist(), strict=True))
    found = {}
    for item in of_item:
        first, seen = item, {item}
        while (before := of_item.get(first)) is not None and before not in seen:
            seen.add(before)
            first = before
        found[item] = first
    return found


def round_counts(items: pa.Table, votes: pa.Table, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Of each round: items by role, how many are `answered` (by a person) and `complete` (by as many as were asked
    for), votes of people by status, votes of judges, and the votes that are left. In the order of `plans`."""
    roles = _grouped(items, "job", "round", "role")
    status = _grouped(votes, "job", "round", "kind", "status")
    each = Counter(zip(*(votes[name].to_pylist() for name in ("item_id", "kind", "status")), strict=True))
    of_round: dict[tuple[str, str], list[int]] = {}
    for item, job, name in zip(*(items[name].to_pylist() for name in ("item_id", "job", "round")), strict=True):
        of_round.setdefault((job, name), []).append(each[item, PERSON, SUBMITTED])
    found = []
    for plan in plans:
        of = (plan.job, plan.round)
        counts, wanted = of_round.get(of, []), plan.annotators_per_item
        found.append({
            "job": plan.job, "round": plan.round, "edition": plan.edition, "items": len(counts),
            "gold": roles[*of, "gold"], "retests": roles[*of, "retest"], "annotators_per_item": wanted,
            "answered": sum(count > 0 for count in counts),
            "complete": None if wanted is None else sum(count >= wanted for count in counts),
            **{name: status[*of, PERSON, name] for name in ("submitted", "discarded", "draft")},
            "judge_votes": sum(number for key, number in status.items() if key[:3] == (*of, JUDGE)),
            "votes_left": sum(max(0, (wanted or 0) - count) for count in counts),
        })  # fmt: skip
    return found


def _grouped(table: pa.Table, *names: str) -> Counter[tuple[Any, ...]]:
    return Counter(zip(*(table[name].to_pylist() for name in names), strict=True))


def funnel(items: pa.Table, votes: pa.Table, resolved: pa.Table) -> list[dict[str, Any]]:
    """Steps from items to pairs, each with what is `left` and what was `lost` on the way to it. An item counts once:
    its retests and adjudications are folded into it. Gold items become no pair, nor does an item that a later round
    asks again. Without anything resolved the steps end at the answers."""
    first = first_items(items)
    role = dict(zip(items["item_id"].to_pylist(), items["role"].to_pylist(), strict=True))
    firsts = {item for item in first.values() if first.get(item) == item}
    asked = zip(*(votes[name].to_pylist() for name in ("item_id", "kind", "status")), strict=True)
    answered = {first.get(item) for item, kind, status in asked if (kind, status) == (PERSON, SUBMITTED)}
    outcome = dict(zip(resolved["item_id"].to_pylist(), resolved["outcome"].to_pylist(), strict=True))
    gold = {item for item in firsts if role[item] == "gold"}
    again = firsts - gold - outcome.keys() if outcome else set()
    open_items = firsts - gold - again
    counts = Counter(outcome.get(item) for item in open_items & answered)
    lost: list[tuple[str, dict[str, int]]] = [
        ("items", {}), ("to decide", {"gold": len(gold), "asked again": len(again)}),
        ("answered", {"no vote yet": len(open_items - answered)})]  # fmt: skip
    if outcome:
        lost += [("enough votes", {"too few votes": counts["too_few"]}), ("agreed", {"disputed": counts["disputed"]}),
                 ("pairs", {"tie": counts["tie"], "both bad": counts["both_bad"]})]  # fmt: skip
    steps, left = [], len(firsts)
    for name, why in lost:
        left -= sum(why.values())
        steps.append({"step": name, "left": left, "lost": {key: count for key, count in why.items() if count}})
    return steps


def left_at(steps: Sequence[Mapping[str, Any]], name: str) -> int:
    """Items left at a step of `funnel`; 0 where it does not come to that step."""
    return int(next((step["left"] for step in steps if step["step"] == name), 0))


def cost(rounds: Sequence[Mapping[str, Any]], plans: Sequence[Plan], steps: Sequence[Mapping[str, Any]], job: str
         ) -> dict[str, Any]:  # fmt: skip
    """What submitted votes of people cost: so far, to finish the job's newest round (`round_left` votes) and the
    adjudications, and for each pair kept. A price is a round's own; an amount is null where votes have no price, or
    prices of several currencies. Of the items of `funnel` that do not have enough votes yet, the same share is taken to
    become pairs as of those that have."""
    pairs, enough = left_at(steps, "pairs"), left_at(steps, "enough votes")
    newest = next((plan for plan in reversed(plans) if plan.job == job), Plan(job, ""))
    every = list(zip(rounds, plans, strict=True))
    last = next((item for item, plan in every if plan is newest), {"items": 0, "votes_left": 0, "submitted": 0})
    coming = [(item["votes_left"], plan.price_per_vote) for item, plan in every if plan is newest or plan.job != job]
    done = sum(item["submitted"] for item in rounds)
    mixed = len({plan.currency for plan in plans if plan.price_per_vote is not None}) > 1
    known = newest.price_per_vote is not None and not mixed
    spent = _amount([(item["submitted"], plan.price_per_vote) for item, plan in every]) if done and not mixed else None
    finish = _amount(coming) if known else None
    total = None if spent is None or finish is None else spent + finish
    projected = round(pairs / enough * left_at(steps, "to decide")) if enough else None
    return {
        "currency": newest.currency, "mixed_currencies": mixed, "price_per_vote": newest.price_per_vote, "votes": done,
        "round_left": last["votes_left"], "votes_left": sum(count for count, _ in coming), "spent": spent,
        "to_finish": finish, "projected": total, "pairs": pairs, "votes_per_pair": done / pairs if pairs else None,
        "per_pair": spent / pairs if spent is not None and pairs else None, "projected_pairs": projected,
        "projected_per_pair": total / projected if total is not None and projected else None,
        "budget_items": newest.budget_items, "budget_items_used": last["items"],
        "budget_votes": newest.budget_votes, "budget_votes_used": last["submitted"],
        "over_budget": newest.budget_votes is not None and last["submitted"] > newest.budget_votes,
    }  # fmt: skip


def _amount(counts: Sequence[tuple[int, float | None]]) -> float | None:
    """Votes times their prices; None where votes have no price."""
    if any(count and price is None for count, price in counts):
        return None
    return round(sum(count * (price or 0.0) for count, price in counts), 6)


def speed(votes: pa.Table, votes_left: int) -> dict[str, Any]:
    """Seconds per submitted vote of people where that is known (median, and the quarter of votes above and below), the
    hours that they make, the days (UTC) on which votes came, and what is left at this pace."""
    rows = zip(*(votes[name].to_pylist() for name in ("kind", "status", "seconds", "answered_at")), strict=True)
    mine = [(seconds, at) for kind, status, seconds, at in rows if (kind, status) == (PERSON, SUBMITTED)]
    seconds = [value for value, _ in mine if value is not None]
    days = sorted({at[:10] for _, at in mine if at})
    dated = sum(bool(at) for _, at in mine)
    enough = len(seconds) >= TOO_LITTLE
    quarters = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else None
    per_day = dated / len(days) if days else None
    return {
        "votes": len(mine), "known_seconds": len(seconds), "median_seconds": quarters[1] if quarters else None,
        "quarter_seconds": [quarters[0], quarters[2]] if quarters else None,
        "hours": math.fsum(seconds) / 3600 if seconds else None,
        "hours_left": votes_left * statistics.fmean(seconds) / 3600 if enough else None,
        "first_day": days[0] if days else None, "last_day": days[-1] if days else None, "days": len(days),
        "votes_per_day": per_day, "days_left": votes_left / per_day if per_day and dated >= TOO_LITTLE else None,
    }  # fmt: skip
