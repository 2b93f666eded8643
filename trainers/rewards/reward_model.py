"""A reward model from a folder, in the service's own process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.fingerprint import hash_folder
from trainers.rewards import Reward, Sample, Score


class RewardModel(Reward):
    """The score of a sequence classifier with one output (`trl_reward` trains one) for prompt and completion under the
    model's own chat template, as a whole conversation. `path` is its folder; without it the run's `reward_model`.
    `max_tokens`: longer conversations have no value (nothing is cut). `mean` and `std`, of its scores on known answers,
    standardise the value.

    Outcomes: scored, too_long, no_prompt."""

    version: ClassVar[int] = 1
    path: str
    max_tokens: int = Field(default=8192, ge=1)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=8, ge=1)

    @field_validator("path")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if not (Path(value) / "config.json").is_file():
            raise ValueError(f"there is no model in {value}; name its folder, or the run's reward_model")
        return value

    def identity(self) -> dict[str, Any]:
        """Covers the bytes of the weights."""
        return super().identity() | {"weights": hash_folder(Path(self.path), ("*.safetensors",))}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        import torch

        model, tokenizer = _loaded(self.path)
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
                found[index] = Score((value - self.mean) / self.std, "scored")
        return found


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
