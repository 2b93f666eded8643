"""Length: a soft punishment before the limit, and optionally a wanted length."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from trainers.rewards import Reward, Sample, Score


class Length(Reward):
    """The soft overlong punishment of DAPO (Yu et al. 2025, arXiv 2503.14476, eq. 13): with y tokens, 0 up to
    `max_tokens` - `buffer_tokens`, from there linearly down to -1 at `max_tokens`, and -1 beyond.

    `target_tokens` adds -`per_token` * |y - target|, at least -1 (LCPO-Exact of Aggarwal & Welleck 2025, arXiv
    2503.04697, eq. 1). Tokens are counted by the trainer; where it cannot, `tokenizer` (a folder or a tokenizer.json)
    counts the completion's text, without the end mark; without either there is no value.

    Outcomes: within, buffer, overlong, no_length."""

    version: ClassVar[int] = 1
    max_tokens: int = Field(ge=1)
    buffer_tokens: int = Field(ge=1)
    target_tokens: int | None = Field(default=None, ge=0)
    per_token: float = Field(default=0.0003, gt=0)
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Length:
        if self.buffer_tokens > self.max_tokens:
            raise ValueError("buffer_tokens is more than max_tokens; make the buffer smaller")
        return self

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        return [self._of(self._tokens(sample)) for sample in samples]

    def _tokens(self, sample: Sample) -> int | None:
        if sample.num_tokens is not None or self.tokenizer is None:
            return sample.num_tokens
        return len(_tokenizer(self.tokenizer).encode(sample.completion, add_special_tokens=False).ids)

    def _of(self, tokens: int | None) -> Score:
        if tokens is None:
            return Score(None, "no_length")
        value = min(0.0, max(-1.0, (self.max_tokens - self.buffer_tokens - tokens) / self.buffer_tokens))
        outcome = "within" if value == 0 else "overlong" if tokens > self.max_tokens else "buffer"
        if self.target_tokens is not None:
            value -= min(1.0, self.per_token * abs(tokens - self.target_tokens))
        return Score(value, outcome)


@functools.cache
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    place = Path(path)
    return Tokenizer.from_file(str(place / "tokenizer.json" if place.is_dir() else place))
