"""What the rules do to the rows: caught by each, by it alone, and under other thresholds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curation.catalog import Catalog
from curation.config import shown
from curation.measures import JoinMeasure
from curation.measuring import is_measured
from curation.queries import sql_error
from curation.relations import parquet_list, quoted
from curation.rules import HELD_OUT, Rule, bind_evidence, find, judge, judge_held_out, load_rules

STEPS = (0.5, 0.8, 1.25, 2.0)  # a threshold is moved to these multiples of its value


@dataclass(frozen=True)
class Judged:
    """Every rule of a project, and the verdicts' files: of the adopted ones (`held_out` among them), of the others.
    `unmeasured` are rules that are not adopted and read what nobody measured."""

    rules: dict[str, Rule]
    adopted: dict[str, Path]
    others: dict[str, Path]
    unmeasured: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [*self.adopted.values(), *self.others.values()]

    def adopted_list(self) -> str:
        """The names of the adopted rules as SQL."""
        return ", ".join(quoted(name) for name in self.adopted)


def judge_all(catalog: Catalog, rule: str | None = None) -> Judged:
    """The verdicts of the adopted rules and of `rule`, measured and judged where missing; without `rule` also of the
    rules that are not adopted and whose measures are there: nobody pays for what only such a rule reads unasked."""
    with catalog.together():
        adopted = {item.name: judge(catalog, item) for item in load_rules(catalog)}
        adopted[HELD_OUT] = judge_held_out(catalog)
        rules = {item.name: item for item in load_rules(catalog, adopted_only=False)}
        others = {name: item for name, item in rules.items() if name not in adopted}
        ready = {
            name
            for name, item in others.items()
            if rule == name or (rule is None and all(is_measured(catalog, one) for one in item.measures))
        }
        return Judged(rules, adopted, {name: judge(catalog, others[name]) for name in others if name in ready},
                      tuple(name for name in others if name not in ready))  # fmt: skip


def effects(catalog: Catalog, judged: Judged | None = None) -> list[dict[str, Any]]:
    """What each rule removes: per rule and source, rows caught, rows caught by it alone, an example of the reason; not
    adopted rules too, whose rows stay. A rule that was not judged counts null."""
    of = judged or judge_all(catalog)
    connection = catalog.session()
    try:
        rows = connection.execute(
            f"WITH v AS (SELECT DISTINCT row_id, source, rule FROM {parquet_list(of.files)}), "
            f"others AS (SELECT row_id, count(*) AS adopted FROM v WHERE rule IN ({of.adopted_list()}) GROUP BY 1), "
            f"why AS (SELECT rule, source, min(reason) AS example FROM {parquet_list(of.files)} GROUP BY ALL) "
            "SELECT v.rule, v.source, count(*) AS caught, count(*) FILTER (coalesce(others.adopted, 0) = "
            f"(v.rule IN ({of.adopted_list()}))::INTEGER) AS alone, any_value(example) AS example "
            "FROM v LEFT JOIN others USING (row_id) JOIN why ON why.rule = v.rule AND why.source = v.source "
            "GROUP BY v.rule, v.source ORDER BY v.rule, v.source"
        ).fetchall()
    finally:
        connection.close()
    found = [{"rule": rule, "source": source, "adopted": rule in of.adopted, "caught": caught, "alone": alone,
              "example": example} for rule, source, caught, alone, example in rows]  # fmt: skip
    silent = sorted({*of.adopted, *of.others} - {item["rule"] for item in found})
    blank = {"source": None, "caught": 0, "alone": 0, "example": None}
    return [*found, *({"rule": name, **blank, "adopted": name in of.adopted} for name in silent),
            *({"rule": name, **blank, "adopted": False, "caught": None, "alone": None,
               "example": f"not measured; run: kedge rules {name}"} for name in of.unmeasured)]  # fmt: skip


def least_values(rule: Rule) -> dict[str, tuple[float, str]]:
    """The thresholds of a rule with which it asks for a column to be as large, or larger, that knows nothing below a
    value (see JoinMeasure.least): name -> that value and the measure's name."""
    found: dict[str, tuple[float, str]] = {}
    for measure in rule.measures:
        for column, least in measure.least().items() if isinstance(measure, JoinMeasure) else ():
            asked = rf"\b{column}\"?\s*>=?\s*getvariable\('(\w+)'\)"
            for name in re.findall(asked, rule.file.text):
                found[name] = max(found.get(name, (least, "")), (least, measure.plugin_name()))
    return found


def moved(catalog: Catalog, rule: Rule) -> list[dict[str, Any]]:
    """What moving each threshold of a rule would do, one at a time and to multiples of its value: threshold, value,
    whether it is the present one, rows caught. Steps below what the measure knows (`least_values`) are left out: their
    figures would be those of that value. Nothing is measured or published."""
    least = least_values(rule)
    connection = catalog.session()
    found = []
    try:
        bind_evidence(connection, catalog, rule.measures)
        catalog.confine(connection)
        for name, value in rule.header.thresholds.items():
            steps = {step for factor in STEPS if (step := _step(value, factor)) >= least.get(name, (step, ""))[0]}
            for tried in sorted({value, *steps}):
                select = find(connection, catalog, rule, rule.header.thresholds | {name: tried})
                caught = 0
                if select:
                    caught = connection.execute(f"SELECT count(DISTINCT row_id) FROM ({select})").fetchall()[0][0]
                found.append({"threshold": name, "value": tried, "present": tried == value, "caught": caught})
    except duckdb.Error as error:
        raise sql_error(error, rule.file.text, shown(rule.file.path)) from error
    finally:
        connection.close()
    return found


def _step(value: float, factor: float) -> int | float:
    """A threshold moved: whole numbers stay whole, shares below 1 come no further than 1."""
    if isinstance(value, int):
        return round(value * factor)
    return min(round(value * factor, 6), 1.0) if 0 < value <= 1 else round(value * factor, 6)
