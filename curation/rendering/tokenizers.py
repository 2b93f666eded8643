"""Tokenizers by name, folder or hub id, identified by what they do and never by where they lie."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.config import Project
from curation.errors import UserError, did_you_mean
from curation.fingerprint import fingerprint


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer. `reference` finds it again from another process; `fingerprint` covers the fast tokenizer's
    own serialisation and the special tokens; `stop_ids` are its end-of-sequence ids (its own, and those of a
    generation_config.json beside it)."""

    reference: str
    hf: Any
    fingerprint: str
    stop_ids: tuple[int, ...]


def resolve(project: Project | None, reference: str) -> tuple[str, str | None]:
    """(folder or hub id, revision) of a tokenizer reference: a name of kedge.yaml, a folder, or `ID@REVISION`. Raises
    UserError for a name that is none of these."""
    named = project.file.tokenizers if project else {}
    target = named.get(reference, reference)
    local = Path(target) if project is None or Path(target).is_absolute() else project.root / target
    for folder in (local, Path(target)):
        if folder.is_dir():
            return str(folder.resolve()), None
    if "/" not in target or target.startswith((".", "/")):
        raise UserError(f"there is no tokenizer '{reference}'", f"{did_you_mean(reference, named)}; give a folder or a "
                        "hub id, or name it in kedge.yaml under tokenizers", key="tokenizer")  # fmt: skip
    identifier, _, revision = target.partition("@")
    return identifier, revision or None


def load_tokenizer(project: Project | None, reference: str) -> Tokenizer:
    """The tokenizer as a trainer loads it (AutoTokenizer). Raises UserError where it is not there or not a fast one."""
    target, revision = resolve(project, reference)
    return _load(target, revision)


@functools.lru_cache(maxsize=8)
def _load(target: str, revision: str | None) -> Tokenizer:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(target, revision=revision, trust_remote_code=False)
    except Exception as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the tokenizer '{target}' cannot be loaded: {what}", "give a folder with tokenizer.json, or a "
                        "hub id", key="tokenizer") from error  # fmt: skip
    if not getattr(hf, "is_fast", False):
        raise UserError(f"the tokenizer '{target}' is not a fast one", "save it with a tokenizer.json", key="tokenizer")
    special = {name: str(value) for name, value in sorted(hf.special_tokens_map.items())}
    digest = fingerprint([hf.backend_tokenizer.to_str(), special])
    return Tokenizer(target if revision is None else f"{target}@{revision}", hf, digest, _stop_ids(target, hf))


def _stop_ids(target: str, hf: Any) -> tuple[int, ...]:
    found = {hf.eos_token_id}
    path = Path(target) / "generation_config.json"
    if path.is_file():
        stops = json.loads(path.read_text()).get("eos_token_id")
        found |= set(stops) if isinstance(stops, list) else {stops}
    return tuple(sorted(item for item in found if isinstance(item, int)))
