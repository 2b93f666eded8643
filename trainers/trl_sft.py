"""TRL's SFTTrainer, for mid-training and SFT, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from curation.errors import did_you_mean
from curation.launching import model_environment
from trainers import Launch, Trainer

RESERVED = (
    "output_dir",
    "report_to",
    "disable_tqdm",
    "use_cpu",
    "save_strategy",
    "dataset_num_proc",
    "chat_template_path",
)


class TRLSFT(Trainer):
    """Options of `trl.SFTConfig` under its own names. Those that kedge itself needs to know are listed here with its
    defaults; every other one that SFTConfig has is taken as it is, an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="allow")
    version: ClassVar[int] = 1

    max_length: int | None = 1024
    packing: bool = False
    assistant_only_loss: bool = False
    max_steps: int = -1
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-5, gt=0)
    save_steps: float = Field(default=500, gt=0)
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _known(self) -> TRLSFT:
        from dataclasses import fields

        from trl import SFTConfig

        known = {item.name for item in fields(SFTConfig)} - set(RESERVED)
        for name in self.model_extra or {}:
            if name in RESERVED:
                raise ValueError(f"'{name}' is set by kedge; remove it")
            if name not in known:
                raise ValueError(f"SFTConfig has no option '{name}'; {did_you_mean(name, known)}")
        return self

    def config(self) -> dict[str, Any]:
        """The keyword arguments of SFTConfig, without what kedge sets."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in ("dtype", "lora")}
        return own | (self.model_extra or {})

    def command(self, launch: Launch) -> list[str]:
        script = ["-m", "trainers.trl_sft_process", str(launch.job)]
        if launch.num_processes == 1:
            return [sys.executable, *script]
        return [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--num_processes",
            str(launch.num_processes),
            *script,
        ]

    def launch(self, launch: Launch) -> int:
        with launch.log.open("ab") as log:
            process = subprocess.Popen(self.command(launch), stdout=log, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, env=model_environment())  # fmt: skip
            try:
                return process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
