"""What else could be done than cutting: memory at a length, ways to fit a longer one, and what dropping or splitting
would do to the mixture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from curation.auditing import memory
from curation.auditing.alternatives import PRESETS, alternatives, fits, largest_length
from curation.auditing.case import Case
from curation.auditing.fates import CUT, DROPPED, SPLIT, Fates
from curation.auditing.judged import Judged
from curation.auditing.model_shape import LINEARS, Shape
from curation.auditing.setting import Setting
from curation.auditing.strata import shifts
from curation.errors import UserError

OPTIMIZERS = {"adamw_bnb_8bit": "adamw_8bit", "adamw_8bit": "adamw_8bit", "adafactor": "adafactor", "sgd": "sgd"}


def shape_of(setting: Setting) -> Shape | None:
    """The model's shape; None where its config.json is unknown or of a kind that memory is not foreseen for."""
    try:
        return Shape.of(setting.config) if setting.config else None
    except UserError:
        return None


def memory_setting(stage: str, setting: Setting, length: int) -> memory.Setting:
    """How the options of a run train a step of `length` tokens; where they say nothing, full training under ZeRO-3 in
    bf16 with fp32 master weights, one example at a time, activations recomputed."""
    options = setting.options
    lora = options.get("lora") or {}
    zero = (options.get("deepspeed") or {}).get("zero_optimization", {}).get("stage") if isinstance(
        options.get("deepspeed"), dict) else None  # fmt: skip
    known = bool(options)
    adapted = {"lora_rank": int(lora.get("r", 8)), "lora_targets": _targets(lora)} if lora else {}
    reference = "none"
    if stage == "preference":
        reference = "precomputed" if options.get("precompute_ref_log_probs") else "adapter_off" if lora else "same"
    return memory.Setting(
        length=length, micro_batch=int(options.get("per_device_train_batch_size", 8 if known else 1)),
        accumulation=int(options.get("gradient_accumulation_steps", 1)), sequences=2 if stage == "preference" else 1,
        precision=cast(memory.Precision, _precision(options) if known else "mixed"),
        optimizer=cast(memory.Optimizer, OPTIMIZERS.get(str(options.get("optim")), "adamw")),
        zero=int(zero if zero is not None else 0 if known else 3), num_devices=setting.num_processes if known else 8,
        checkpointing=bool(options.get("gradient_checkpointing", not known)),
        reference=cast(memory.Reference, reference), **cast(Any, adapted),
    )  # fmt: skip


def _precision(options: dict[str, Any]) -> str:
    if options.get("dtype") in ("bfloat16", "float16"):
        return "bf16"
    return "fp32" if options.get("bf16") is False else "autocast"


def _targets(lora: dict[str, Any]) -> tuple[str, ...]:
    named = lora.get("target_modules")
    if isinstance(named, list) and set(named) <= set(LINEARS):
        return tuple(named)
    return LINEARS


def memory_at(case: Case, length: int) -> dict[str, Any] | None:
    """Bytes per device at a context length, by part, and whether each preset has them; None where the model is
    unknown. A preset's devices replace those of the run."""
    shape = shape_of(case.setting)
    if shape is None:
        return None
    step = memory_setting(case.stage, case.setting, length)
    held = memory.estimate(shape, step)
    found = {name: fits(memory.estimate(shape, replace(step, num_devices=preset.num_devices)), preset)
             for name, preset in PRESETS.items()}  # fmt: skip
    return {"total": held.total, "parts": {name: getattr(held, name) for name in vars(held)}, "fits": found}


def longest_on(case: Case) -> dict[str, int | None]:
    """The longest context that fits on each preset; empty where the model is unknown."""
    shape = shape_of(case.setting)
    if shape is None:
        return {}
    step = memory_setting(case.stage, case.setting, 1)
    return {name: largest_length(shape, step, preset) for name, preset in PRESETS.items()}


def ways(case: Case, judged: Judged, length: int, preset: str = "8x80GB") -> list[dict[str, Any]]:
    """Instead of cutting at the case's length, in the order to be tried: settings under which `length` tokens fit (with
    their memory in bytes, where the model is known), then dropping whole rows, splitting, cutting, each with the total
    variation and the worst loss that it causes among sources and modes."""
    shape, found = shape_of(case.setting), []
    if shape is not None:
        step = memory_setting(case.stage, case.setting, length)
        now = memory.estimate(shape, replace(step, num_devices=PRESETS[preset].num_devices))
        found = [{"way": "the settings as they are", "change": "nothing", "set": {}, "memory_bytes": now.total,
                  "fits": fits(now, PRESETS[preset]), "preset": preset}]  # fmt: skip
        found += [{"way": item.name, "change": item.change, "set": item.options, "memory_bytes": item.memory_bytes,
                   "fits": item.fits, "preset": preset}
                  for item in alternatives(case.stage, shape, step, length, PRESETS[preset])]  # fmt: skip
    if case.stage == "rlvr":
        return found
    cut = judged.fates.fate == CUT
    dropping = replace(judged.fates, fate=judged.fates.fate.copy())
    dropping.fate[cut | judged.dropped] = DROPPED
    gone = dropping.fate[dropping.row] != DROPPED
    dropping = Fates(dropping.fate, dropping.row[gone], dropping.start[gone], dropping.length[gone],
                     dropping.bin[gone], dropping.trained[gone], dropping.false_stop)  # fmt: skip
    plans = {"drop the long rows and re-balance by the weights of the takes": judged.under(dropping),
             "cut them as the trainer does now": judged}  # fmt: skip
    if case.mirror.plugin_name() == "trl_sft":
        split = case.mirror.model_copy(update={"packing": True, "packing_strategy": "bfd_split"})
        if split.context_length is not None:
            plans = {"split them over packed sequences (packing_strategy: bfd_split)":
                     judged.under(split.fates(case.anatomy))} | plans  # fmt: skip
    for name, rows in plans.items():
        moved = [item for item in shifts(rows) if item.kind in ("source", "mode")]
        most = max(moved, key=lambda item: item.total_variation, default=None)
        had = int(judged.has_answer.sum())
        found.append({"way": name, "change": "data", "answers_kept": int(rows.keeps_answer.sum()) / max(1, had),
                      "split": float((rows.fates.fate == SPLIT).mean()),
                      "total_variation": 0.0 if most is None else most.total_variation,
                      "worst": "" if most is None else most.worst,
                      "worst_loss": 0.0 if most is None else most.worst_loss})  # fmt: skip
    return found
