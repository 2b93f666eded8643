"""Printing measures, rules and mixtures."""

from __future__ import annotations

from typing import Any

from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, table
from curation.engines import Engine, measure_ahead
from curation.errors import UserError
from curation.measuring import ensure, listed, named
from curation.mixtures import build, preview
from curation.rules import default_measures

SHOWN_VERBS = 12


def measure_sources(sources: list[str] | None, only: str | None, engine: Engine, as_json: bool) -> None:
    """Measure what is missing, part measures on `engine`, and print what was measured now."""
    catalog = Catalog(find_project())
    if not catalog.sources():
        raise UserError("no source is ingested", "run: kedge add PATH")
    measures = [named(only)] if only else default_measures(catalog)
    measure_ahead(catalog, measures, sources, engine)
    with catalog.together():
        done = {measure.plugin_name(): ensure(catalog, measure, sources) for measure in measures}
    if as_json:
        print_json(done)
        return
    for name, measured in done.items():
        out.print(f"{name}: {listed(measured) if measured else 'nothing is missing'}", markup=False)


def print_preview(name: str, as_json: bool) -> None:
    """The counts of a mixture that need not be frozen."""
    seen = preview(Catalog(find_project()), name)
    if as_json:
        print_json(seen)
        return
    _print_counts(seen)
    _print_coverage(seen["coverage"])
    for item in seen["short"]:
        asked = f"{item['take']} asks for {item['requested']:,} {item['unit']} of '{item['source']}'"
        out.print(f"SHORT: {asked}, which has {item['offered']:,}", style="red", markup=False)
    state = f"next: kedge mix build {seen['name']}"
    if seen["frozen"]:
        since = f" since {seen['frozen_at'][:16].replace('T', ' ')} UTC" if seen["frozen_at"] else ""
        state = f"frozen{since} as {seen['fingerprint'][:12]}, and nothing it is made of changed"
    out.print(f"{seen['name']} ({seen['stage']}): {seen['num_rows']:,} rows; {state}", markup=False)


def _print_counts(seen: dict[str, Any]) -> None:
    rows = []
    total = max(1, seen["num_rows"])
    for source, item in seen["sources"].items():
        share = f"{100 * item['rows'] / total:.1f} %"
        rows.append([source, item["rows"], share, item["tokens"], item["trained_tokens"], item["offered"],
                     item["left_over"]])  # fmt: skip
    columns = ["source", "rows", "share", "tokens", "trained tokens", "offered", "left over"]
    table(f"mixture {seen['name']}", columns, rows)
    for source, item in seen["sources"].items():
        if item["refused"]:
            refused = ", ".join(f"{count:,} by {rule}" for rule, count in item["refused"].items())
            out.print(f"{source}: refused {refused}", markup=False)
    if seen["takes"]:
        columns = ["take", "source", "unit", "requested", "offered", "delivered"]
        table("takes", columns, [[item[name] for name in columns] for item in seen["takes"]])


def _print_coverage(covered: dict[str, Any]) -> None:
    """Skills, task verbs, distinct n-grams, and what the parent stage had and this mixture lacks."""
    if covered["skill"]:
        rows = [[item["label"] or "(none told)", item["rows"], f"{100 * item['share']:.1f} %", item["tokens"]]
                for item in covered["skill"]]  # fmt: skip
        table("skills", ["skill", "rows", "share", "tokens"], rows)
    if verbs := [item for item in covered["task_verb"] or [] if item["label"]]:
        shown = ", ".join(f"{item['label']} {100 * item['share']:.1f} %" for item in verbs[:SHOWN_VERBS])
        out.print(f"task verbs ({len(verbs):,}): {shown}", markup=False)
    for measure in covered["not_measured"]:
        out.print(f"{measure}: not measured: kedge measure --only {measure}", markup=False)
    columns = ["rows", "words", "distinct_1", "distinct_2", "distinct_3"]
    sampled = [[name, *(item[column] for column in columns)] for name, item in covered["distinct"].items()]
    table("distinct n-grams of a sample", ["source", *(name.replace("_", "-") for name in columns)], sampled)
    for parent in covered["parents"]:
        if parent["lacks"] is None:
            out.print(f"not compared with the stage before ({parent['parent']}): {parent['why']}", markup=False)
        for item in parent["lacks"] or []:
            what = f"{item['kind'].replace('_', ' ')} '{item['label']}'"
            shares = f"{100 * item['parent_share']:.1f} % of '{parent['mixture']}' ({parent['parent']}), " \
                     f"{100 * item['share']:.1f} % here"  # fmt: skip
            out.print(f"LACKS: {what}: {shares}", style="yellow", markup=False)


def print_build(name: str, as_json: bool) -> None:
    """Freeze a mixture and say where it lies."""
    frozen = build(Catalog(find_project()), name)
    counts = frozen.manifest.counts
    if as_json:
        print_json({"name": frozen.name, "fingerprint": frozen.fingerprint, "folder": shown(frozen.folder)} | counts)
        return
    _print_counts({"name": frozen.name} | counts)
    sizes = f"{frozen.num_rows:,} rows, {counts['held_out_rows']:,} held out"
    out.print(f"{frozen.name}@{frozen.fingerprint[:12]}: {sizes}, in {shown(frozen.folder)}", markup=False)
    out.print("next: kedge audit RUN (a run file that names this mixture)", markup=False)
