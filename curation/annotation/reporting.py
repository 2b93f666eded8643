"""`kedge annotate report`: what became of a job, in the terminal, as a page and as JSON, from the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.annotation import store
from curation.annotation.records import ITEMS_KIND, RESOLVED, RESOLVED_KIND
from curation.annotation.report_counts import Plan
from curation.annotation.report_study import Evidence, study
from curation.annotation.report_words import counted, short
from curation.annotation.rounds import Round, rounds_of
from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, table
from curation.errors import UserError

NUM_SHOWN = 5  # of worst items in the terminal


def print_report(name: str, to: Path | None, as_json: bool) -> None:
    """Report on a job, or on what a resolution of it makes of its votes; with `to`, report.html and annotation.json are
    written there. Raises UserError for a name that is no job with items."""
    from curation.reports.page import finite

    made = study(evidence_of(Catalog(find_project()), name))
    if to is not None:
        from curation.reports.annotation import write

        write(made, to)
    if as_json:
        print_json(finite(made))
        return
    _print(made)
    if to is not None:
        out.print(f"{shown(to)}/report.html shows all of it", markup=False)


def evidence_of(catalog: Catalog, name: str) -> Evidence:
    """All that is known of the job that `name` means: a job, or a resolution of one. Adjudications of its items are
    jobs of their own and belong to it. A job is taken as it was resolved: under its own name, else under the first
    other one. Raises UserError."""
    from curation.annotation.resolution_files import load_resolution

    manifests = list(catalog.manifests("evidence", ITEMS_KIND))
    jobs = sorted({folder.name.partition(".")[0] for folder, _ in manifests})
    known = {str(manifest.parameters.get("plugin")): str(manifest.parameters.get("job"))
             for _, manifest in catalog.manifests("evidence", RESOLVED_KIND)}  # fmt: skip
    if name in jobs and name not in known:
        name = min((other for other, job in known.items() if job == name), default=name)
    name, resolution = load_resolution(catalog.project, name, jobs)
    job = resolution.job
    deciding = sorted({folder.name.partition(".")[0] for folder, manifest in manifests
                       if manifest.parameters.get("of") == job})  # fmt: skip
    rounds = [one for of in (job, *(other for other in deciding if other != job)) for one in rounds_of(catalog, of)]
    items = pa.concat_tables([one.items for one in rounds])
    votes = pa.concat_tables([store.read_votes(catalog, one.job, one.name) for one in rounds])
    return Evidence(job, items, votes, plans=[plan_of(one) for one in rounds], **_resolved(catalog, name, resolution))


def plan_of(one: Round) -> Plan:
    """What a round's manifest says was asked for."""
    asked, budget = one.parameters.get("annotators_per_item"), one.budget
    return Plan(one.job, one.name, one.edition, tuple(item.model_dump(mode="json") for item in one.questions),
                one.guidelines, None if asked is None else int(asked), budget.price_per_vote, budget.currency,
                budget.items, budget.votes)  # fmt: skip


def _resolved(catalog: Catalog, name: str, resolution: Any) -> dict[str, Any]:
    """What the votes as they are now come to, and how the lake's decisions stand to that."""
    from curation.annotation.resolve_command import prepare

    try:
        work = prepare(catalog, name, resolution)
    except UserError as error:  # nobody voted, or no round counts: the report says so and shows the rest
        why = "; ".join(problem.what for problem in error.problems)
        return {"resolved": RESOLVED.empty_table(), "resolution": name, "resolved_by": f"Nothing is resolved: {why}."}
    found = work.resolved
    how = f"{work.resolution.method.replace('_', '-')}, {counted(work.min_votes, 'vote')} or more an item"
    answers = [f"{counted(count, 'answer')} {what}" for count, what in (
        (work.written.num_written, "written"), (work.written.num_edited, "edited"),
        (work.written.num_unchanged, "left as they were")) if count]  # fmt: skip
    return {
        "resolved": found.table, "resolution": name, "resolved_by": f"Resolved as {name}: {how}.",
        "source": f"{resolution.source or name}_pairs", "answers": ", ".join(answers),
        "stale": not store.read(catalog, RESOLVED_KIND, RESOLVED, name).equals(found.table),
        "contradictions": found.conflicts.contradictions, "cycles": found.conflicts.cycles,
    }  # fmt: skip


def _print(made: Mapping[str, Any]) -> None:
    style = {"warn": "yellow", "pass": "green"}.get(made["verdict"]["style"])
    out.print(f"{made['job']}: {made['verdict']['text']}", style=style, markup=False)
    for line in made["findings"]:
        out.print(f"- {line}", markup=False)
    table("from items to pairs", ["step", "left", "lost"], [
        [step["step"], step["left"], ", ".join(f"{count:,} {why}" for why, count in step["lost"].items())]
        for step in made["funnel"]])  # fmt: skip
    _print_agreement(made)
    _print_annotators(made)
    changed = [[item["annotator"], item["figure"], f"{item['before']:.2f}", f"{item['after']:.2f}", item["verdict"]]
               for item in made["calibration"]
               if item["annotator"] == "all" or item["verdict"] in ("better", "worse")]  # fmt: skip
    if changed:
        table("what calibration changed", ["annotator", "figure", "before", "after", "so"], changed)
    worst = [[item["item_id"][:12], item["source"], item["topic"], item["agreement"],
              ", ".join(f"{count} {short(said)}" for said, count in item["said"].items()), item["outcome"]]
             for item in made["worst"][:NUM_SHOWN]]  # fmt: skip
    if worst:
        table("worst disagreements", ["item", "source", "topic", "agreement", "votes", "outcome"], worst)
    for line in [*made["cost_lines"], *_amounts(made["cost"]), *([made["answers"]] if made["answers"] else []),
                 *(f"cannot be told: {line}" for line in made["untold"]),
                 *(f"next: {step['why']}: {step['command']}" for step in made["next"])]:  # fmt: skip
        out.print(line, markup=False)


def _amounts(cost: Mapping[str, Any]) -> list[str]:
    from curation.reports.annotation import money

    amounts = ((cost["spent"], "so far"), (cost["projected"], "when the round is complete"),
               (cost["per_pair"], "for each pair"), (cost["projected_per_pair"], "for each pair then"))  # fmt: skip
    told = [f"{money(amount, cost['currency'])} {what}" for amount, what in amounts if amount is not None]
    return [f"cost: {', '.join(told)}"] if told else []


def _print_agreement(made: Mapping[str, Any]) -> None:
    from curation.reports.annotation import number, share

    if made["agreement"]:
        table("agreement", ["question", "of", "items", "votes", "pairs that agree", "alpha"], [
            [item["question"], f"{item['by']} {item['value']}".strip(), item["items"], item["votes"],
             share(item["pairwise"]), item["problem"] or number(item["alpha"])]
            for item in made["agreement"]])  # fmt: skip


def _print_annotators(made: Mapping[str, Any]) -> None:
    from curation.reports.annotation import seconds, share

    columns = ["annotator", "votes", "agrees", "gold", "same again", "slot A", "the longer", "time", "flags"]
    people = [*made["annotators"], *made["judges"]]
    if people:
        table("annotators", columns, [
            [item["annotator"], item["votes"],
             *(share(item[name] and {"value": item[name]["value"]})
               for name in ("agreement", "gold", "retest", "slot_a", "longer")), seconds(item["seconds"]),
             ", ".join(flag["flag"] for flag in item.get("flags", ()))] for item in people])  # fmt: skip
    for item in made["annotators"]:
        for flag in item["flags"]:
            out.print(f"{item['annotator']}: {flag['why']} {flag['next']}", markup=False)
