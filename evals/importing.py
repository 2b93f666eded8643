"""`kedge scores add`: results of another harness, one JSON object per sample."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from curation import checkpoints, schema
from curation.catalog import Catalog
from curation.config import Strict
from curation.errors import Problem, UserError
from curation.registry import validation_problems
from evals.records import read_records
from evals.scores import CONDITIONS, write_scores

MAX_PROBLEMS = 10


class ImportedScore(Strict):
    """One sample. `checkpoint` is `RUN@STEP` or a tag; `score` (0..1) defaults to 1 for right and 0 otherwise;
    `conditions` may name what of `CONDITIONS` is known, equal on all samples of a checkpoint and benchmark."""

    checkpoint: str
    benchmark: str = Field(pattern=r"^[\w.-]+$")
    sample_id: str
    repeat: int = Field(default=0, ge=0)
    cluster: str | None = None
    state: Literal["right", "wrong", "truncated", "unparsed", "timeout", "error"]
    score: float | None = Field(default=None, ge=0, le=1)
    answer: str | None = None
    gold: str | None = None
    response: str | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: Literal["stop", "length", "error"] | None = None
    refused: bool = False
    prompt_hash: str | None = None
    prompt: str | None = None
    detail: str | None = None
    conditions: dict[str, Any] = {}

    def row(self) -> dict[str, Any]:
        """The sample in the columns of `schema.SCORES`."""
        values = {name: getattr(self, name) for name in schema.SCORES.names}
        values["score"] = float(self.state == "right") if self.score is None else self.score
        values["cluster"] = self.cluster or self.sample_id
        return values


def add_scores(catalog: Catalog, path: Path) -> list[dict[str, Any]]:
    """Publish the samples of a JSON Lines, JSON or Parquet file as scores of registered checkpoints; returns one entry
    per checkpoint and benchmark (checkpoint, benchmark, n). Raises UserError with every bad sample; nothing is stored
    then."""
    groups: dict[tuple[str, str], list[ImportedScore]] = defaultdict(list)
    problems: list[Problem] = []
    for where, record in read_records([path]):
        try:
            sample = ImportedScore.model_validate({key: value for key, value in record.items() if value is not None})
        except ValidationError as error:
            problems += validation_problems(error, ImportedScore, where=where)
            continue
        groups[sample.checkpoint, sample.benchmark].append(sample)
    for (reference, benchmark), samples in groups.items():
        problems += _group_problems(reference, benchmark, samples, str(path))
    if problems or not groups:
        raise UserError(problems[:MAX_PROBLEMS] or [Problem("holds no samples", "check the file", str(path))])
    found = {reference: checkpoints.find(catalog, reference) for reference, _ in groups}
    for (reference, benchmark), samples in groups.items():
        table = pa.Table.from_pylist([sample.row() for sample in samples], schema=schema.SCORES)
        known = dict.fromkeys(CONDITIONS) | {"harness": "imported"} | samples[0].conditions
        write_scores(catalog, found[reference], benchmark, table, known)
    return [{"checkpoint": found[reference].id, "benchmark": benchmark, "n": len(samples)}
            for (reference, benchmark), samples in groups.items()]  # fmt: skip


def _group_problems(reference: str, benchmark: str, samples: list[ImportedScore], where: str) -> list[Problem]:
    problems = []
    twice = [key for key, count in Counter((s.sample_id, s.repeat) for s in samples).items() if count > 1]
    if twice:
        problems.append(Problem(f"{reference}, {benchmark}: sample {twice[0][0]} (repeat {twice[0][1]}) stands twice",
                                "number repeats or remove one", where, "sample_id"))  # fmt: skip
    if any(sample.conditions != samples[0].conditions for sample in samples):
        problems.append(Problem(f"{reference}, {benchmark}: samples name different conditions",
                                "give all samples of one checkpoint the same", where, "conditions"))  # fmt: skip
    unknown = sorted(set(samples[0].conditions) - set(CONDITIONS))
    if unknown:
        problems.append(Problem(f"unknown conditions {', '.join(unknown)}", f"known: {', '.join(CONDITIONS)}", where,
                                "conditions"))  # fmt: skip
    return problems
