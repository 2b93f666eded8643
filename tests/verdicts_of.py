"""The verdicts of one rule by source and line, for tests of single rules: no other rule is judged or measured for."""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow.parquet as pq

from curation.catalog import Catalog
from curation.config import find_project
from curation.rules import Rule, judge, load_rules


@functools.cache
def _rules(root: Path) -> dict[str, Rule]:
    return {rule.name: rule for rule in load_rules(Catalog(find_project(root)), adopted_only=False)}


def rule_of(catalog: Catalog, name: str) -> Rule:
    """A rule of a project, whose rule files must not change meanwhile."""
    return _rules(catalog.project.root)[name]


def verdicts_of(catalog: Catalog, name: str) -> dict[tuple[str, int], str]:
    """(source, line) -> reason of every row that the rule catches."""
    lines = {}
    for source, (folder, rows) in catalog.sources().items():
        for part in rows.parts:
            table = pq.read_table(folder / part.name, columns=["row_id", "line"])
            for row, line in zip(table["row_id"].to_pylist(), table["line"].to_pylist(), strict=True):
                lines[row] = (source, line)
    found = pq.read_table(judge(catalog, rule_of(catalog, name))).to_pylist()
    return {lines[item["row_id"]]: item["reason"] for item in found}
