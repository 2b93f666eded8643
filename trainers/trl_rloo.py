"""TRL's RLOOTrainer: REINFORCE with a leave-one-out baseline (arXiv 2402.14740)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLGeneratingTrainer


class TRLRLOO(TRLGeneratingTrainer):
    """Options of `trl.RLOOConfig` under its own names."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"rewards", "reward_model"})
    needs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    config_class: ClassVar[str] = "RLOOConfig"

    num_generations: int = Field(default=2, ge=2)
