"""A real Llama-type model of about a million parameters with random weights, and a tokenizer trained on given texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def make_tokenizer(
    folder: Path,
    texts: Iterable[str],
    *,
    vocabulary: int = 320,
    by_character: bool = False,
    special_thoughts: bool = True,
) -> None:
    """Train a byte-level BPE tokenizer on `texts` and save it in `folder` (no chat template). `by_character` keeps
    digits and letters single tokens, which makes small arithmetic learnable. Without `special_thoughts` the marks of a
    thought are tokens that a decoder shows, as Qwen3 and DeepSeek-R1 have them. `vocabulary` counts tokens, the special
    ones and the 256 bytes included; pad is `<|pad|>`, end of text and of turn is `<|im_end|>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=None, byte_fallback=False))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not by_character)
    if by_character:
        words = pre_tokenizers.Split(Regex(r"[a-z]{3,}(?=[ \n])|[\s\S]"), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    else:
        core.pre_tokenizer = byte_level
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    core.train_from_iterator(texts, trainer)
    if not special_thoughts:
        plan = json.loads(core.to_str())
        for token in plan["added_tokens"]:
            token["special"] = "think" not in token["content"]
        core = Tokenizer.from_str(json.dumps(plan))
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", bos_token=None, model_max_length=4096
    ).save_pretrained(folder)


def make_model(folder: Path, *, hidden: int = 128, layers: int = 4, positions: int = 512, seed: int = 0) -> int:
    """Save a random LlamaForCausalLM for the tokenizer in `folder` beside it; returns its number of parameters."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1, sort_keys=True))
    return sum(parameter.numel() for parameter in model.parameters())
