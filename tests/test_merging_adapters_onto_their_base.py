"""Adapters merged onto their base with PEFT's own merge, and verified by the logits of what was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation import checkpoints
from curation.errors import InstrumentError, UserError
from tests.merging_models import adapter_of, moved, state
from trainers.merging.adapters import merge_adapter

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(60)[None]).logits.float()


def both(base: Path, adapter: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return logits(peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter))


def merged_logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"))


@pytest.mark.parametrize(
    "lora",
    [
        {"use_rslora": True, "lora_alpha": 32},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"trainable_token_indices": {"embed_tokens": [3, 4]}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
    ],
    ids=["rank-stabilised", "DoRA", "saved head", "saved embedding", "trained tokens", "embedding", "head"],
)
def test_the_merged_model_answers_as_base_and_adapter_do(tiny_model: Path, tmp_path: Path, lora: dict):
    adapter = adapter_of(tiny_model, tmp_path / "adapter", **lora)
    kind, digest, agreement = merge_adapter(tiny_model, adapter, tmp_path / "merged")
    assert (kind, digest) == checkpoints.weights_of(tmp_path / "merged") and kind == "full"
    assert agreement.difference <= agreement.tolerance == 1e-5 < agreement.adapter_effect
    assert torch.allclose(merged_logits(tmp_path / "merged"), both(tiny_model, adapter), atol=1e-4)
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (adapter / name).read_bytes()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-7 * 8), ("float16", 2**-10 * 8)])
def test_the_merge_is_in_the_bases_dtype_and_judged_by_its_rounding(tiny_model, tmp_path: Path, dtype, tolerance):
    base = moved(tiny_model, tmp_path / "base", seed=1, dtype=dtype)
    adapter = adapter_of(base, tmp_path / "adapter")
    agreement = merge_adapter(base, adapter, tmp_path / "merged")[2]
    assert {str(tensor.dtype) for tensor in state(tmp_path / "merged").values()} == {f"torch.{dtype}"}
    assert agreement.dtype == dtype and agreement.tolerance == tolerance
    assert 0 < agreement.difference <= tolerance < agreement.adapter_effect


def test_a_reward_models_adapter_is_merged_with_its_head(tiny_model: Path, tmp_path: Path):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS", modules_to_save=["score"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    merge_adapter(tiny_model, tmp_path / "adapter", tmp_path / "merged")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    saved = peft.PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1), tmp_path / "adapter"
    )
    assert torch.allclose(logits(found), logits(saved), atol=1e-5)


def test_a_base_with_another_hash_is_refused(tiny_model: Path, tmp_path: Path):
    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    other = moved(tiny_model, tmp_path / "other", seed=5)
    digest = checkpoints.weights_of(tiny_model)[1]
    with pytest.raises(UserError, match=rf"another base than the adapter's.*trained on {digest[:12]}"):
        merge_adapter(other, adapter, tmp_path / "merged", base_hash=digest)
    with pytest.raises(UserError, match="has other weights than this base"):
        merge_adapter(other, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_base_of_another_shape_is_refused_with_every_misfit(tiny_model: Path, tmp_path: Path):
    from curation.quickstart.tiny_model import make_model

    wide = tmp_path / "wide"
    shutil.copytree(tiny_model, wide)
    make_model(wide, hidden=32, layers=1, positions=64)
    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "hub/name"})
    )
    with pytest.raises(UserError) as caught:
        merge_adapter(wide, adapter, tmp_path / "merged")
    text = str(caught.value)
    assert "a weight of [64, 64], the base's is [32, 32]" in text and "layers.1" in text and "the base lacks" in text
    assert len(caught.value.problems) == 4


def test_an_adapter_that_lacks_weights_is_refused(tiny_model: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    for lost, expected in ((".lora_B.", "without its lora_B"), ("lora_", "lacks weights")):
        kept = {name: tensor for name, tensor in weights.items() if not ("layers.1" in name and lost in name)}
        save_file(kept, adapter / "adapter_model.safetensors")
        with pytest.raises(UserError, match=expected):
            merge_adapter(tiny_model, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_loses_the_adapter_is_caught_and_nothing_is_written(tiny_model, tmp_path: Path, monkeypatch):
    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    monkeypatch.setattr(peft.LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(InstrumentError, match="logits differ by"):
        merge_adapter(tiny_model, adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_full_weights_are_no_adapter_and_an_adapter_is_no_base(tiny_model: Path, tmp_path: Path):
    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    with pytest.raises(UserError, match="full weights: nothing to merge"):
        merge_adapter(tiny_model, tiny_model, tmp_path / "merged")
    with pytest.raises(UserError, match="is an adapter, no base"):
        merge_adapter(adapter, adapter, tmp_path / "merged")
