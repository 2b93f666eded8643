"""TRL's GRPOTrainer: grpo, dr_grpo, dapo, bnpo, cispo, sapo, ...; GSPO is `importance_sampling_level: sequence`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from trainers._trl import TRLGeneratingTrainer


class TRLGRPO(TRLGeneratingTrainer):
    """Options of `trl.GRPOConfig` under its own names."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"rewards", "reward_model"})
    needs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    config_class: ClassVar[str] = "GRPOConfig"

    num_generations: int = Field(default=8, ge=2)
    beta: float = Field(default=0.0, ge=0)
