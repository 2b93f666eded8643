"""A judge's grade of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from curation.judging import READ
from trainers.rewards import Sample, Score
from trainers.rewards._judged import JudgedReward


class JudgeReward(JudgedReward):
    """What a model behind an OpenAI-compatible endpoint says of the answer, its scale as 0..1. `judge` is a file of
    catalogs/judges/ of kind `score`, whose `rubric` may be given here; `endpoint` says how the model is reached (see
    curation.judging.JudgeSettings). The thought is left out unless `thoughts`. `wall_seconds` bounds what is spent on
    the rollouts that are asked together (up to 16): keep it below the run's limit for a component.

    A judge can be talked to, and rewards what it likes: watch held-out accuracy beside it.

    Outcomes: scored, unparsed (its reply holds no grade), unfinished (an open thought), timeout and endpoint (it
    did not answer: failures)."""

    version: ClassVar[int] = 1
    asks: ClassVar[str] = "score"
    judge: str = "score"
    thoughts: bool = False

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        found: list[Score] = [Score(None, "unfinished")] * len(samples)
        texts = {index: text for index, sample in enumerate(samples) if (text := self._text(sample)) is not None}
        pairs = [(samples[index].prompt_text, text) for index, text in texts.items()]
        answers = self.asked.score(self.file, pairs, self.wall_seconds) if pairs else []
        for index, answer in zip(texts, answers, strict=True):
            found[index] = Score(self.file.share(answer.value), "scored") if answer.outcome == READ else \
                Score(None, answer.outcome)  # fmt: skip
        return found

    def _text(self, sample: Sample) -> str | None:
        from curation.verifiers.reading import after_thought

        return sample.completion if self.thoughts else after_thought(sample.completion)
