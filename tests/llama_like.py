"""A base model as Llama 3 publishes it, made small: tokenizer with reserved tokens, weights, configuration."""

from __future__ import annotations

import json
from pathlib import Path

LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")  # fmt: skip
TEXTS = [f"What is {a} plus {b}? The system user said: def add(x): return x + {b}; naïve 東京 ключ" for a in range(30)
         for b in range(9)]  # fmt: skip


def llama_like(folder: Path, *, reserved: int = 10) -> Path:
    """A base as Llama 3 publishes it: byte-level BPE that adds a BOS, reserved tokens, a legacy configuration."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    core = Tokenizer(models.BPE(ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    core.train_from_iterator(TEXTS, trainer)
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(reserved))]
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    begin = core.token_to_id(names[0])
    core.post_processor = processors.TemplateProcessing(single=f"{names[0]} $A", special_tokens=[(names[0], begin)])
    folder.mkdir(parents=True)
    core.save(str(folder / "tokenizer.json"))
    decoder = {str(begin + i): {"content": name, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                                "single_word": False} for i, name in enumerate(names)}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "added_tokens_decoder": decoder, "bos_token": names[0], "eos_token": names[1], "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}",
    }))  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": begin + 1, "temperature": 0.6}))
    return folder


def llama_model(folder: Path, *, tied: bool, rows: int = 448) -> Path:
    """Weights beside the tokenizer: trained-looking rows for ordinary tokens, nearly the same tiny row for others."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    size = len(AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    generation = (folder / "generation_config.json").read_text()
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=tied, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    ))  # fmt: skip
    with torch.no_grad():
        for weight in {model.model.embed_tokens.weight, model.lm_head.weight}:
            weight.normal_(0, 1)
            weight[size - 10 :] = 0.2 + 0.01 * torch.randn(rows - size + 10, 32)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").write_text(generation)
    return folder
