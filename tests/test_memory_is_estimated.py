"""Memory per device by formula, held against real models: parameters, states, kept activations, a whole step."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import weakref
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.alternatives import GIB, LONGEST, PRESETS, Change, Preset, alternatives, fits, largest_length
from curation.auditing.memory import Setting, estimate
from curation.auditing.model_shape import FAMILIES, LINEARS, Shape
from curation.errors import UserError

LLAMA_7B = Shape(layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocabulary=32000)
QWEN_7B = Shape(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18944, vocabulary=152064,
                family="qwen2")  # fmt: skip
SIZES: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
                         "intermediate_size": 288, "vocab_size": 512, "head_dim": 16, "pad_token_id": 0}  # fmt: skip
MANY, FEW = settings(max_examples=150, deadline=None), settings(max_examples=30, deadline=None)
PRECISIONS = {"fp32": (torch.float32, False), "bf16": (torch.bfloat16, True), "autocast": (torch.float32, True)}


def config_of(kind: str, **changes: Any):
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **{**SIZES, **changes})


def model_of(config, dtype: torch.dtype = torch.float32, attention: str = "sdpa"):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).train()


def adapted(model, rank: int, targets: tuple[str, ...]):
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=rank, target_modules=list(targets), lora_dropout=0.0))
    tuned.enable_input_require_grads()
    return tuned.get_base_model()


def autocast(on: bool):
    return torch.autocast("cpu", torch.bfloat16) if on else contextlib.nullcontext()


def kept_bytes(model, ids: torch.Tensor, mask: torch.Tensor | None, on: bool) -> int:
    """Bytes of the distinct storages that one forward of the decoder saves for its backward, weights aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(on):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


def kept_and_foreseen(kind: str, precision: str, **changes: Any) -> tuple[int, int]:
    """Measured and foreseen bytes of activations of a batch of 2 x 64 tokens."""
    dtype, on = PRECISIONS[precision]
    attention = changes.get("attention", "flash")
    config = config_of(kind)
    model = model_of(config, dtype, "eager" if attention == "eager" else "sdpa")
    if changes.get("lora_rank"):
        model = adapted(model, changes["lora_rank"], changes["lora_targets"])
    if changes.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :10] = 0
    measured = kept_bytes(model, ids, mask if attention == "sdpa" else None, on)
    setting = Setting(length=64, micro_batch=2, precision=precision,
                      **{"checkpointing": False, "attention": attention, **changes})  # fmt: skip
    return measured, estimate(Shape.of(config.to_dict()), setting).activations


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_parameter_count_is_that_of_the_real_model(kind, tied, biased):
    config = config_of(kind, tie_word_embeddings=tied, **{key: biased for key in FAMILIES[kind].reads_biases})
    model = model_of(config, attention="eager")
    shape = Shape.of(json.loads(config.to_json_string()))
    assert shape.num_parameters == sum(tensor.numel() for tensor in model.parameters())
    assert shape.tied is tied
    assert bool(shape.biases) is (kind == "qwen2" or (biased and bool(FAMILIES[kind].reads_biases)))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_values_a_config_leaves_out_are_those_of_transformers(kind):
    from transformers import AutoConfig

    real = AutoConfig.for_model(kind)
    for key, value in FAMILIES[kind].defaults.items():
        assert getattr(real, key) == value, key
    assert real.tie_word_embeddings is FAMILIES[kind].defaults.get("tie_word_embeddings", False)
    shape = Shape.of(real.to_dict())
    assert shape.head_dim == (getattr(real, "head_dim", None) or real.hidden_size // real.num_attention_heads)


def test_a_published_config_with_a_nested_decoder_is_read():
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    shape = Shape.of({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}})
    assert (shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.tied) == (2560, 8, 4, 256, True)
    assert shape.num_parameters == 3_880_263_168  # the decoder of Gemma 3 4B


def test_published_models_have_their_published_size():
    assert LLAMA_7B.num_parameters == 6_738_415_616
    assert QWEN_7B.num_parameters == 7_615_616_512


def test_all_missing_and_wrong_keys_of_a_config_are_told_at_once():
    with pytest.raises(UserError) as told:
        Shape.of({"model_type": "qwen2", "hidden_size": "96", "num_hidden_layers": 0}, where="m/config.json")
    assert {problem.key for problem in told.value.problems} == {
        "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size",
        "vocab_size"}  # fmt: skip
    assert str(told.value).startswith("m/config.json: ")


def test_a_model_that_the_formula_does_not_cover_is_refused_with_its_name():
    for kind, advice in (("qwen3_moe", "did you mean 'qwen3'?"), ("", "give one of llama")):
        with pytest.raises(UserError) as told:
            Shape.of({**config_of("llama").to_dict(), "model_type": kind})
        assert advice in str(told.value)
    with pytest.raises(UserError):
        Shape.of({"model_type": ["llama"], "text_config": "none", "head_dim": -1})


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_gradients_and_states_are_those_of_a_real_step(name, precision, tied):
    from transformers.optimization import Adafactor

    config = config_of("qwen2", tie_word_embeddings=tied)
    model = model_of(config, PRECISIONS[precision][0])
    make = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "adafactor": Adafactor}[name]
    optimizer = make(model.parameters(), **({} if name == "adafactor" else {"lr": 1e-3}))
    ids = torch.arange(32).reshape(1, 32)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    memory = estimate(Shape.of(config.to_dict()), Setting(length=32, precision=precision, optimizer=name))
    assert memory.weights == sum(one.nbytes for one in model.parameters())
    assert memory.gradients == sum(one.grad.nbytes for one in model.parameters())
    assert memory.optimizer == sum(one.nbytes for one in states if one.dim())  # the step counters aside


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), LINEARS])
def test_adapters_are_counted_as_peft_makes_them(targets):
    config = config_of("llama")
    model = adapted(model_of(config, torch.bfloat16), 8, targets)
    setting = Setting(length=64, precision="bf16", lora_rank=8, lora_targets=targets)
    memory = estimate(Shape.of(config.to_dict()), setting)
    assert memory.weights == sum(one.nbytes for one in model.parameters())
    assert memory.gradients == sum(one.nbytes for one in model.parameters() if one.requires_grad)
    assert memory.optimizer == 2 * memory.gradients


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("kind", "attention"), [
    (kind, attention) for kind in FAMILIES for attention in ("flash", "sdpa", "eager")
    if kind != "gemma2" or attention == "eager"  # transformers runs its capped scores in eager attention only
])  # fmt: skip
def test_activations_are_what_a_real_forward_keeps(kind, attention, precision):
    measured, foreseen = kept_and_foreseen(kind, precision, attention=attention)
    assert foreseen == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), LINEARS])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations_of_adapters_are_what_a_real_forward_keeps(precision, targets):
    measured, foreseen = kept_and_foreseen("llama", precision, lora_rank=8, lora_targets=targets)
    assert foreseen == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_checkpointing_keeps_the_layer_inputs(precision):
    measured, foreseen = kept_and_foreseen("qwen2", precision, checkpointing=True)
    rotary = 2 * SIZES["head_dim"] * PRECISIONS[precision][0].itemsize * 64  # alive as arguments, not as saved tensors
    assert foreseen == measured + rotary


class LiveBytes(torch.utils._python_dispatch.TorchDispatchMode):
    """Bytes of the storages alive that operations under it made, now and at most."""

    def __init__(self, known: list[torch.Tensor]):
        super().__init__()
        self.now = self.most = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if torch.is_tensor(tensor) and (key := tensor.untyped_storage()._cdata) not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.freed, key, storage.nbytes())
        return result

    def freed(self, key: int, amount: int) -> None:
        self.now -= amount
        self.known.discard(key)


def peak_of_a_step(model, ids: torch.Tensor, on: bool, checkpointing: bool) -> int:
    """The most bytes alive in the second of two accumulated steps, weights included."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with LiveBytes([*model.parameters(), *model.buffers(), ids]) as live:
        for _ in range(2):
            live.most = live.now
            with autocast(on):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            del loss
    return live.most + sum(one.nbytes for one in model.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("kind", "words"), [("llama", 2_000), ("qwen2", 32_000)])
def test_the_total_is_the_peak_of_a_whole_step_of_a_model_of_billions(kind, words, precision, checkpointing):
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = config_of(kind, hidden_size=4096, num_hidden_layers=12, num_attention_heads=32, num_key_value_heads=8,
                       head_dim=128, intermediate_size=14336, vocab_size=words)  # fmt: skip
    dtype, on = PRECISIONS[precision]
    with FakeTensorMode():  # allocates and computes nothing, and cannot see that there is no padding
        peak = peak_of_a_step(model_of(config, dtype), torch.zeros(1, 4096, dtype=torch.long), on, checkpointing)
    setting = Setting(length=4096, precision=precision, checkpointing=checkpointing, optimizer="sgd",
                      fused_logits=False)  # fmt: skip
    assert 0.995 <= estimate(Shape.of(config.to_dict()), setting).total / peak <= 1.08


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("words", [500, 8_000])
def test_the_total_is_the_peak_of_a_whole_step_with_and_without_adapters(words, rank, precision, checkpointing):
    config = config_of("llama", hidden_size=256, num_hidden_layers=6, num_attention_heads=8, head_dim=32,
                       intermediate_size=768, vocab_size=words)  # fmt: skip
    dtype, on = PRECISIONS[precision]
    model = adapted(model_of(config, dtype), rank, LINEARS) if rank else model_of(config, dtype)
    peak = peak_of_a_step(model, torch.zeros(1, 512, dtype=torch.long), on, checkpointing)
    setting = Setting(length=512, precision=precision, checkpointing=checkpointing, optimizer="sgd", lora_rank=rank,
                      fused_logits=False, attention="flash")  # fmt: skip
    assert 0.99 <= estimate(Shape.of(config.to_dict()), setting).total / peak <= 1.12


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
