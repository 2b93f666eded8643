"""TRL's DistillationTrainer: on-policy distillation (GKD, arXiv 2306.13649) from the run's `teacher`."""

from __future__ import annotations

from typing import ClassVar

from trainers._trl import TRLGeneratingTrainer


class TRLDistillation(TRLGeneratingTrainer):
    """Options of `trl.DistillationConfig` under its own names."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"teacher"})
    needs: ClassVar[frozenset[str]] = uses
    config_class: ClassVar[str] = "DistillationConfig"
