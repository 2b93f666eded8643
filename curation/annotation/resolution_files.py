"""Resolution files `catalogs/resolutions/NAME.yaml`: how the votes of a job become pairs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from curation.config import Project, Strict, load_yaml, shown
from curation.errors import Problem, UserError, did_you_mean

FOLDER = "resolutions"
NAME = re.compile(r"[a-z0-9_]+")
ROUND = re.compile(r"(calibration|main)(-\d+)?")

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Resolution(Strict):
    """`catalogs/resolutions/NAME.yaml`. `rounds` are kinds of rounds (`main`) or rounds (`main-2`) of `job`; what its
    adjudications decided comes in by itself.

    `method`: `majority` (most votes, with a lead of `min_margin` of all votes, 0..1), `dawid_skene` (voters weighed by
    the errors that they turn out to make) or `bradley_terry` (strengths of all answers to a prompt, over all its
    items). Under `min_votes` an item has too few votes: by default 2, or the job's annotators_per_item where that is
    less. Where the probability of the outcome is below `min_confidence`, or no outcome leads, it is disputed.

    A vote for a tie or for `both_bad` is a vote against a pair (`drop`: where most say so there is none), or does not
    count (`ignore`). An item of several candidates gives the pair of its best and its worst, the best with each other
    (`best_rest`) or `all` pairs that are decided. `without` names annotators whose votes do not count, `weights` what a
    vote counts in a majority (by default 1); `judges` lets a judge's votes count as a person's do.

    The sources are `SOURCE_pairs` and, for written and edited answers, `SOURCE_sft`; SOURCE is the resolution's name
    unless `source` says otherwise."""

    job: str
    rounds: list[str] = Field(default=["main"], min_length=1)
    method: Literal["majority", "dawid_skene", "bradley_terry"] = "majority"
    min_votes: int | None = Field(default=None, ge=1)
    min_margin: Share = 0.0
    min_confidence: Share = 0.5
    ties: Literal["drop", "ignore"] = "drop"
    both_bad: Literal["drop", "ignore"] = "drop"
    pairs: Literal["best_worst", "best_rest", "all"] = "best_worst"
    without: list[str] = []
    weights: dict[str, Weight] = {}
    judges: bool = False
    source: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Resolution:
        if wrong := [name for name in self.rounds if not ROUND.fullmatch(name)]:
            raise ValueError(f"rounds: '{wrong[0]}' is no round; write calibration, main, or one of them with its "
                             "number, as main-1")  # fmt: skip
        if self.method != "majority" and (self.min_margin or self.weights):
            key = "min_margin" if self.min_margin else "weights"
            raise ValueError(f"{key}: belongs to method majority, and the method is {self.method}; use min_confidence")
        if self.source is not None and not NAME.fullmatch(self.source):
            raise ValueError(f"source: '{self.source}' is no name for a source; use a-z, 0-9 and _")
        return self


def load_resolution(project: Project, name: str, jobs: list[str]) -> tuple[str, Resolution]:
    """(name, resolution) that `name` means: a file of catalogs/resolutions/ or a path of one, else a job (one of `jobs`
    has items), resolved as the defaults say. Raises UserError."""
    known = project.paths(FOLDER, ".yaml")
    if name.endswith(".yaml") or name in known:
        path = project.path(FOLDER, name, ".yaml")
        if not NAME.fullmatch(path.stem):
            raise UserError(f"'{path.stem}' is no name for a resolution", "rename the file: a-z, 0-9 and _",
                            where=shown(path))  # fmt: skip
        found = load_yaml(path, Resolution)
        if found.job not in jobs:
            raise UserError(f"the job '{found.job}' has no items", did_you_mean(found.job, jobs), where=shown(path),
                            key="job")  # fmt: skip
        return path.stem, found
    if name not in jobs:
        step = did_you_mean(name, [*jobs, *known]) if jobs or known else f"run: kedge annotate push {name}"
        raise UserError(f"'{name}' is no job with items and no resolution", step)
    return name, Resolution(job=name)


def check_annotators(resolution: Resolution, annotators: set[str], where: Path | None) -> None:
    """Raises UserError for annotators in `without` and `weights` who never voted on the job."""
    at = shown(where) if where is not None else ""
    problems = [Problem(f"'{name}' never voted on '{resolution.job}'", did_you_mean(name, annotators), at, key)
                for key, names in (("without", resolution.without), ("weights", list(resolution.weights)))
                for name in names if name not in annotators]  # fmt: skip
    if problems:
        raise UserError(problems)
