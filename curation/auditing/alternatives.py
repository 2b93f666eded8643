"""Devices that a run may have, the longest context that fits on them, and what to set before any data is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

from curation.auditing.memory import Memory, Setting, estimate
from curation.auditing.model_shape import LINEARS, Shape
from curation.errors import UserError, did_you_mean

GIB = 2**30
LONGEST = 2**22

Stage = Literal["midtrain", "sft", "preference", "rlvr"]
Change = Literal["identical", "rounding", "optimizer", "objective", "method"]


@dataclass(frozen=True)
class Preset:
    """Devices of `device_bytes` each (what torch reports), of which a `margin` (0..1) stays free for the CUDA context,
    NCCL, communication buckets and fragmentation."""

    num_devices: int
    device_bytes: int
    margin: float = 0.10

    @property
    def usable_bytes(self) -> int:
        return int(self.device_bytes * (1 - self.margin))


PRESETS = {
    "8x40GB": Preset(8, int(39.4 * GIB)),
    "8x80GB": Preset(8, int(79.1 * GIB)),
}


def fits(memory: Memory, preset: Preset) -> bool:
    """Whether the total stays within what one device of the preset may use."""
    return memory.total <= preset.usable_bytes


def largest_length(shape: Shape, setting: Setting, preset: Preset) -> int | None:
    """The longest context in tokens that fits on the preset's devices (they replace the setting's number), None where
    not even one token does; at most 4,194,304. The total grows with the length, so it is found by bisection."""

    def within(length: int) -> bool:
        return fits(estimate(shape, replace(setting, length=length, num_devices=preset.num_devices)), preset)

    if not within(1):
        return None
    low, high = 1, LONGEST + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Alternative:
    """A way to fit without cutting data. `options` are those of TRL 1.16's configuration of the stage or its
    ModelConfig; `setting` is the whole setting that `memory_bytes` is of. change: identical = the same training up to
    the order of sums, rounding = the same mathematics in other kernels or types, optimizer = other updates, objective =
    another loss, method = another set of trained parameters."""

    name: str
    change: Change
    options: dict[str, Any]
    memory_bytes: int
    fits: bool
    setting: Setting = field(repr=False)


class _Step(NamedTuple):
    change: Change
    name: str
    options: dict[str, Any]
    then: dict[str, Any]


def alternatives(stage: str, shape: Shape, setting: Setting, max_length: int, preset: Preset) -> list[Alternative]:
    """What to set so that `max_length` tokens fit on the preset's devices, least change first. Ways that keep training
    identical, and those that change rounding, are listed one by one and then all together; everything after the first
    kind stands on all identical ways at once. Empty where nothing is left to set. Raises UserError for an unknown
    stage."""
    if stage not in get_args(Stage):
        raise UserError(f"'{stage}' is no stage", did_you_mean(stage, get_args(Stage)), key="stage")
    base = replace(setting, length=max_length, num_devices=preset.num_devices)
    options: dict[str, Any] = {}
    found: list[Alternative] = []
    for change in get_args(Change):
        steps = [step for step in _steps(stage, base) if step.change == change]
        found += [_alternative(shape, preset, base, options, [step]) for step in steps]
        if change in ("identical", "rounding") and len(steps) > 1:
            found.append(_alternative(shape, preset, base, options, steps))
        if change == "identical" and steps:
            base, options = found[-1].setting, found[-1].options
    return found


def _alternative(
    shape: Shape, preset: Preset, base: Setting, options: dict[str, Any], steps: list[_Step]
) -> Alternative:
    for step in steps:
        base = replace(base, **step.then)
        for key, value in step.options.items():
            options = {**options, key: {**options.get(key, {}), **value} if isinstance(value, dict) else value}
    memory = estimate(shape, base)
    name = steps[0].name if len(steps) == 1 else f"all {len(steps)} of these together"
    return Alternative(name, steps[0].change, options, memory.total, fits(memory, preset), base)


def _steps(stage: str, setting: Setting) -> Iterator[_Step]:
    """Every single change that this setting leaves to make."""
    if setting.micro_batch > 1:
        steps = setting.accumulation * setting.micro_batch
        yield _Step("identical", "one example at a time, accumulated",
                    {"per_device_train_batch_size": 1, "gradient_accumulation_steps": steps},
                    {"micro_batch": 1, "accumulation": steps})  # fmt: skip
    if not setting.checkpointing:
        yield _Step("identical", "recompute activations", {"gradient_checkpointing": True}, {"checkpointing": True})
    held = setting.reference in ("same", "sharded")
    if stage == "preference" and held:
        yield _Step("identical", "reference log-probabilities computed beforehand", {"precompute_ref_log_probs": True},
                    {"reference": "precomputed"})  # fmt: skip
    if setting.precision == "fp32":
        yield _Step("rounding", "bf16 autocast", {"bf16": True}, {"precision": "autocast"})
    if setting.attention != "flash":
        yield _Step("rounding", "attention without masks and score matrices",
                    {"model_init_kwargs": {"attn_implementation": "flash_attention_2"}},
                    {"attention": "flash"})  # fmt: skip
    if not setting.fused_layers:
        yield _Step("rounding", "fused layer kernels", {"use_liger_kernel": True}, {"fused_layers": True})
    yield from _sharding(setting, held)
    yield from _compromises(stage, setting, held)


def _sharding(setting: Setting, held: bool) -> Iterator[_Step]:
    """ZeRO stages 2 and 3. DeepSpeed keeps bf16 weights beside fp32 master weights; a 4-bit base is not divided."""
    for zero in range(max(2, setting.zero + 1), 3 if setting.quantized else 4):
        if setting.num_devices > 1:
            deepspeed = {"bf16": {"enabled": setting.precision != "fp32"}, "zero_optimization": {"stage": zero},
                         "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}  # fmt: skip
            then: dict[str, Any] = {"zero": zero}
            then |= {} if setting.precision == "fp32" else {"precision": "mixed"}
            then |= {"reference": "sharded"} if held and zero == 3 else {}
            what = "optimizer and gradients" if zero == 2 else "weights and reference" if held else "weights"
            yield _Step("rounding", f"ZeRO stage {zero}: {what} divided", {"deepspeed": deepspeed}, then)


def _compromises(stage: str, setting: Setting, held: bool) -> Iterator[_Step]:
    """What changes the updates, the loss or the trained parameters."""
    if setting.optimizer == "adamw":
        yield _Step("optimizer", "8-bit moments", {"optim": "adamw_bnb_8bit"}, {"optimizer": "adamw_8bit"})
        yield _Step("optimizer", "Adafactor", {"optim": "adafactor"}, {"optimizer": "adafactor"})
    if setting.precision == "autocast":
        yield _Step("optimizer", "bf16 weights without a master copy (small updates are lost)",
                    {"model_init_kwargs": {"dtype": "bfloat16"}}, {"precision": "bf16"})  # fmt: skip
    if stage == "rlvr" and held:
        yield _Step("objective", "no KL term, so no reference", {"beta": 0.0}, {"reference": "none"})
    lora = {"use_peft": True, "lora_r": setting.lora_rank or 16, "lora_target_modules": ["all-linear"]}
    adapted: dict[str, Any] = {"lora_rank": setting.lora_rank or 16, "lora_targets": LINEARS}
    adapted |= {} if setting.reference == "none" else {"reference": "adapter_off"}
    if not setting.lora_rank:
        yield _Step("method", "LoRA of all linear maps", lora, adapted)
    if not setting.quantized and setting.zero < 3:
        yield _Step("method", "LoRA on a 4-bit base", {**lora, "load_in_4bit": True}, {**adapted, "quantized": True})
