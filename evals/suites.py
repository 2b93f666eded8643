"""Suites: which benchmarks judge a run, with which margins, and the probe prompts shown beside them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from curation.catalog import Catalog
from curation.config import Strict, load_yaml
from curation.errors import UserError
from curation.runs import Run


class SuiteBenchmark(Strict):
    """One benchmark of a suite. `margin` is the loss of score (0..1) that a gate tolerates; with `gate: false` the
    benchmark is reported and never fails a run."""

    name: str
    margin: float = Field(default=0.05, ge=0, le=1)
    gate: bool = True


class Ensemble(Strict):
    """Reward models whose scores are combined, each standardised first: the mean of them, or the least."""

    members: list[str] = Field(min_length=2)
    reward: Literal["mean", "min"] = "mean"


class Suite(Strict):
    """`catalogs/suites/NAME.yaml`. `harness` is `{name: ..., option: ...}` in the harness's own options (device, dtype,
    batch_size). `ensembles` are reward models (checkpoints) that a reward model's report also judges together."""

    benchmarks: list[SuiteBenchmark] = Field(min_length=1)
    probes: list[str] = []
    ensembles: dict[str, Ensemble] = {}
    harness: dict[str, Any] = {"name": "lighteval_harness"}

    @model_validator(mode="after")
    def _no_twins(self) -> Suite:
        if "name" not in self.harness:
            raise ValueError("harness has no 'name'; for example: harness: {name: lighteval_harness}")
        names = [item.name for item in self.benchmarks]
        twins = sorted({name for name in names if names.count(name) > 1})
        if twins:
            raise ValueError(f"benchmarks holds {', '.join(twins)} twice; name each once")
        return self


def load_suite(catalog: Catalog, name: str) -> Suite:
    """The suite of a name or path. Raises UserError with "did you mean", or with the lines that are wrong."""
    return load_yaml(catalog.project.path("suites", name, ".yaml"), Suite)


def suite_name(catalog: Catalog, run: str, given: str | None) -> str:
    """The suite that judges a run: the one given, else its run file's, else the project's only one. Raises UserError
    naming the option where none of them decides."""
    if given is not None:
        return given
    own = catalog.project.paths("suites", ".yaml")
    if run in catalog.project.paths("runs", ".yaml"):
        suite = Run(catalog, run).file.suite
        if suite is not None:
            return suite
    local = [name for name, path in own.items() if path.is_relative_to(catalog.project.catalogs)]
    if len(local) == 1:
        return local[0]
    known = f"known suites: {', '.join(own)}" if own else "write catalogs/suites/NAME.yaml first"
    raise UserError(f"no suite is named for '{run}'", f"give --suite NAME or set 'suite' in its run file ({known})")
