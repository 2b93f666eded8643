"""TRL's DPOTrainer with every loss it has (sigmoid, ipo, apo_zero, apo_down, robust, sft, ...), also weighted."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLTrainer


class TRLDPO(TRLTrainer):
    """Options of `trl.DPOConfig` under its own names."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"reference"})
    config_class: ClassVar[str] = "DPOConfig"

    loss_type: str | list[str] = "sigmoid"
    learning_rate: float = Field(default=1e-6, gt=0)
    beta: float = Field(default=0.1, ge=0)
