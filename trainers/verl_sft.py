"""verl's supervised fine-tuning (`verl.trainer.sft_trainer`), through torchrun."""

from __future__ import annotations

from typing import ClassVar

from curation.auditing.mirrors import verl_sft
from trainers._verl import RESERVED, VerlTrainer


class VerlSFTTrainer(VerlTrainer):
    """Options of verl's `sft_trainer_engine.yaml` under its own names."""

    version: ClassVar[int] = 1
    entry: ClassVar[str] = "sft"
    data_options: ClassVar[frozenset[str]] = verl_sft.VerlSFT.data_options
    elsewhere: ClassVar[dict[str, str]] = {"ulysses_sequence_parallel_size": "engine.ulysses_sequence_parallel_size"}
    reserved: ClassVar[dict[str, str]] = RESERVED | {
        "model.path": "the run's base or parent", "model.tokenizer_path": "the run's tokenizer",
        "model.trust_remote_code": "the run's trust_remote_code", "model.custom_chat_template": "the run's template",
    }  # fmt: skip
