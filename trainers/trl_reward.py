"""TRL's RewardTrainer: Bradley-Terry, with centring, and with the rows' `margin` where all of them have one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLTrainer


class TRLReward(TRLTrainer):
    """Options of `trl.RewardConfig` under its own names."""

    version: ClassVar[int] = 1
    config_class: ClassVar[str] = "RewardConfig"

    learning_rate: float = Field(default=1e-4, gt=0)
    center_rewards_coefficient: float | None = Field(default=None, ge=0)
