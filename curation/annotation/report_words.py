"""What a job's report says in words: the verdict, what was found, what the cost means, what cannot be told yet and what
to do next. Everything is said of figures that report_study made; nothing is computed from votes here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from curation.annotation.report_counts import TOO_LITTLE, left_at

Study = Mapping[str, Any]
WIDE, NARROW = 0.1, 0.05  # half an interval of alpha that says little, and one that says enough
FEW = 20  # items that a person shares with others under which little is known of them


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 item`, `1,200 items`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short(key: str) -> str:
    """A candidate's key or a verdict as it is shown: of an id its first 12 characters."""
    return key[:12] if len(key) == 32 else key.replace("_", " ")


def of_items(study: Study, question: str | None = None) -> Mapping[str, Any] | None:
    """The agreement on a question over everything; by default on the first question, the verdict where one is asked."""
    return next((item for item in study["agreement"] if item["by"] == "all" and question in (None, item["question"])),
                None)  # fmt: skip


def flagged(study: Study) -> list[Mapping[str, Any]]:
    """Annotators with a flag."""
    return [item for item in study["annotators"] if item["flags"]]


def verdict(study: Study) -> dict[str, str]:
    """One line, and its style: `warn` where something must be looked at, `pass` where the newest round is complete and
    nothing is to be looked at, else `info`."""
    items, votes = left_at(study["funnel"], "items"), study["cost"]["votes"]
    if not items:
        return {"text": "the job has no items yet", "style": "info"}
    if not votes:
        return {"text": f"{counted(items, 'item')}, and no answer yet", "style": "info"}
    parts = [f"{counted(votes, 'vote')} on {counted(items, 'item')}, not resolved yet"]
    if study["resolved"]:
        parts = [f"{counted(left_at(study['funnel'], 'pairs'), 'pair')} from {counted(items, 'item')}"]
    overall = of_items(study)
    if overall and overall["alpha"]:
        low, high = overall["alpha"]["low"], overall["alpha"]["high"]
        limits = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        parts.append(f"alpha {overall['alpha']['value']:.2f}{limits}")
    people = len(study["annotators"])
    if flagged(study):
        parts.append(f"{len(flagged(study))} of {counted(people, 'annotator')} to look at")
    left = study["cost"]["round_left"]
    parts.append(f"{counted(left, 'vote')} of {study['round']} left" if left else f"{study['round']} is complete")
    warn = bool(flagged(study)) or study["cost"]["over_budget"]
    return {"text": "; ".join(parts), "style": "warn" if warn else "info" if left or not study["resolved"] else "pass"}


def findings(study: Study) -> list[str]:
    """What stands out, the weightiest first."""
    found = [f"{one['annotator']}: {', '.join(flag['flag'] for flag in one['flags'])}" for one in flagged(study)]
    overall = of_items(study)
    if overall and overall["alpha"] and overall["alpha"]["low"] is not None and overall["alpha"]["low"] <= 0:
        found.append(f"agreement on {overall['question']} is not surely above chance")
    found += [f"agreement on {item['question']} differs: {item['by']} {item['value']} has alpha "
              f"{item['alpha']['value']:.2f}, all together {overall['alpha']['value']:.2f}" for item in apart(study)
              if overall and overall["alpha"]]  # fmt: skip
    lost = {name: count for step in study["funnel"] for name, count in step["lost"].items()}
    if lost.get("disputed"):
        found.append(f"{counted(lost['disputed'], 'item')} disputed: the votes do not decide")
    for what, groups in (("pairs of items judge the same two answers both ways", study["contradictions"]),
                         ("circles of items have no best answer", study["cycles"])):  # fmt: skip
        if groups:
            found.append(f"{len(groups):,} {what}")
    if study["cost"]["over_budget"]:
        found.append(f"{study['cost']['budget_votes_used']:,} votes were given, and the budget was "
                     f"{study['cost']['budget_votes']:,}")  # fmt: skip
    return found


def apart(study: Study) -> list[Mapping[str, Any]]:
    """Groups whose alpha surely differs from that of everything: the intervals do not meet."""
    found = []
    for item in study["agreement"]:
        overall = of_items(study, item["question"])
        a, b = item["alpha"], overall["alpha"] if overall else None
        if item["by"] not in ("source", "topic", "round") or not (a and b) or a["low"] is None or b["low"] is None:
            continue
        if a["high"] < b["low"] or a["low"] > b["high"]:
            found.append(item)
    return found


def cost_lines(study: Study) -> list[str]:
    """The price, the budget and the pace, in sentences."""
    cost, speed, name = study["cost"], study["speed"], study["round"]
    lines = []
    if cost["price_per_vote"] is None:
        lines.append("No price is known: budget: {price_per_vote: ...} in the job's header gives amounts.")
    elif cost["mixed_currencies"]:
        lines.append("The rounds are priced in several currencies, so there is no sum.")
    elif cost["votes"]:
        price = f"{cost['currency']} {cost['price_per_vote']:,.2f}"
        lines.append(f"Every submitted vote of a person costs {price} in {name}, those on gold items and retests too; "
                     "discarded answers cost nothing here.")  # fmt: skip
    if cost["votes_per_pair"] is not None:
        lines.append(f"{cost['votes_per_pair']:.1f} votes for each pair kept.")
    used = [f"{cost[f'budget_{what}_used']:,} of {cost[f'budget_{what}']:,} {what}" for what in ("items", "votes")
            if cost[f"budget_{what}"] is not None]  # fmt: skip
    lines.append(f"Budget of {name} used: {', '.join(used)}." if used else f"{name} has no budget.")
    if speed["median_seconds"] is not None:
        low, high = speed["quarter_seconds"]
        known = ""
        if speed["known_seconds"] < speed["votes"]:
            known = f", as far as times are known ({speed['known_seconds']:,} of {counted(speed['votes'], 'vote')})"
        lines.append(f"A vote takes {speed['median_seconds']:.0f} s in the median, half of them {low:.0f} to "
                     f"{high:.0f} s{known}.")  # fmt: skip
    if speed["days"]:
        when = f"on {speed['first_day']}" if speed["days"] == 1 else (
            f"on {speed['days']} days from {speed['first_day']} to {speed['last_day']}")  # fmt: skip
        pace = f"Votes came {when}, {speed['votes_per_day']:.0f} a day"
        days = speed["days_left"]
        left = f"; at this pace {name} needs {counted(math.ceil(days), 'such day')} more" if days else ""
        lines.append(pace + left + ".")
    return lines


def untold(study: Study) -> list[str]:
    """What the votes do not say yet, and what would make them say it."""
    lines = []
    overall, cost, people = of_items(study), study["cost"], study["annotators"]
    if not cost["votes"]:
        return ["Agreement, annotators and cost: nobody has submitted a vote."]
    if overall is None or not overall["alpha"]:
        lines.append("Agreement: " + (overall["problem"] if overall and overall["problem"] else
                     "no item has the votes of two people; set annotators_per_item to 2 or more") + ".")  # fmt: skip
    elif overall["alpha"]["low"] is not None:
        half = (overall["alpha"]["high"] - overall["alpha"]["low"]) / 2
        if half > WIDE:
            need = math.ceil(overall["items"] * (half / NARROW) ** 2)
            lines.append(f"Alpha is known to ±{half:.2f} only; some {need:,} items with two votes, in place of "
                         f"{overall['items']:,}, would make that ±{NARROW:.2f}.")  # fmt: skip
    few = [item["annotator"] for item in people if 0 < item["compared"] < FEW]
    if few:
        lines.append(f"{', '.join(few)}: fewer than {FEW} items answered by somebody else too, so a bad annotator "
                     "could go unseen.")  # fmt: skip
    for name, what, how in (
        ("gold", "Accuracy: nobody answered an item whose verdict is known", "set gold_share, and give the query a "
         "column `gold`"),
        ("retest", "Consistency: nobody answered an item twice", "set retest_share"),
        ("slot_a", "Position bias: the slots of the answers are not known", "push the items, or give the slots with "
         "the votes"),
        ("longer", "Length bias: no vote chose between answers of different lengths", ""),
    ):  # fmt: skip
        if not any(item[name] for item in people):
            lines.append(what + (f"; {how}" if how else "") + ".")
    if study["speed"]["known_seconds"] < TOO_LITTLE:
        lines.append(f"Speed: the time is known of {counted(study['speed']['known_seconds'], 'vote')} only.")
    if not study["judges"]:
        lines.append(f"A judge beside people: no judge answered; kedge annotate add {study['job']} --judge.")
    if not any(item["round"].startswith("calibration") for item in study["rounds"]):
        lines.append("What calibration changes: there was no calibration round.")
    elif not study["calibration"]:
        lines.append("What calibration changed: nobody has answered enough items both in it and after it.")
    return lines


def next_steps(study: Study) -> list[dict[str, str]]:
    """What to do next: `why`, and the `command` to type."""
    job, cost, round_name = study["job"], study["cost"], study["round"]
    lost = {name: count for step in study["funnel"] for name, count in step["lost"].items()}
    steps: list[tuple[str, str]] = []
    if not left_at(study["funnel"], "items") or not cost["votes"]:
        return [{"why": "Send the items, then follow the answers", "command": f"kedge annotate push {job}"},
                {"why": "Fetch the answers", "command": f"kedge annotate pull {job}"}]  # fmt: skip
    if cost["round_left"]:
        steps.append((f"{counted(cost['round_left'], 'vote')} of {round_name} left: fetch what came since",
                      f"kedge annotate pull {job}"))  # fmt: skip
    if study["resolved"] and study["stale"]:
        steps.append((f"The source {study['source']} is not what the votes say now",
                      f"kedge annotate resolve {study['resolution']}"))  # fmt: skip
    bad = [item["annotator"] for item in flagged(study)]
    if bad:
        steps.append((f"Look at the flagged annotators' answers; to leave them out, write catalogs/resolutions/"
                      f"{job}_without.yaml with job: {job} and without: [{', '.join(bad)}]",
                      f"kedge annotate resolve {job}_without"))  # fmt: skip
    if lost.get("disputed"):
        steps.append((f"Let a lead decide the disputed items: write catalogs/annotations/{job}_adjudication.sql with "
                      f"round: adjudication and of: {job}, over SELECT item_id FROM resolved WHERE "
                      f"resolution = '{study['resolution'] or job}' AND outcome = 'disputed'",
                      f"kedge annotate push {job}_adjudication"))  # fmt: skip
    if round_name.startswith("calibration") and not cost["round_left"]:
        steps.append(("Calibration is complete: mend the guidelines where people disagree, then set round: main",
                      f"kedge annotate push {job}"))  # fmt: skip
    if study["resolved"] and not study["stale"]:
        steps.append(("The pairs are an ordinary source, for rules and mixtures", f"kedge show {study['source']}"))
    return [{"why": why, "command": command} for why, command in steps]
