"""Does a completion keep the format: one thought, then one answer in its tags?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import field_validator

from trainers.rewards import Reward, Sample, Score


class Format(Reward):
    """1 where the format is kept, else 0 (a weight of 0.1 beside an answer's 1.0 is usual).

    `think`: a thought `<think>...</think>` that holds text stands first (`required`), may (`allowed`), or must not
    (`forbidden`). `think_opened`: the prompt ends with `<think>`, so that the completion begins inside the thought.
    `answer`: the rest is one `<answer>...</answer>` with text in it and nothing but white space around it (`tags`), or
    any text (`text`). No mark may stand twice. `pattern` replaces all this: the whole completion has to match it.

    Outcomes: kept, thought, answer, pattern (what is not as it should be)."""

    version: ClassVar[int] = 1
    think: Literal["required", "allowed", "forbidden"] = "required"
    think_opened: bool = False
    answer: Literal["tags", "text"] = "tags"
    pattern: str | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        return [Score(float(found == "kept"), found) for found in (self._outcome(item.completion) for item in samples)]

    def _outcome(self, text: str) -> str:
        if self.pattern is not None:
            return "kept" if re.fullmatch(self.pattern, text, re.DOTALL) else "pattern"
        if self.think_opened and "<think>" not in text:
            text = "<think>" + text
        opened, closed = text.count("<think>"), text.count("</think>")
        rest = text.strip()
        if opened or closed:
            thought, _, rest = rest.partition("</think>")
            whole = opened == closed == 1 and thought.startswith("<think>") and thought[7:].strip()
            if self.think == "forbidden" or not whole:
                return "thought"
        elif self.think == "required":
            return "thought"
        return "kept" if self._answers(rest.strip()) else "answer"

    def _answers(self, rest: str) -> bool:
        if self.answer == "text":
            return bool(rest)
        inner = rest.removeprefix("<answer>").removesuffix("</answer>")
        whole = len(inner) == len(rest) - len("<answer></answer>")
        return whole and bool(inner.strip()) and "<answer>" not in inner and "</answer>" not in inner
