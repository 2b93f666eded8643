"""Repetition: the share of n-grams that stood before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from trainers.rewards import Reward, Sample, Score

# Words, and single characters of scripts that write none.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|\w+")


class Repetition(Reward):
    """-(1 - distinct n-grams / n-grams) of a completion's words (lower case), in -1..0: the repetition penalty of Yeo
    et al. 2025 (arXiv 2502.03373) in the form of Open-R1, without its scale, which is the weight. Shares up to `free`
    cost nothing. 0 where a completion has fewer words than `n`.

    Outcomes: varied, repetitive (more than half of the n-grams stood before), short."""

    version: ClassVar[int] = 1
    n: int = Field(default=4, ge=1)
    free: float = Field(default=0.0, ge=0, lt=1)

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._of(sample.completion) for sample in samples]

    def _of(self, text: str) -> Score:
        words = _WORD.findall(text.lower())
        grams = len(words) - self.n + 1
        if grams < 1:
            return Score(0.0, "short")
        distinct = len(set(zip(*(words[start:] for start in range(self.n)), strict=False)))
        repeated = 1 - distinct / grams
        return Score(min(0.0, self.free - repeated), "repetitive" if repeated > 0.5 else "varied")
