"""A judge's grade of the answer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.errors import UserError
from curation.judge_files import JudgeFile, load_judge
from curation.judging import READ, Judge, JudgeSettings
from trainers.rewards import Reward, Sample, Score


class JudgeReward(Reward):
    """What a model behind an OpenAI-compatible endpoint says of the answer, its scale as 0..1. `judge` is a file of
    catalogs/judges/ of kind `score`, whose `rubric` may be given here; `endpoint` says how the model is reached (see
    curation.judging.JudgeSettings). The thought is left out unless `thoughts`. `wall_seconds` bounds what is spent on
    the rollouts that are asked together (up to 16): keep it below the run's limit for a component.

    A judge can be talked to, and rewards what it likes: watch held-out accuracy beside it.

    Outcomes: scored, unparsed (its reply holds no grade), unfinished (an open thought), timeout and endpoint (it
    did not answer: failures)."""

    version: ClassVar[int] = 1
    judge: str = "score"
    rubric: str | None = Field(default=None, min_length=1)
    endpoint: JudgeSettings = JudgeSettings()
    thoughts: bool = False
    wall_seconds: float = Field(default=50.0, gt=0)

    @field_validator("judge")
    @classmethod
    def _is_there(cls, value: str) -> str:
        checked(value, "score")
        return value

    @property
    def file(self) -> JudgeFile:
        """What the judge is asked."""
        return asked(self.judge, "score", self.rubric)

    def identity(self) -> dict[str, Any]:
        """Covers what the judge is asked."""
        return super().identity() | {"file": self.file.model_dump()}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        found: list[Score] = [Score(None, "unfinished")] * len(samples)
        texts = {index: text for index, sample in enumerate(samples) if (text := self._text(sample)) is not None}
        pairs = [(samples[index].prompt_text, text) for index, text in texts.items()]
        answers = opened(self.endpoint).score(self.file, pairs, self.wall_seconds) if pairs else []
        for index, answer in zip(texts, answers, strict=True):
            found[index] = Score(self.file.share(answer.value), "scored") if answer.outcome == READ else \
                Score(None, answer.outcome)  # fmt: skip
        return found

    def _text(self, sample: Sample) -> str | None:
        from curation.verifiers.reading import after_thought

        return sample.completion if self.thoughts else after_thought(sample.completion)


def checked(name: str, kind: str) -> None:
    """Raises ValueError where there is no such judge file."""
    try:
        load_judge(name, kind)
    except UserError as error:
        raise ValueError(str(error)) from error


def asked(name: str, kind: str, rubric: str | None) -> JudgeFile:
    """A judge file, with another rubric where one is given."""
    file = load_judge(name, kind)
    return file.model_copy(update={"rubric": rubric}) if rubric else file


def opened(settings: JudgeSettings) -> Judge:
    """The judge, its connections kept as long as this process lives."""
    return _opened(settings.model_dump_json())


@functools.cache
def _opened(settings: str) -> Judge:
    return Judge(JudgeSettings.model_validate_json(settings))
