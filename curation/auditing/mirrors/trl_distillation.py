"""TRL 1.16 DistillationTrainer: prompts are never looked at, only what the student generates has a limit."""

from __future__ import annotations

from typing import ClassVar

from curation.auditing.mirrors._trl import PromptMirror, trl_options


class TRLDistillation(PromptMirror):
    """TRL's DistillationConfig options that bound prompts and completions, under TRL's names and defaults."""

    version: ClassVar[int] = 1
    rewarded: ClassVar[bool] = False
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("distillation")
