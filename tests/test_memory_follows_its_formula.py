"""Memory per device by formula: published figures, and laws that hold for every shape and setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.alternatives import GIB, LONGEST, PRESETS, Preset, fits, largest_length
from curation.auditing.memory import Setting, estimate
from curation.auditing.model_shape import FAMILIES, Shape
from curation.errors import UserError

LLAMA_7B = Shape(layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocabulary=32000)
QWEN_7B = Shape(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18944, vocabulary=152064,
                family="qwen2")  # fmt: skip
MANY, FEW = settings(max_examples=150, deadline=None), settings(max_examples=30, deadline=None)


def test_mixed_precision_adamw_is_sixteen_bytes_a_parameter_and_a_reference_two():
    memory = estimate(LLAMA_7B, Setting(length=1, precision="mixed", reference="same"))
    number = LLAMA_7B.num_parameters
    assert (memory.weights, memory.gradients, memory.optimizer) == (2 * number, 2 * number, 12 * number)
    assert memory.reference == 2 * number
    autocast = estimate(LLAMA_7B, Setting(length=1))
    assert autocast.weights + autocast.gradients + autocast.optimizer == 16 * number


def test_zero_divides_as_in_its_paper():
    number = 7_500_000_000  # figure 1 of arXiv 1910.02054: 7.5 B parameters on 64 devices
    shape = Shape(layers=1, hidden=1, heads=1, kv_heads=1, head_dim=1, intermediate=1, vocabulary=1)
    shape = replace(shape, vocabulary=(number - shape.num_parameters + 2) // 2)
    states = []
    for zero in range(4):
        memory = estimate(shape, Setting(length=1, precision="mixed", zero=zero, num_devices=64))
        states.append((memory.weights + memory.gradients + memory.optimizer) / 1e9)
    assert states == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)


def test_stage_three_on_eight_devices_is_an_eighth():
    one = estimate(LLAMA_7B, Setting(length=1, precision="mixed"))
    eight = estimate(LLAMA_7B, Setting(length=1, precision="mixed", zero=3, num_devices=8, reference="sharded"))
    assert eight.weights == one.weights / 8
    assert eight.gradients == one.gradients / 8
    assert eight.optimizer == one.optimizer / 8
    assert eight.reference == 2 * LLAMA_7B.num_parameters / 8


def test_plain_data_parallelism_keeps_gradients_twice_and_stage_three_gathers_layers():
    def overhead(zero: int, num_devices: int) -> int:
        return estimate(LLAMA_7B, Setting(length=64, precision="mixed", zero=zero, num_devices=num_devices)).overhead

    number = LLAMA_7B.num_parameters
    assert overhead(0, 8) - overhead(0, 1) == 2 * number
    assert overhead(1, 8) == overhead(2, 8) == overhead(0, 1) == overhead(3, 1)
    gathered = 2 * LLAMA_7B.linear_parameters + LLAMA_7B.vocabulary * LLAMA_7B.hidden
    assert overhead(3, 8) - overhead(0, 1) == 2 * gathered


def test_eight_bit_moments_and_a_four_bit_base_have_their_published_size():
    memory = estimate(LLAMA_7B, Setting(length=1, precision="bf16", optimizer="adamw_8bit"))
    embedding = LLAMA_7B.vocabulary * LLAMA_7B.hidden
    blocks = (LLAMA_7B.num_parameters - embedding) / 256
    assert memory.optimizer == pytest.approx(
        2 * (LLAMA_7B.num_parameters - embedding) + 8 * blocks + 8 * embedding, rel=1e-6)  # fmt: skip
    base = estimate(LLAMA_7B, Setting(length=1, precision="bf16", lora_rank=1, quantized=True)).weights
    linear = 32 * LLAMA_7B.linear_parameters
    assert base == pytest.approx(0.5625 * linear + 2 * (LLAMA_7B.num_parameters - linear), rel=0.005)


def test_the_loss_in_tiles_does_not_grow_with_the_vocabulary_of_every_token():
    tiled = estimate(QWEN_7B, Setting(length=32_768, precision="bf16", lora_rank=8)).logits
    whole = estimate(QWEN_7B, Setting(length=32_768, precision="bf16", lora_rank=8, fused_logits=False)).logits
    assert whole > 12 * 152_064 * 32_768
    assert tiled < 2 * 4_096 * 32_768 + 8 * 3_584 * 32_768


@pytest.mark.parametrize("changes", [
    {"length": 0, "precision": "fp16", "zero": 4, "optimizer": "adam", "attention": "none", "reference": "ref"},
    {"length": 1, "quantized": True, "reference": "adapter_off"},
    {"length": 1, "lora_rank": -1, "reserved_bytes": -1},
    {"length": 1, "lora_rank": 1, "lora_targets": ("q", "qproj")},
])  # fmt: skip
def test_every_wrong_value_of_a_setting_is_told_at_once(changes):
    with pytest.raises(UserError) as told:
        Setting(**changes)
    expected = set(changes) - {"lora_rank"} if changes.get("lora_rank") == 1 else set(changes)
    assert {problem.key for problem in told.value.problems} | {"length"} == expected | {"length"}


SHAPES = st.builds(
    lambda layers, heads, group, head_dim, wide, words, tied, family: Shape(
        layers=layers, hidden=heads * group * head_dim, heads=heads * group, kv_heads=heads, head_dim=head_dim,
        intermediate=wide, vocabulary=words, tied=tied, family=family),
    layers=st.integers(2, 80), heads=st.integers(1, 8), group=st.integers(1, 8),
    head_dim=st.sampled_from([16, 64, 128]), wide=st.integers(64, 30_000), words=st.integers(100, 260_000),
    tied=st.booleans(), family=st.sampled_from(sorted(FAMILIES)),
)  # fmt: skip
SETTINGS = st.builds(
    Setting, length=st.integers(1, 100_000), micro_batch=st.integers(1, 8), sequences=st.integers(1, 2),
    precision=st.sampled_from(["autocast", "mixed", "bf16", "fp32"]), zero=st.integers(0, 3),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "adafactor", "sgd"]), num_devices=st.integers(1, 64),
    checkpointing=st.booleans(), attention=st.sampled_from(["flash", "sdpa", "eager"]), fused_logits=st.booleans(),
    fused_layers=st.booleans(), reference=st.sampled_from(["none", "same", "sharded", "precomputed"]),
    lora_rank=st.sampled_from([0, 0, 1, 16]),
)  # fmt: skip


@MANY
@given(SHAPES, SETTINGS, st.integers(1, 5_000))
def test_the_total_grows_with_length_and_batch(shape, setting, more):
    total = estimate(shape, setting).total
    assert estimate(shape, replace(setting, length=setting.length + more)).total > total
    assert estimate(shape, replace(setting, micro_batch=setting.micro_batch + more)).total > total


@MANY
@given(SHAPES, SETTINGS)
def test_a_higher_stage_of_zero_never_uses_more(shape, setting):
    adafactor = setting.optimizer == "adafactor"  # flattened by ZeRO: its sums of rows and columns become full moments
    totals = [estimate(shape, replace(setting, zero=zero)).total for zero in range(1 if adafactor else 0, 4)]
    assert totals == sorted(totals, reverse=True)


@MANY
@given(SHAPES, SETTINGS, st.data())
def test_adapters_never_keep_more_weights_gradients_and_moments_than_full_training(shape, setting, data):
    rank = data.draw(st.integers(1, shape.key // 8))  # of a rank near the width, adapters are the larger model

    def states(lora_rank: int) -> int:
        memory = estimate(shape, replace(setting, lora_rank=lora_rank, zero=0, optimizer="adamw"))
        return memory.weights + memory.gradients + memory.optimizer

    assert states(rank) < states(0)


@MANY
@given(SHAPES, SETTINGS)
def test_what_saves_activations_never_costs_more(shape, setting):
    def activations(**changes: Any) -> int:
        return estimate(shape, replace(setting, **changes)).activations

    assert activations(checkpointing=True) <= activations(checkpointing=False)
    assert activations(attention="flash") <= activations(attention="sdpa")
    assert activations(fused_layers=True) <= activations(fused_layers=False)
    assert estimate(shape, replace(setting, checkpointing=True)).total <= estimate(
        shape, replace(setting, checkpointing=False)).total + setting.tokens * shape.hidden * 4  # fmt: skip


@FEW
@given(SHAPES, SETTINGS, st.sampled_from(sorted(PRESETS)))
def test_the_largest_length_fits_and_the_next_does_not(shape, setting, name):
    preset = PRESETS[name]
    longest = largest_length(shape, setting, preset)

    def within(length: int) -> bool:
        return fits(estimate(shape, replace(setting, length=length, num_devices=preset.num_devices)), preset)

    if longest is None:
        assert not within(1)
    else:
        assert within(longest)
        assert longest == LONGEST or not within(longest + 1)


def test_presets_say_what_they_leave_free():
    assert {name: preset.num_devices for name, preset in PRESETS.items()} == {"8x40GB": 8, "8x80GB": 8}
    assert PRESETS["8x40GB"].usable_bytes == pytest.approx(0.9 * 39.4 * GIB, abs=2)
    exact = Preset(1, 1000, margin=0.0)
    memory = estimate(LLAMA_7B, Setting(length=1))
    assert not fits(memory, exact)
    assert fits(memory, replace(exact, device_bytes=memory.total))
    assert not fits(memory, replace(exact, device_bytes=memory.total - 1))
    assert largest_length(LLAMA_7B, Setting(length=1), exact) is None


def test_memory_that_something_else_keeps_is_added():
    plain, beside = (estimate(LLAMA_7B, Setting(length=64, reserved_bytes=kept)).total for kept in (0, GIB))
    assert beside - plain == GIB
