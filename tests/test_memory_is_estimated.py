"""Memory per device by formula, held against real models: parameters, states, kept activations, a whole step."""

from __future__ import annotations

import contextlib
import json
import weakref
from typing import Any

import pytest
import torch

from curation.auditing.memory import Setting, estimate
from curation.auditing.model_shape import FAMILIES, LINEARS, Shape
from curation.errors import UserError

LLAMA_7B = Shape(layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocabulary=32000)
QWEN_7B = Shape(layers=28, hidden=3584, heads=28, kv_heads=4, head_dim=128, intermediate=18944, vocabulary=152064,
                family="qwen2")  # fmt: skip
SIZES: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
                         "intermediate_size": 288, "vocab_size": 512, "head_dim": 16, "pad_token_id": 0}  # fmt: skip
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
