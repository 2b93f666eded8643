"""What components that ask a judge have in common: the file that says what is asked, and how the model is reached."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.errors import UserError
from curation.judge_files import JudgeFile, load_judge
from curation.judging import Judge, JudgeSettings
from trainers.rewards import Reward


class JudgedReward(Reward):
    """`judge` is a file of catalogs/judges/ of kind `asks`, whose `rubric` may be given here; `endpoint` says how the
    model is reached (see curation.judging.JudgeSettings). `wall_seconds` bounds what is spent on the rollouts that are
    asked together (up to 16): keep it below the run's limit for a component."""

    asks: ClassVar[str]
    judge: str
    rubric: str | None = Field(default=None, min_length=1)
    endpoint: JudgeSettings = JudgeSettings()
    wall_seconds: float = Field(default=50.0, gt=0)

    @field_validator("judge")
    @classmethod
    def _is_there(cls, value: str) -> str:
        try:
            load_judge(value, cls.asks)
        except UserError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def file(self) -> JudgeFile:
        """What the judge is asked."""
        file = load_judge(self.judge, self.asks)
        return file.model_copy(update={"rubric": self.rubric}) if self.rubric else file

    @property
    def asked(self) -> Judge:
        """The judge, its connections kept as long as this process lives."""
        return _opened(self.endpoint.model_dump_json())

    def identity(self) -> dict[str, Any]:
        """Covers what the judge is asked."""
        return super().identity() | {"file": self.file.model_dump()}


@functools.cache
def _opened(settings: str) -> Judge:
    return Judge(JudgeSettings.model_validate_json(settings))
