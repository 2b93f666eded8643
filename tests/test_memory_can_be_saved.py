"""What a run could change to fit its devices: options that TRL has, with the memory each leaves."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import get_args

import pytest

from curation.auditing.alternatives import PRESETS, Change, alternatives, fits
from curation.auditing.memory import Setting, estimate
from curation.auditing.model_shape import Shape
from curation.errors import UserError

QWEN_7B = Shape(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18944, vocabulary=152064,
                family="qwen2")  # fmt: skip
STAGES = {"midtrain": "SFTConfig", "sft": "SFTConfig", "preference": "DPOConfig", "rlvr": "GRPOConfig"}
FULL = Setting(length=1, micro_batch=4, accumulation=2, checkpointing=False, reference="same")


@pytest.mark.parametrize("stage", STAGES)
def test_alternatives_are_set_by_options_that_trl_has(stage, tmp_path):
    import trl
    from transformers.training_args import OptimizerNames

    config = getattr(trl, STAGES[stage])
    names = {one.name for one in dataclasses.fields(config)}
    model_names = {one.name for one in dataclasses.fields(trl.ModelConfig)} - names
    setting = FULL if stage in ("preference", "rlvr") else replace(FULL, reference="none")
    found = alternatives(stage, QWEN_7B, setting, 8_192, PRESETS["8x80GB"])
    assert found
    for one in found:
        assert set(one.options) <= names | model_names, one.name
        trl.ModelConfig(**{key: value for key, value in one.options.items() if key in model_names})
        given = {key: value for key, value in one.options.items() if key in names - {"deepspeed"}}
        made = config(output_dir=str(tmp_path), use_cpu=True, num_generations=2, **given) if stage == "rlvr" else \
            config(output_dir=str(tmp_path), use_cpu=True, **given)  # fmt: skip
        assert made.optim in list(OptimizerNames)


@pytest.mark.parametrize("stage", STAGES)
def test_alternatives_come_with_their_memory_and_least_change_first(stage):
    found = alternatives(stage, QWEN_7B, FULL, 8_192, PRESETS["8x40GB"])
    order = list(get_args(Change))
    assert [order.index(one.change) for one in found] == sorted(order.index(one.change) for one in found)
    for one in found:
        assert one.setting.length == 8_192
        assert one.setting.num_devices == 8
        assert one.memory_bytes == estimate(QWEN_7B, one.setting).total
        assert one.fits is fits(estimate(QWEN_7B, one.setting), PRESETS["8x40GB"])
    assert not fits(estimate(QWEN_7B, replace(FULL, length=8_192)), PRESETS["8x40GB"])
    assert any(one.fits and one.change == "rounding" for one in found)  # ZeRO stage 3 with recomputed activations


def test_the_reference_of_a_preference_run_can_be_computed_beforehand_divided_or_switched_off():
    found = {one.name: one for one in alternatives("preference", QWEN_7B, FULL, 2_048, PRESETS["8x80GB"])}
    assert found["reference log-probabilities computed beforehand"].options == {"precompute_ref_log_probs": True}
    batch = found["one example at a time, accumulated"]
    assert batch.options == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    together = found["all 3 of these together"]
    assert together.options == {**batch.options, "gradient_checkpointing": True, "precompute_ref_log_probs": True}
    assert together.setting.reference == "precomputed"
    assert found["LoRA of all linear maps"].setting.reference == "adapter_off"
    assert found["LoRA of all linear maps"].options["gradient_checkpointing"] is True
    rlvr = {one.name: one for one in alternatives("rlvr", QWEN_7B, FULL, 2_048, PRESETS["8x80GB"])}
    assert rlvr["ZeRO stage 3: weights and reference divided"].setting.reference == "sharded"
    assert rlvr["no KL term, so no reference"].options["beta"] == 0.0


def test_two_ways_that_set_the_same_option_are_joined():
    found = alternatives("sft", QWEN_7B, replace(FULL, reference="none"), 2_048, PRESETS["8x80GB"])
    together = next(one for one in found if one.change == "rounding" and one.name.startswith("all "))
    assert together.options["model_init_kwargs"] == {"attn_implementation": "flash_attention_2"}
    assert together.options["deepspeed"]["zero_optimization"] == {"stage": 3}
    assert together.setting.zero == 3


def test_nothing_is_offered_where_nothing_is_left_to_set():
    done = Setting(length=1, precision="mixed", optimizer="adamw_8bit", zero=3, lora_rank=16, attention="flash",
                   fused_layers=True)  # fmt: skip
    assert alternatives("sft", QWEN_7B, done, 512, PRESETS["8x80GB"]) == []


def test_an_unknown_stage_is_told():
    with pytest.raises(UserError, match="did you mean 'preference'"):
        alternatives("preferences", QWEN_7B, FULL, 512, PRESETS["8x80GB"])
