"""TRL's KTOTrainer, for answers that are good or bad by themselves: of a pair both sides, of a lone side that one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLTrainer


class TRLKTO(TRLTrainer):
    """Options of `trl.KTOConfig` under its own names."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"reference"})
    config_class: ClassVar[str] = "KTOConfig"

    learning_rate: float = Field(default=1e-6, gt=0)
    beta: float = Field(default=0.1, ge=0)
