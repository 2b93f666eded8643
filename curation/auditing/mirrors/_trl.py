"""What the mirrors of TRL 1.16 share: pairs and prompts, options, and why a trainer stops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates
from curation.auditing.mirrors import Mirror
from curation.measures.pair_anatomy import complete

VERSIONS = ">=1.16,<1.17"


def trl_options(name: str) -> tuple[tuple[str, str], ...]:
    """The files that list every option of one of TRL's configurations (`sft`, `dpo`, ...)."""
    return (
        ("trl", f"trainer/{name}_config.py"),
        ("trl", "trainer/base_config.py"),
        ("transformers", "training_args.py"),
    )


class PairMirror(Mirror):
    """A trainer of preference rows, whose sides are rendered over their prompt."""

    stages: ClassVar[tuple[str, ...]] = ("preference",)
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = VERSIONS
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_num_proc": (None, 1)}
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "trl_prompt_completion"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        missing = anatomy.num_rows - complete(anatomy)
        lacking = [f"{missing:,} rows lack their chosen or rejected side (they suit KTO)"] if missing else []
        return lacking + raising(anatomy)


class PromptMirror(Mirror):
    """A trainer that generates: prompts are passed as they are, whatever their length; completions have a limit."""

    stages: ClassVar[tuple[str, ...]] = ("rlvr",)
    limits: ClassVar[str] = "vllm_max_model_length"
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = VERSIONS
    dead_options: ClassVar[dict[str, str]] = {
        "max_prompt_length": "a rule on the length of prompts: TRL passes every prompt as it is",
    }  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_num_proc": (None, 1)}
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    max_completion_length: int | None = Field(default=512, ge=1)
    vllm_max_model_length: int | None = Field(default=None, ge=1)
    mask_truncated_completions: bool = False

    @property
    def response_length(self) -> int | None:
        """Tokens that a completion may have."""
        return self.max_completion_length

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "whole"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        return raising(anatomy)

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens = anatomy["tokens"].to_numpy().astype(np.int64)
        return Fates.prefixes(np.full(len(tokens), WHOLE), tokens, np.zeros(len(tokens), np.int64))


def right_cut(tokens: np.ndarray, prompt: np.ndarray, limit: int | None, dropped: np.ndarray) -> Fates:
    """Sequences [M] that keep their first `limit` tokens and train what follows the prompt."""
    kept = tokens.copy() if limit is None else np.minimum(tokens, limit)
    kept[dropped] = 0
    fate = np.where(dropped, DROPPED, np.where(kept < tokens, CUT, WHOLE))
    return Fates.prefixes(fate, kept, np.clip(kept - prompt, 0, None))


def raising(anatomy: pa.Table) -> list[str]:
    """Why a trainer stops: rows on which the template raises."""
    count = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
    first = next((text for text in anatomy["render_error"].to_pylist() if text), "") if count else ""
    return [f"the template raises on {count:,} rows, and TRL with it ({first})"] if count else []
