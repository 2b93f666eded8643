"""Answers to prompts by a checkpoint or behind an endpoint: candidates for annotation, revisions, pass rates.

A generator is a plug-in file here: `class X(Generator)` with `writer` and `generate`. What a job asks for is a list of
`Ask`s, each with an id and a seed of its own, so that an answer does not depend on what else is asked.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from curation.fingerprint import canonical
from curation.registry import Plugin

if TYPE_CHECKING:
    from curation.catalog import Catalog

STOP, LENGTH, ERROR = "stop", "length", "error"
FINISH_REASONS = (STOP, LENGTH, ERROR)


class Sampling(NamedTuple):
    """What all answers of a job have in common: the share of probability that is drawn from (0 < top_p <= 1), and the
    tokens after which an answer is cut."""

    top_p: float
    max_tokens: int


class Ask(NamedTuple):
    """One answer that is wanted. `prompt_key` is the same for the same messages and tools; `prompt` are messages
    (schema.MESSAGE) and `tools` JSON text. `sample` is its 0-based number among those of one prompt and temperature;
    temperature 0 takes the likeliest token. `seed` (0 .. 2^31 - 1) is this answer's alone."""

    id: str
    prompt_key: str
    prompt: Sequence[dict[str, Any]]
    tools: str | None
    sample: int
    temperature: float
    seed: int


class Answer(NamedTuple):
    """What became of an ask, by its id. `message` is one message of the assistant (schema.MESSAGE, keys that it has),
    None where there is none; `text` its content. `finish_reason` is one of FINISH_REASONS: an `error` says in `detail`
    what went wrong, and is asked again at the next run. Tokens are None where nobody counted them."""

    id: str
    message: dict[str, str] | None
    text: str
    finish_reason: str
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Writer:
    """Who answers. `model` is the name shown; `weights` the hash of its weights or, where only a name is known, that
    name. `conditions` are all else that decides an answer, and `software` what it was written with (no part of its
    identity)."""

    model: str
    weights: str
    conditions: Mapping[str, Any] = field(default_factory=dict)
    software: str = ""


def stable(value: dict[str, Any]) -> dict[str, Any]:
    """Options of a file that are handed on, unchanged. Raises ValueError for what has no place in an identity."""
    try:
        canonical(value)
    except TypeError as error:
        raise ValueError(f"holds what no file may: {error}; write text, numbers, lists and mappings") from error
    return value


class Generator(Plugin):
    """Answers prompts. Its fields are its options."""

    kind: ClassVar[str] = "generators"

    @abstractmethod
    def writer(self, catalog: Catalog) -> Writer:
        """Who will answer; nothing heavy is loaded. Raises UserError where the options name nothing that is there."""

    @abstractmethod
    def generate(self, catalog: Catalog, asks: Sequence[Ask], sampling: Sampling) -> Iterator[list[Answer]]:
        """One answer for each ask, in batches as they are finished, in any order. An ask that fails is an answer with
        `error`; raises UserError or InstrumentError where none can be answered."""
