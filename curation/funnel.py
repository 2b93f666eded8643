"""What the rules do to the rows: caught by each, by it alone, under other thresholds; and the funnel from ingested rows
to kept ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curation import schema
from curation.catalog import Catalog
from curation.config import shown
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
    adopted = {item.name: judge(catalog, item) for item in load_rules(catalog)} | {HELD_OUT: judge_held_out(catalog)}
    rules = {item.name: item for item in load_rules(catalog, adopted_only=False)}
    others = {name: item for name, item in rules.items() if name not in adopted}
    ready = {name: item for name, item in others.items()
             if rule == name or (rule is None and all(is_measured(catalog, one) for one in item.measures))}  # fmt: skip
    return Judged(rules, adopted, {name: judge(catalog, item) for name, item in ready.items()},
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


def moved(catalog: Catalog, rule: Rule) -> list[dict[str, Any]]:
    """What moving each threshold of a rule would do, one at a time and to multiples of its value: threshold, value,
    whether it is the present one, rows caught. Nothing is measured or published."""
    connection = catalog.session()
    found = []
    try:
        bind_evidence(connection, catalog, rule.measures)
        catalog.confine(connection)
        for name, value in rule.header.thresholds.items():
            for tried in sorted({value, *(_step(value, factor) for factor in STEPS)}):
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


@dataclass(frozen=True)
class Funnel:
    """From ingested rows to kept ones. `sources`: per source its stage, records read, rejects, rows and kept rows.
    `steps`: the rules in the order in which they are applied here (held-out prompts first, then by name), each with the
    rows that it takes away of those that are left (`removed`), by source, and those left after it. The order changes
    what is counted where, never what is kept: every rule judges all rows."""

    sources: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    moved: dict[str, list[dict[str, Any]]]
    samples: dict[str, list[dict[str, Any]]]

    def as_json(self) -> dict[str, Any]:
        """Everything, plain."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def funnel(catalog: Catalog) -> Funnel:
    """The whole funnel, with what moving each threshold would do and sampled rows per rule. Judges what is missing."""
    from curation.caught import samples

    judged = judge_all(catalog)
    sources, steps = _steps(catalog, judged)
    shifts = {name: moved(catalog, rule) for name, rule in judged.rules.items()
              if rule.header.thresholds and name not in judged.unmeasured}  # fmt: skip
    return Funnel(sources, steps, effects(catalog, judged), shifts, samples(catalog, judged))


def _steps(catalog: Catalog, judged: Judged) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    order = [HELD_OUT, *(name for name in sorted(judged.adopted) if name != HELD_OUT)]
    places = " ".join(f"WHEN {quoted(name)} THEN {place}" for place, name in enumerate(order))
    connection = catalog.session()
    try:
        rows = connection.execute(
            f"SELECT source, place, count(*) FROM (SELECT row_id, source, min(CASE rule {places} END) AS place "
            f"FROM {parquet_list(list(judged.adopted.values()))} GROUP BY row_id, source) GROUP BY ALL"
        ).fetchall()
    finally:
        connection.close()
    taken = {(source, order[place]): count for source, place, count in rows}
    left = {name: manifest.num_rows for name, (_, manifest) in catalog.sources().items()
            if manifest.stage in schema.STAGES}  # fmt: skip
    steps = []
    for rule in order:
        by_source = {source: taken[source, rule] for source in left if (source, rule) in taken}
        left = {source: count - by_source.get(source, 0) for source, count in left.items()}
        steps.append({"rule": rule, "removed": sum(by_source.values()), "by_source": by_source,
                      "left": sum(left.values())})  # fmt: skip
    sources = []
    for name, kept in left.items():
        manifest = catalog.source(name)[1]
        rejects = int(manifest.counts.get("num_rejects", 0))
        sources.append({"source": name, "stage": manifest.stage, "records": manifest.num_rows + rejects,
                        "rejects": rejects, "rows": manifest.num_rows, "kept": kept})  # fmt: skip
    return sources, steps
