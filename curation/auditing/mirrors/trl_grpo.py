"""TRL 1.16 GRPOTrainer: prompts are never looked at, only what is generated has a limit."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from curation.auditing.mirrors._trl import GONE_GROUPS, PromptMirror, trl_options


class TRLGRPO(PromptMirror):
    """TRL's GRPOConfig options that bound prompts and completions, under TRL's names and defaults."""

    version: ClassVar[int] = 1
    dead_options: ClassVar[dict[str, str]] = GONE_GROUPS
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("grpo")

    num_generations: int | None = Field(default=8, ge=2)
