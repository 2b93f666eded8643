"""Rewards for RL: what a component of a reward is. TRL, verl and evaluations share them.

A component is a plug-in file here: `class X(Reward)` with `score`. `combining.py` sums components with their weights
and keeps each; `service.py` does so in a process of the project's interpreter, which `client.py` asks, watches and
kills; `for_trl.py` and `verl_shim.py` are what the trainers call. `evidence.py` brings every rollout back to the lake.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from curation.registry import Plugin


@dataclass(frozen=True)
class Sample:
    """One rollout. `completion` is its text without special tokens, thought included; `prompt` its messages and
    `prompt_text` their contents, one after the other. `num_tokens` counts the completion's tokens; `finished` says
    whether it ended by itself; None where the trainer cannot tell. `meta` is whatever else the trainer knows."""

    completion: str
    row_id: str | None = None
    prompt: Sequence[Mapping[str, Any]] = ()
    prompt_text: str = ""
    num_tokens: int | None = None
    finished: bool | None = None
    ground_truth: str | None = None
    verifier: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Sample:
        """A sample from JSON, keys that it does not know left out."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known and value is not None})


class Score(NamedTuple):
    """What a component says of one rollout: a finite number, or None where it has nothing to say, and why."""

    value: float | None
    outcome: str


class Reward(Plugin):
    """A component of a reward. Its fields are its options."""

    kind: ClassVar[str] = "rewards"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what a score is made of, for most nothing. A part is kept beside the component as COMPONENT.PART and
        counts for nothing."""
        return ()

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """The scores of N rollouts in their order."""

    def score_parts(self, samples: Sequence[Sample]) -> list[list[Score]]:
        """The scores of N rollouts, then those of each of `parts`."""
        return [self.score(samples)]
