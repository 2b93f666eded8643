"""A reward model, or an ensemble of them, from folders, in the service's own process."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from curation.fingerprint import hash_folder
from trainers.rewards import Reward, Sample, Score

Positive = Annotated[float, Field(gt=0)]


class RewardModel(Reward):
    """The score of a sequence classifier with one output (`trl_reward` trains one) for prompt and completion under the
    model's own chat template, as a whole conversation. `path` is its folder; without it the run's `reward_model`.
    `max_tokens`: longer conversations have no value (nothing is cut). `per_token` times the tokens of the completion is
    taken off (length normalisation: the model's page says what it gives for a token); then `mean` and `std`, of its
    scores on known answers (on that page too), standardise the value.

    Several paths, or several `reward_model`s of the run, are an ensemble whose value is the `mean` or the `min` of its
    models' (`combine`; Coste et al. 2023, arXiv 2310.02743). Each of these is kept as reward_model.1, reward_model.2,
    in their order; a rollout on which one has no value has none. Rewards have no common unit: give `mean` and `std` as
    lists, one number for each model, or the model that spreads most decides. Models err apart that were trained on
    pairs without a common prompt: WHERE fold(prompt_hash, 3) = 0, 1, 2 in their mixtures.

    Outcomes: scored, too_long, no_prompt."""

    version: ClassVar[int] = 1
    path: str | Annotated[list[str], Field(min_length=1)]
    combine: Literal["mean", "min"] = "mean"
    max_tokens: int = Field(default=8192, ge=1)
    per_token: float | list[float] = 0.0
    mean: float | list[float] = 0.0
    std: Positive | list[Positive] = 1.0
    batch_size: int = Field(default=8, ge=1)

    @field_validator("path")
    @classmethod
    def _is_there(cls, value: str | list[str]) -> str | list[str]:
        for path in [value] if isinstance(value, str) else value:
            if not (Path(path) / "config.json").is_file():
                raise ValueError(f"there is no model in {path}; name its folder, or the run's reward_model")
        return value

    @model_validator(mode="after")
    def _one_for_each(self) -> RewardModel:
        for name in ("per_token", "mean", "std"):
            given = getattr(self, name)
            if isinstance(given, list) and len(given) != len(self.paths):
                raise ValueError(f"{name} has {len(given)} numbers for {len(self.paths)} models; give one for each")
        return self

    @property
    def paths(self) -> list[str]:
        """The folders of its models."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def parts(self) -> tuple[str, ...]:
        """The models of an ensemble by number."""
        return tuple(str(number) for number in range(1, len(self.paths) + 1)) if len(self.paths) > 1 else ()

    def identity(self) -> dict[str, Any]:
        """Covers the bytes of the weights."""
        hashes = [hash_folder(Path(path), ("*.safetensors",)) for path in self.paths]
        return super().identity() | {"weights": hashes[0] if isinstance(self.path, str) else hashes}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        return self.score_parts(samples)[0]

    def score_parts(self, samples: Sequence[Sample]) -> list[list[Score]]:
        of = [self._scores(place, samples) for place in range(len(self.paths))]
        if len(of) == 1:
            return of
        return [[_together(scores, self.combine) for scores in zip(*of, strict=True)], *of]

    def _scores(self, place: int, samples: Sequence[Sample]) -> list[Score]:
        """Those of the model at `place`."""
        import torch

        model, tokenizer = _loaded(self.paths[place])
        per_token, mean, std = (_at(value, place) for value in (self.per_token, self.mean, self.std))
        found = [Score(None, "no_prompt")] * len(samples)
        ids: dict[int, list[int]] = {}
        for index, sample in enumerate(samples):
            if sample.prompt:
                turns = [*map(dict, sample.prompt), {"role": "assistant", "content": sample.completion}]
                ids[index] = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
                if len(ids[index]) > self.max_tokens:
                    found[index] = Score(None, "too_long")
                    del ids[index]
        order = sorted(ids, key=lambda index: (len(ids[index]), index))
        for first in range(0, len(order), self.batch_size):
            of = order[first : first + self.batch_size]
            batch = tokenizer.pad(
                {"input_ids": [ids[index] for index in of]}, return_tensors="pt", padding_side="right"
            )
            with torch.inference_mode():
                scores = model(**batch.to(model.device)).logits[:, 0].float().tolist()
            for index, value in zip(of, scores, strict=True):
                if per_token:
                    value -= per_token * _answer_tokens(tokenizer, samples[index], ids[index])
                found[index] = Score((value - mean) / std, "scored")
        return found


def _at(value: float | list[float], place: int) -> float:
    return value[place] if isinstance(value, list) else value


def _together(scores: Sequence[Score], combine: str) -> Score:
    """The value of an ensemble; where a model has none, why."""
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores):
        return next(score for score in scores if score.value is None)
    return Score(min(values) if combine == "min" else sum(values) / len(values), "scored")


def _answer_tokens(tokenizer: Any, sample: Sample, ids: list[int]) -> int:
    """Tokens of a conversation behind those that it begins with as its prompt does."""
    prompt = tokenizer.apply_chat_template([*map(dict, sample.prompt)], add_generation_prompt=True, return_dict=True)
    pairs = zip(prompt["input_ids"], ids, strict=False)
    return len(ids) - sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@functools.cache
def _loaded(path: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype="auto", use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer
