"""Is the answer right? By the verifier of the row."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from curation.verifiers import named
from curation.verifiers.pool import Workers
from trainers.rewards import Reward, Sample, Score


class Answer(Reward):
    """`right` for a right answer, `wrong` for any other (no answer, an open thought, one that takes too long). The
    verifier is `verifier`, else the one that the row names. With `partial`, an answer of `code` or `instructions` gets
    its share of passed tests or followed instructions between the two: a denser signal that can be farmed by passing
    the easy tests alone. No value where the row has no verifier or ground truth, or the verifier cannot read it.

    Outcomes: right, wrong, unparsed, verifier_timeout, verifier_error, no_verifier."""

    version: ClassVar[int] = 1
    verifier: str | None = None
    partial: bool = False
    right: float = 1.0
    wrong: float = 0.0
    workers: int = Field(default=1, ge=1)

    @field_validator("verifier")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and named.canonical(value) is None:
            raise ValueError(f"there is no verifier '{value}'; use one of {', '.join(named.VERIFIERS)}")
        return value

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        items: dict[int, named.Item] = {}
        for index, sample in enumerate(samples):
            verifier = named.canonical(self.verifier) or named.canonical(sample.verifier)
            if verifier is not None and (sample.ground_truth or "").strip():
                items[index] = named.Item(verifier, sample.completion, sample.ground_truth or "", sample.prompt_text)
        graded = dict(zip(items, named.grade_all(list(items.values()), _workers(self.workers)), strict=True))
        return [self._of(graded.get(index)) for index in range(len(samples))]

    def _of(self, graded: named.Graded | None) -> Score:
        if graded is None:
            return Score(None, "no_verifier")
        state = graded.judgement.state
        if state == "error":
            return Score(None, "verifier_error")
        if state == "timeout":
            return Score(self.wrong, "verifier_timeout")
        share = graded.share if self.partial else float(state == "right")
        return Score(self.wrong + share * (self.right - self.wrong), state)


@functools.cache
def _workers(number: int) -> Workers:
    """The processes that compare mathematics, kept as long as this process lives."""
    workers = Workers(number)
    atexit.register(workers.close)
    return workers
