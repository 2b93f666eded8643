"""TRL's DistillationTrainer: on-policy distillation (GKD, arXiv 2306.13649) from the run's `teacher`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLTrainer


class TRLDistillation(TRLTrainer):
    """Options of `trl.DistillationConfig` under its own names."""

    version: ClassVar[int] = 1
    config_class: ClassVar[str] = "DistillationConfig"

    max_completion_length: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1e-6, gt=0)
