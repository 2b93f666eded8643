"""What the wrappers of TRL's trainers share: options under TRL's names, and the command of the training process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import ConfigDict, Field, field_validator, model_validator

from curation import registry
from curation.auditing.mirrors import Mirror
from curation.config import SHIPPED, read_text, read_yaml, shown
from curation.errors import did_you_mean
from trainers import Launch, Trainer

# Options that kedge sets itself, with where a user says it instead.
RESERVED = {
    "output_dir": "", "disable_tqdm": "", "use_cpu": "",
    "save_strategy": "save_steps", "dataset_num_proc": "", "chat_template_path": "the run's template",
    "push_to_hub": "", "trust_remote_code": "the run's trust_remote_code",
    "teacher_model_name_or_path": "the run's teacher", "remove_unused_columns": "",
}  # fmt: skip


class TRLTrainer(Trainer):
    """A trainer of TRL. Fields are options of its configuration class under TRL's own names; those that kedge gives
    another default are listed, every other one that TRL has is taken as it is, an unknown one is an error.

    `lora` holds the arguments of `peft.LoraConfig`; with `bits: 4` (QLoRA) the base is loaded in NF4. `deepspeed` and
    `fsdp_config` may name a file of catalogs/sharding/."""

    model_config = ConfigDict(frozen=True, extra="allow")
    uses: ClassVar[frozenset[str]] = frozenset()
    config_class: ClassVar[str]
    reserved: ClassVar[frozenset[str]] = frozenset(RESERVED)

    max_steps: int = -1
    num_train_epochs: float = Field(default=1.0, gt=0)
    per_device_train_batch_size: int = Field(default=8, ge=1)
    save_steps: float = Field(default=500, gt=0)
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: dict[str, Any] | None = None
    deepspeed: str | dict[str, Any] | None = None
    fsdp_config: str | dict[str, Any] | None = None

    @field_validator("deepspeed", "fsdp_config")
    @classmethod
    def _by_name(cls, value: str | dict[str, Any] | None) -> dict[str, Any] | None:
        return sharding(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> TRLTrainer:
        from dataclasses import fields

        import trl

        known = {item.name for item in fields(getattr(trl, self.config_class))} - self.reserved
        mirror = cast(type[Mirror], registry.load("mirrors", self.plugin_name()))
        for name in self.model_extra or {}:
            if name in mirror.dead_options:
                raise ValueError(f"'{name}' is dead: {self.config_class} does not take it; {mirror.instead(name)}")
            if name in self.reserved:
                step = RESERVED.get(name) or ""
                raise ValueError(f"'{name}' is set by kedge; " + (f"see {step}" if step else "remove it"))
            if name not in known:
                raise ValueError(f"{self.config_class} has no option '{name}'; {did_you_mean(name, known)}")
        for name in set(self.lora or {}) - lora_options() - {"bits"}:
            raise ValueError(f"LoraConfig has no option '{name}'; {did_you_mean(name, lora_options())}")
        if (self.lora or {}).get("bits", 4) != 4:
            raise ValueError("lora.bits is 4 (NF4) or absent; remove it for LoRA on the weights as they are")
        return self

    def config(self) -> dict[str, Any]:
        """The keyword arguments of the configuration class, without what kedge sets."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in ("dtype", "lora")}
        return {name: value for name, value in own.items() if value is not None} | (self.model_extra or {})

    def command(self, launch: Launch) -> list[str]:
        script = ["-m", "trainers.process", str(launch.job)]
        if launch.num_processes == 1:
            return [sys.executable, *script]
        # `accelerate launch` starts one process on the CPU whatever it is told, and reads a configuration of the user's
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
                str(launch.num_processes), *script]  # fmt: skip

    def launch(self, launch: Launch) -> int:
        settings = {} if has_gpu() else {"ACCELERATE_USE_CPU": "true"}
        with launch.log.open("ab") as log:
            process = subprocess.Popen(launch.wrapped(self.command(launch)), stdout=log, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, env=launch.environment(settings))  # fmt: skip
            try:
                return process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()


class TRLGeneratingTrainer(TRLTrainer):
    """A trainer of TRL whose policy answers prompts while it is trained."""

    max_completion_length: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1e-6, gt=0)


def sharding(name: str) -> dict[str, Any]:
    """A DeepSpeed or FSDP configuration by its name in catalogs/sharding/, or by the path of a JSON or YAML file."""
    known = {path.stem: path for path in sorted((SHIPPED / "sharding").glob("*.yaml"))}
    if name in known:
        return dict(read_yaml(read_text(known[name]), shown(known[name]))[0])
    try:
        return dict(json.loads(Path(name).read_text()))
    except (OSError, ValueError) as error:
        what = f"'{name}' is neither a sharding of kedge nor a JSON file"
        raise ValueError(f"{what}; {did_you_mean(name, known)}") from error


def lora_options() -> set[str]:
    """Names of the arguments of peft.LoraConfig."""
    from dataclasses import fields

    from peft import LoraConfig

    return {item.name for item in fields(LoraConfig) if item.init}


def has_gpu() -> bool:
    """Whether torch sees an accelerator."""
    import torch

    return bool(torch.cuda.is_available())
