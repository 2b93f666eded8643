"""Whether two checkpoints are of one model: architecture, tokenizer, chat template, generation settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from curation.fingerprint import hash_bytes

# what a save writes without meaning another model
INCIDENTAL = ("transformers_version", "torch_dtype", "dtype", "_name_or_path", "use_cache", "architectures_version")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "chat_template.jinja", "chat_template.json", "tokenizer.model")  # fmt: skip
_MISSING = "nothing"
GROUPS = (
    ("head", r"(^|\.)(lm_head|embed_out|score|classifier|v_head)\."),
    ("embed", r"embed|(^|\.)wte\.|(^|\.)wpe\."),
    ("norm", r"norm|(^|\.)ln_\w+\."),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|feed_forward|experts|\.ffn"),
)


def group_of(name: str) -> str:
    """The part of a model that a tensor belongs to, by its name: head, embed, norm, attention, mlp or other."""
    return next((group for group, pattern in GROUPS if re.search(pattern, name)), "other")


def read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object beside the weights; empty where it is not there."""
    path = folder / name
    value = json.loads(path.read_bytes()) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def config_differences(one: Path, other: Path) -> list[str]:
    """Settings of config.json in which `other` is another model than `one`, as `has KEY = its value, not that of one`.
    Token ids, versions and dtypes are none."""
    first, second = read(one, "config.json"), read(other, "config.json")
    keys = [key for key in sorted({*first, *second}) if key not in INCIDENTAL and not key.endswith("token_id")]
    return [f"has {key} = {_short(second.get(key, _MISSING))}, not {_short(first.get(key, _MISSING))}"
            for key in keys if first.get(key) != second.get(key)]  # fmt: skip


def generation_differences(one: Path, other: Path) -> list[str]:
    """Settings of generation_config.json (stop tokens among them) that differ, as `config_differences` says it."""
    first, second = read(one, "generation_config.json"), read(other, "generation_config.json")
    keys = sorted({*first, *second} - {"transformers_version", "_from_model_config"})
    return [f"has {key} = {_short(second.get(key, _MISSING))}, not {_short(first.get(key, _MISSING))}"
            for key in keys if first.get(key) != second.get(key)]  # fmt: skip


def text_differences(one: Path, other: Path) -> list[str]:
    """Whether `other` turns text into other tokens: another tokenizer, another chat template, or one of them where the
    other has none."""
    if all(_bytes(one / name) == _bytes(other / name) for name in TOKENIZER_FILES):
        return []  # equal files need not be loaded
    (first, first_template), (second, second_template) = fingerprints(one), fingerprints(other)
    pairs = (("tokenizer", first, second), ("chat template", first_template, second_template))
    return [f"has {'another' if mine and theirs else 'a' if theirs else 'no'} {name} "
            f"({(theirs or 'none')[:12]}, the first one's is {(mine or 'none')[:12]})"
            for name, mine, theirs in pairs if mine != theirs]  # fmt: skip


def fingerprints(folder: Path) -> tuple[str | None, str | None]:
    """Fingerprints of the tokenizer and of the chat template in a checkpoint's folder; None for what it lacks."""
    if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        return None, None
    from curation.rendering.tokenizers import load_tokenizer

    loaded = load_tokenizer(None, str(folder))
    template = loaded.hf.chat_template
    return loaded.fingerprint, hash_bytes(template.encode()) if isinstance(template, str) else None


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _short(value: Any) -> str:
    text = value if value == _MISSING else json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else text[:77] + "..."
