"""TRL's SFTTrainer, for mid-training and SFT."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLTrainer


class TRLSFT(TRLTrainer):
    """Options of `trl.SFTConfig` under its own names."""

    version: ClassVar[int] = 1
    config_class: ClassVar[str] = "SFTConfig"

    max_length: int | None = 1024
    packing: bool = False
    assistant_only_loss: bool = False
    learning_rate: float = Field(default=2e-5, gt=0)
