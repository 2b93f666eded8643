"""A process reward: the answer's steps are scored one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, ValidationError, field_validator

from curation import registry, steps
from curation.errors import UserError
from curation.verifiers.reading import THOUGHTS
from trainers.rewards import Reward, Sample, Score
from trainers.rewards._step_scorers import JudgedSteps, StepScorer, TokenClassifier, on_prefixes

SCORERS: dict[str, type[StepScorer]] = {"judge": JudgedSteps, "token_classifier": TokenClassifier}


class StepsReward(Reward):
    """One number from the scores of a completion's steps. `by` says how it is split (see curation.steps.split). The
    thought is left out (`skip`), one step (`whole`), or split too (`split`).

    `scorer` is {name, option: ...}: `judge` (a judge grades all steps in one reply), `token_classifier` (a process
    reward model with a label for each token), or any component of rewards, such as `reward_model` (with its `path`) or
    `function`, which scores the answer up to the end of each step (a function finds those steps in a sample's
    meta['steps']). With `sigmoid`, v of a component that has no range is 1 / (1 + e^-v).

    `aggregate`: `min` (Wang et al. 2024, Math-Shepherd), `product` of scores in 0..1 (the probability that all are
    right: Lightman et al. 2023, Let's verify step by step, appendix F), `mean` or `last`. A mean can be farmed by
    steps that say nothing, and product and min by few long ones. A step without a score leaves the whole without
    one.

    Parts, kept beside the value: `each` has the number of steps as its value and the score of each as its outcome, in
    order; `lowest` is the number of the step with the lowest score, from 1.

    Outcomes: scored, no_steps, too_many_steps, unfinished (an open thought), out_of_range (a product of what is no
    probability), and the scorer's."""

    version: ClassVar[int] = 1
    scorer: dict[str, Any]
    by: steps.By = "auto"
    thoughts: Literal["skip", "whole", "split"] = "skip"
    aggregate: Literal["min", "product", "mean", "last"] = "min"
    sigmoid: bool = False
    max_steps: int = Field(default=64, ge=1)

    @field_validator("scorer")
    @classmethod
    def _can_score(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("name") == "steps":
            raise ValueError("steps are not scored by 'steps'; name judge, token_classifier, reward_model or function")
        try:
            _made(value)
        except UserError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def parts(self) -> tuple[str, ...]:
        return ("each", "lowest")

    def identity(self) -> dict[str, Any]:
        """Covers that of the scorer."""
        return super().identity() | {"scorer": _made(self.scorer).identity()}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        return self.score_parts(samples)[0]

    def score_parts(self, samples: Sequence[Sample]) -> list[list[Score]]:
        """The scores of N rollouts, then those of `each` and `lowest`."""
        found = [self._split(sample.completion) for sample in samples]
        asked = [index for index, pieces in enumerate(found) if not isinstance(pieces, str)]
        of = [list(found[index]) for index in asked]
        scorer = _made(self.scorer)
        rollouts = [samples[index] for index in asked]
        scores = scorer.score_steps(rollouts, of) if isinstance(scorer, StepScorer) else \
            on_prefixes(scorer, rollouts, of)  # fmt: skip
        known = dict(zip(asked, scores, strict=True))
        rows = [self._whole(known[index]) if index in known else [Score(None, str(said))] * 3
                for index, said in enumerate(found)]  # fmt: skip
        return [[row[column] for row in rows] for column in range(3)]

    def _split(self, text: str) -> list[str] | str:
        """The steps of a completion, or why there are none."""
        if self.thoughts == "skip":
            for begin, end in THOUGHTS:
                text = text.rpartition(end)[2]
                if begin in text:
                    return "unfinished"
        pieces = steps.split(text, self.by, "split" if self.thoughts == "split" else "whole")
        if not "".join(pieces).strip():
            return "no_steps"
        return pieces if len(pieces) <= self.max_steps else "too_many_steps"

    def _whole(self, scores: Sequence[Score]) -> list[Score]:
        """The value of an answer, and its parts."""
        lacking = next((score for score in scores if score.value is None), None)
        told = " ".join(score.outcome if score.value is None else f"{score.value:.6g}" for score in scores)
        each = Score(float(len(scores)), told)
        if lacking is not None:
            return [Score(None, lacking.outcome), each, Score(None, lacking.outcome)]
        values = [float(cast(float, score.value)) for score in scores]
        if (odd := next((value for value in values if not math.isfinite(value)), None)) is not None:
            return [Score(odd, "scored"), each, Score(None, "scored")]  # a failure for combining.py
        values = [0.5 + 0.5 * math.tanh(value / 2) for value in values] if self.sigmoid else values
        lowest = Score(float(values.index(min(values)) + 1), "scored")
        if self.aggregate == "product" and not all(0 <= value <= 1 for value in values):
            return [Score(None, "out_of_range"), each, lowest]
        return [Score(_aggregated(values, self.aggregate), "scored"), each, lowest]


def _aggregated(values: Sequence[float], how: str) -> float:
    match how:
        case "min":
            return min(values)
        case "product":
            return math.prod(values)
        case "mean":
            return math.fsum(values) / len(values)
    return values[-1]


def _made(use: dict[str, Any]) -> Reward:
    """The scorer of {name, option: ...}. Raises UserError."""
    options = {key: value for key, value in use.items() if key != "name"}
    name = str(use.get("name", ""))
    if name not in SCORERS:
        return cast(Reward, registry.make("rewards", name, options))
    try:
        return SCORERS[name](**options)
    except ValidationError as error:
        raise UserError(registry.validation_problems(error, SCORERS[name], prefix=name)) from error
