"""Printing what rules do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, table
from curation.errors import UserError, did_you_mean
from curation.funnel import funnel
from curation.measuring import listed
from curation.rule_effects import effects, judge_all, least_values, moved

NUM_SHOWN = 5


def print_rules(rule: str | None, to: Path | None, as_json: bool) -> None:
    """The effect of every rule, or of one with examples and moved thresholds; with `to` the funnel report."""
    catalog = Catalog(find_project())
    if to is not None:
        if rule is not None:
            raise UserError("a report holds all rules", "leave out the rule's name, or --to")
        _report(catalog, to, as_json)
    elif rule is not None:
        _print_rule(catalog, rule, as_json)
    else:
        found = effects(catalog)
        print_json(found) if as_json else _print_effects("rows that each rule leaves out", found)


def _report(catalog: Catalog, to: Path, as_json: bool) -> None:
    from curation.reports.funnel import write

    made = funnel(catalog)
    write(made, to)
    if as_json:
        print_json(made.as_json())
        return
    rows, kept = (sum(item[name] for item in made.sources) for name in ("rows", "kept"))
    out.print(f"{kept:,} of {rows:,} rows are kept; {shown(to)}/report.html says why the others are not", markup=False)


def _print_effects(title: str, found: list[dict[str, Any]]) -> None:
    """One line per rule: rows caught, alone, and the sources in which they are."""
    rules: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        rules.setdefault(item["rule"], []).append(item)
    rows = []
    for name, items in rules.items():
        most = sorted(items, key=lambda item: (-(item["caught"] or 0), item["source"] or ""))
        where = [f"{item['source']} {item['caught']:,}" for item in most if item["source"]]
        counts = [None if items[0][key] is None else sum(item[key] for item in items) for key in ("caught", "alone")]
        rows.append([name, items[0]["adopted"], *counts, listed(where, 3) if where else items[0]["example"]])
    table(title, ["rule", "adopted", "caught", "alone", "in"], rows)


def _print_rule(catalog: Catalog, rule: str, as_json: bool) -> None:
    from curation.caught import samples

    judged = judge_all(catalog, rule)
    known = {*judged.rules, *judged.adopted}
    if rule not in known:
        raise UserError(f"there is no rule '{rule}'", did_you_mean(rule, known))
    found = [item for item in effects(catalog, judged) if item["rule"] == rule]
    shifts = moved(catalog, judged.rules[rule]) if rule in judged.rules else []
    rows = samples(catalog, judged, [rule])[rule]
    least = least_values(judged.rules[rule]) if shifts else {}
    if as_json:
        print_json({"rule": rule, "effects": found, "moved": shifts, "samples": rows,
                    "least": {name: value for name, (value, _) in least.items()}})  # fmt: skip
        return
    if rule in judged.rules:
        out.print(f"{shown(judged.rules[rule].file.path)}: {judged.rules[rule].header.description}", markup=False)
    columns = ["source", "adopted", "caught", "alone", "example"]
    table(rule, columns, [[item[name] for name in columns] for item in found])
    if shifts:
        columns = ["threshold", "value", "present", "caught"]
        table("what moving a threshold would do", columns, [[item[name] for name in columns] for item in shifts])
    for name, (value, measure) in least.items():
        out.print(f"{name} below {value:g} is left out: {measure} looks for nothing less alike, so the rule would "
                  f"catch no more; to look: needs: [{{{measure}: {{threshold: ...}}}}]", markup=False)  # fmt: skip
    for row in rows[:NUM_SHOWN]:
        out.print(f"{row['row_id'][:12]} of {row['source']}: {row['reason']}", style="bold", markup=False)
        values = ", ".join(f"{name} {value}" for name, value in row["values"].items() if value is not None)
        for line in [*([values] if values else []), *map(_line, row["evidence"])]:
            out.print(f"  {line}", markup=False)
        for place, text in row["text"]:
            out.print(f"  {place}: {text[:300]!r}", markup=False)


def _line(evidence: dict[str, Any]) -> str:
    return "; ".join(f"{name} {str(value)[:200]}" for name, value in evidence.items())
