"""What an audit judges: the rows of a stage, their anatomy, a mirror and a setting -> sequences and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.auditing.checks import Check
from curation.auditing.fates import Fates
from curation.auditing.isolation import documents_apart
from curation.auditing.judged import POSITIONS, Judged
from curation.auditing.mirrors import Mirror
from curation.auditing.packing_checks import packing_checks
from curation.auditing.pair_checks import Pairs, pair_checks
from curation.auditing.prompt_checks import Prompts, prompt_checks
from curation.auditing.row_checks import refused, reweighting, run_checks
from curation.auditing.setting import Setting
from curation.auditing.setting_checks import context_fits, live, vouched
from curation.errors import Problem
from curation.measures._rendered import RenderedMeasure
from curation.measures.pair_anatomy import sequences

JUDGED_BY = ("row_id", "source", "epoch", "prompt_hash", "ground_truth", "verifier", "pass_rates")


@dataclass(frozen=True)
class Case:
    """N rows of a stage in training order (those of `rows`, columns of JUDGED_BY; `parts` hold everything), their
    anatomy under a measure, a mirror, where they are trained, the prompt hashes of rows that are held out, and what is
    wrong with the options of a launch file, and further strata of the rows (language, skill)."""

    subject: str
    stage: str
    rows: pa.Table
    anatomy: pa.Table
    mirror: Mirror
    parts: list[Path] = field(default_factory=list)
    measure: RenderedMeasure | None = None
    setting: Setting = field(default_factory=Setting)
    held_out: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    labels: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    @cached_property
    def sequences(self) -> tuple[np.ndarray, np.ndarray, pa.Table]:
        """(row, side, columns) of the M token sequences that the rows are: the row of each, 0 or for a rejected side 1
        (both int64[M]), and its anatomy; positions that a stage has not are -1."""
        if self.stage == "preference":
            return sequences(self.anatomy)
        columns = self.anatomy
        if self.stage == "rlvr":
            nothing = pa.array(np.full(columns.num_rows, -1, np.int32))
            for name in POSITIONS:
                if name not in columns.column_names:
                    columns = columns.append_column(name, nothing)
        return np.arange(columns.num_rows), np.zeros(columns.num_rows, np.int64), columns

    def judged(self, fates: Fates) -> Judged:
        """The sequences under fates."""
        row, _, columns = self.sequences
        source, labels = self.rows["source"], self.labels
        if self.stage == "preference":
            source, labels = source.take(row), {kind: values.take(row) for kind, values in labels.items()}
        return Judged.of(source, columns, fates, labels)


def read_rows(parts: list[Path]) -> pa.Table:
    """The columns of frozen or bare row parts that an audit judges by."""
    names = [name for name in JUDGED_BY if name in pq.read_schema(parts[0]).names]
    return pa.concat_tables([pq.read_table(part, columns=names) for part in parts])


def checks_of(case: Case, judged: Judged, sources: list[dict[str, Any]]) -> list[Check]:
    """Every check that depends on rows, mirror and setting, given what `by_source` counted."""
    mirror, refusals = case.mirror, case.mirror.refuses(case.anatomy)
    if case.stage == "rlvr":
        hashes = case.rows["prompt_hash"] if "prompt_hash" in case.rows.column_names else None
        rates = case.rows["pass_rates"] if "pass_rates" in case.rows.column_names else None
        prompts = Prompts(case.rows["ground_truth"], case.rows["verifier"], hashes, rates, case.held_out)
        found = [*prompt_checks(judged, case.anatomy, prompts, mirror, case.setting), reweighting(judged),
                 refused(refusals)]  # fmt: skip
    else:
        found = run_checks(judged, sources, mirror.context_length, refusals)
    if case.stage == "preference":
        row, side, _ = case.sequences
        found += pair_checks(Pairs.of(case.anatomy, row, side, judged), mirror.context_length)
    if case.stage in ("midtrain", "sft"):
        found += packing_checks(judged, mirror, documents_apart(mirror, case.setting))
    return [*found, context_fits(judged, mirror, case.setting), vouched(mirror), live(case.problems)]


def template_checks(case: Case) -> list[Check]:
    """The T checks of the template that renders the rows; none for plain text."""
    from curation.auditing.template_checks import check_template

    if case.measure is None or case.measure.template_text is None:
        return []
    rendering = case.measure.rendering
    assert rendering.template is not None
    folder = case.setting.model if case.setting.config else None
    report = check_template(rendering.template, rendering.tokenizer, rendering.kwargs, folder)
    if case.measure.path == "per_message":
        for check in report.checks:
            if check.id == "T11" and check.level == "warn":
                check.level = "error"
    return report.checks
