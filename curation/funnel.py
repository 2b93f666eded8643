"""The funnel from ingested rows to kept ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curation import schema
from curation.catalog import Catalog
from curation.caught import samples
from curation.relations import parquet_list, quoted
from curation.rule_effects import Judged, effects, judge_all, least_values, moved
from curation.rules import HELD_OUT


@dataclass(frozen=True)
class Funnel:
    """From ingested rows to kept ones. `sources`: per source its stage, records read, rejects, rows and kept rows.
    `steps`: the rules in the order in which they are applied here (held-out prompts first, then by name), each with the
    rows that it takes away of those that are left (`removed`), by source, and those left after it. The order changes
    what is counted where, never what is kept: every rule judges all rows. `moved`: by rule, what `rule_effects.moved`
    tells; `least`: by rule and threshold, the value below which steps are left out of it."""

    sources: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    moved: dict[str, list[dict[str, Any]]]
    samples: dict[str, list[dict[str, Any]]]
    least: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """Everything, plain."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def funnel(catalog: Catalog) -> Funnel:
    """The whole funnel, with what moving each threshold would do and sampled rows per rule. Judges what is missing."""
    judged = judge_all(catalog)
    sources, steps = _steps(catalog, judged)
    shifts = {name: moved(catalog, rule) for name, rule in judged.rules.items()
              if rule.header.thresholds and name not in judged.unmeasured}  # fmt: skip
    least = {name: {threshold: value for threshold, (value, _) in least_values(judged.rules[name]).items()}
             for name in shifts}  # fmt: skip
    return Funnel(sources, steps, effects(catalog, judged), shifts, samples(catalog, judged), least)


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
