"""Harnesses and drift: scores per checkpoint, and verdicts over a chain of checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curation.registry import Plugin


@dataclass(frozen=True)
class Request:
    """One sample to be answered. `prompt` is the rendered text and `prompt_ids` exactly what the model is given;
    `options` are the continuations of a log-likelihood request, `gold_index` the right one."""

    sample_id: str
    repeat: int
    prompt: str
    prompt_ids: tuple[int, ...]
    options: tuple[str, ...] = ()
    gold: str = ""
    gold_index: int = 0


@dataclass(frozen=True)
class RequestSet:
    """The requests of one benchmark (or set of probes), answered under one budget and one way of sampling.
    `sampling` holds `temperature` and, above 0, `top_p` and `seed`."""

    name: str
    requests: tuple[Request, ...]
    max_new_tokens: int
    sampling: dict[str, Any]
    stop: tuple[str, ...] = ()
    think: tuple[str, str] | None = None


@dataclass(frozen=True)
class Job:
    """One checkpoint and everything it is asked. `adapter` is None for full weights, else it is loaded on `model`.
    Generation ends at any of `stop_ids`."""

    model: Path
    adapter: Path | None
    tokenizer: Path
    weights_hash: str
    stop_ids: tuple[int, ...]
    sets: tuple[RequestSet, ...]


@dataclass(frozen=True)
class Response:
    """What a model answered. `token_ids` are the generated tokens up to and without the end token, `text` their text
    with special tokens kept; `finished` says that an end token or a stop text ended it, not the budget. `logprobs`
    holds one summed log-probability per option. `problem` says why there is no answer."""

    sample_id: str
    repeat: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finished: bool = False
    logprobs: tuple[float, ...] = ()
    problem: str = ""


class Harness(Plugin):
    """Puts the requests of a job to a model."""

    kind: ClassVar[str] = "harnesses"

    @abstractmethod
    def conditions(self) -> dict[str, Any]:
        """What of this harness may change an answer beyond its version: numeric type, device, batch size."""

    @abstractmethod
    def software(self) -> str:
        """Names and versions of the packages that answer, as text."""

    @abstractmethod
    def evaluate(self, job: Job, work: Path, advance: Callable[[int], None]) -> dict[str, list[Response]]:
        """The responses of every set by its name, in any order; a request without one is counted as missing by the
        caller. `work` is an empty folder for its files; `advance(n)` reports answered requests. Raises
        InstrumentError where the harness itself failed."""
