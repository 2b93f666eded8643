"""Small checkpoints for merging, made of the fixture's model: moved weights, shards, dtypes, adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def moved(model: Path, folder: Path, *, seed: int, scale: float = 0.02, dtype: str = "float32", shard: str = "1GB",
          **config: Any) -> Path:  # fmt: skip
    """A copy of `model` whose weights were moved by noise, as a further training would move them."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), **config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    copy_text(model, folder)
    loaded.save_pretrained(folder, max_shard_size=shard)
    return folder


def copy_text(model: Path, folder: Path) -> None:
    """Tokenizer, template and generation settings of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)


def adapter_of(base: Path, folder: Path, *, seed: int = 1, scale: float = 0.05, **lora: Any) -> Path:
    """A LoRA adapter on `base` whose every trained number is moved."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    options = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | lora
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), LoraConfig(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder)
    copy_text(base, folder)
    return folder


def state(folder: Path) -> dict[str, Any]:
    """Every tensor of a folder by name."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
