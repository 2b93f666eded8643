"""What scores the steps of an answer: any component on what stands before, a classifier of tokens, a judge."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.fingerprint import hash_folder
from curation.judging import READ
from trainers.rewards import Reward, Sample, Score
from trainers.rewards._judged import JudgedReward

Steps = Sequence[str]


def on_prefixes(reward: Reward, samples: Sequence[Sample], steps_of: Sequence[Steps]) -> list[list[Score]]:
    """The scores of N rollouts' steps by a component that scores answers: a step's score is that of the answer up to
    its end. `meta` has the steps up to there as `steps`."""
    prefixes = [dataclasses.replace(sample, completion="".join(steps[:count]), num_tokens=None, finished=None,
                                    meta={**sample.meta, "steps": list(steps[:count])})
                for sample, steps in zip(samples, steps_of, strict=True)
                for count in range(1, len(steps) + 1)]  # fmt: skip
    scores = list(reward.score(prefixes)) if prefixes else []
    if len(scores) != len(prefixes):
        return [[Score(None, "wrong_length")] * len(steps) for steps in steps_of]
    rest = iter(scores)
    return [[next(rest) for _ in steps] for steps in steps_of]


class StepScorer(Reward):
    """A scorer that sees all steps of an answer at once."""

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """Each answer as one step."""
        return [scores[0] for scores in self.score_steps(samples, [[sample.completion] for sample in samples])]

    @abstractmethod
    def score_steps(self, samples: Sequence[Sample], steps_of: Sequence[Steps]) -> list[list[Score]]:
        """The scores of N rollouts' steps, as many as each has."""


class JudgedSteps(StepScorer, JudgedReward):
    """A judge that grades all steps in one reply, each as 0..1: `judge` is a file of catalogs/judges/ of kind `steps`.
    The rest as of the component `judge`."""

    version: ClassVar[int] = 1
    asks: ClassVar[str] = "steps"
    judge: str = "steps"

    def score_steps(self, samples: Sequence[Sample], steps_of: Sequence[Steps]) -> list[list[Score]]:
        file = self.file
        items = [(sample.prompt_text, [step.strip() for step in steps])
                 for sample, steps in zip(samples, steps_of, strict=True)]  # fmt: skip
        answers = self.asked.steps(file, items, self.wall_seconds) if items else []
        return [[Score(file.share(value), "scored") for value in answer.value] if answer.outcome == READ
                else [Score(None, answer.outcome)] * len(steps)
                for answer, steps in zip(answers, steps_of, strict=True)]  # fmt: skip


class TokenClassifier(StepScorer):
    """A process reward model as TRL's former PRM trainer made them: a token classifier in the folder `path`, read at
    the last token of each step of `prompt step separator step separator ...`, each tokenised by itself, steps without
    white space around. The score is the probability of the labels `positive`; of a model with one label its sigmoid.
    `max_tokens`: longer answers have no value (nothing is cut)."""

    version: ClassVar[int] = 1
    path: str
    separator: str = Field(default="\n", min_length=1)
    positive: list[int] = [1]
    max_tokens: int = Field(default=8192, ge=1)

    @field_validator("path")
    @classmethod
    def _has_model(cls, value: str) -> str:
        if not (Path(value) / "config.json").is_file():
            raise ValueError(f"there is no model in {value}; name its folder")
        return value

    def identity(self) -> dict[str, Any]:
        """Covers the bytes of the weights."""
        return super().identity() | {"weights": hash_folder(Path(self.path), ("*.safetensors",))}

    def score_steps(self, samples: Sequence[Sample], steps_of: Sequence[Steps]) -> list[list[Score]]:
        return [self._of(sample.prompt_text, steps) for sample, steps in zip(samples, steps_of, strict=True)]

    def _of(self, prompt: str, steps: Steps) -> list[Score]:
        import torch

        model, tokenizer = _loaded(self.path)
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        ids, ends = start + _ids(tokenizer, prompt), []
        for step in steps:
            ids += _ids(tokenizer, step.strip()) + _ids(tokenizer, self.separator)
            ends.append(len(ids) - 1)
        if len(ids) > self.max_tokens:
            return [Score(None, "too_long")] * len(steps)
        with torch.inference_mode():
            logits = model(torch.tensor([ids], device=model.device)).logits[0, ends].float()
        if logits.shape[1] == 1:
            return [Score(value, "scored") for value in logits[:, 0].sigmoid().tolist()]
        if not all(0 <= label < logits.shape[1] for label in self.positive):
            raise ValueError(f"the model has {logits.shape[1]} labels, and positive is {self.positive}")
        return [Score(min(value, 1.0), "scored") for value in logits.softmax(1)[:, self.positive].sum(1).tolist()]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@functools.cache
def _loaded(path: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(path, dtype="auto", use_safetensors=True)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), AutoTokenizer.from_pretrained(path)
