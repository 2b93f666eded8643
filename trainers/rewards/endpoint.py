"""A reward model behind an HTTP endpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.endpoints import ANSWERED, Connection, Endpoint, plain_url
from trainers.rewards import Reward, Sample, Score


class EndpointReward(Reward):
    """A reward model at `url` gets {"model", "input": [prompt and answer, ...]} and replies {"scores": [...]} or
    {"data": [{"score" or "reward": number} or {"data": [number]}, ...]} in order; values are clipped to `scale` where
    one is given. The thought is left out unless `thoughts`. Requests are tried `tries` times with growing pauses where
    the endpoint is overloaded or away (429, 5xx, no connection), for `wall_seconds` in all: keep it below the run's
    limit for a component. The key is read from the environment variable `key_variable`.

    Outcomes: scored, unreadable (the reply holds no scores), unfinished (an open thought), timeout, endpoint and
    wrong_length (failures)."""

    version: ClassVar[int] = 2
    url: str
    model: str = ""
    scale: tuple[float, float] | None = None
    thoughts: bool = False
    key_variable: str | None = None
    timeout_seconds: float = Field(default=50.0, gt=0)
    tries: int = Field(default=4, ge=1)
    wall_seconds: float = Field(default=50.0, gt=0)

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_url(value)

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        found: list[Score] = [Score(None, "unfinished")] * len(samples)
        texts = {index: text for index, sample in enumerate(samples) if (text := self._text(sample)) is not None}
        asked = [f"{samples[index].prompt_text}\n\n{text}" for index, text in texts.items()]
        for index, score in zip(texts, self._scores(asked) if asked else [], strict=True):
            found[index] = score
        return found

    def _text(self, sample: Sample) -> str | None:
        from curation.verifiers.reading import after_thought

        return sample.completion if self.thoughts else after_thought(sample.completion)

    def _scores(self, texts: list[str]) -> list[Score]:
        endpoint = Endpoint(url=self.url, key_variable=self.key_variable, timeout_seconds=self.timeout_seconds,
                            tries=self.tries, concurrency=1)  # fmt: skip
        with Connection(endpoint) as connection:
            reply = connection.post("", {"model": self.model, "input": texts},
                                    until=time.monotonic() + self.wall_seconds)  # fmt: skip
        if reply.outcome != ANSWERED:
            return [Score(None, reply.outcome)] * len(texts)
        try:
            values = read_scores(reply.value)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError):
            return [Score(None, "unreadable")] * len(texts)
        if len(values) != len(texts):
            return [Score(None, "wrong_length")] * len(texts)
        low, high = self.scale or (-float("inf"), float("inf"))
        return [Score(min(max(value, low), high), "scored") for value in values]


def read_scores(reply: Any) -> list[float]:
    """The numbers of a reward model's reply. Raises ValueError, KeyError, IndexError or TypeError where it has none."""
    if isinstance(reply, dict) and "scores" in reply:
        return [float(value) for value in reply["scores"]]
    found = []
    for item in reply["data"]:
        value = next((item[name] for name in ("score", "reward", "data") if name in item), None)
        found.append(float(value[-1] if isinstance(value, list) else value))  # type: ignore[arg-type]
    return found
