"""Sentence embeddings by a model folder in the layout of sentence-transformers, with plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import UserError
from curation.fingerprint import hash_folder

Encoder = Callable[[Sequence[str]], npt.NDArray[np.float32]]
POOLINGS = ("cls", "mean", "max")
LONGEST = 512  # tokens, where the folder names no length


def model_hash(folder: str | Path) -> str:
    """32 hex characters over every file of a model folder and its direct sub-folders. Raises UserError where there is
    no such folder."""
    path = Path(folder)
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        raise UserError(f"there is no embedding model in {folder}", "give the folder of a sentence-transformers model",
                        key="embedding_model")  # fmt: skip
    return hash_folder(path, ("*", "*/*"))


def load_encoder(folder: str | Path, batch: int = 32) -> Encoder:
    """A function from N texts to N x D embeddings of length 1. The modules of the folder must be one transformer, one
    pooling (mean, first token or maximum) and at most a normalisation; weights are read from safetensors, and code of
    the folder is never run. Raises UserError for any other model."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = Path(folder)
    body, pooling = _modules(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(body, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(body, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                                          dtype=torch.float32).eval()  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        what = str(error).strip().splitlines()[0]
        raise UserError(f"{body} cannot be loaded: {what}", "save model (as safetensors) and tokenizer with "
                        "save_pretrained", key="embedding_model") from error  # fmt: skip
    longest = _longest(body, model)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))
        out: npt.NDArray[np.float32] = np.zeros((len(texts), model.config.hidden_size), np.float32)
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            inputs = tokenizer([texts[index] for index in chosen], padding=True, truncation=True, max_length=longest,
                               return_tensors="pt")  # fmt: skip
            with torch.inference_mode():
                states = model(**inputs).last_hidden_state
            out[chosen] = pool(states, inputs["attention_mask"], pooling).numpy()
        return out

    return encode


def pool(states: Any, mask: Any, pooling: str) -> Any:
    """B x D unit vectors from token states B x T x D and their attention mask B x T."""
    import torch

    wide = mask.unsqueeze(-1).to(states.dtype)
    if pooling == "cls":
        vectors = states[:, 0]
    elif pooling == "max":
        vectors = states.masked_fill(wide == 0, -1e9).max(dim=1).values
    else:
        vectors = (states * wide).sum(dim=1) / wide.sum(dim=1).clamp(min=1e-9)
    return torch.nn.functional.normalize(vectors, dim=-1)


def _modules(path: Path) -> tuple[Path, str]:
    """(folder of the transformer, kind of pooling)."""
    listed = path / "modules.json"
    if not listed.is_file():
        return path, "mean"
    body, pooling = path, "mean"
    for module in json.loads(listed.read_text()):
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Transformer":
            body = path / module["path"]
        elif kind == "Pooling":
            settings = json.loads((path / module["path"] / "config.json").read_text())
            modes = {"cls": settings.get("pooling_mode_cls_token"), "mean": settings.get("pooling_mode_mean_tokens"),
                     "max": settings.get("pooling_mode_max_tokens")}  # fmt: skip
            chosen = [name for name in POOLINGS if modes[name]] or [str(settings.get("pooling_mode"))]
            if len(chosen) != 1 or chosen[0] not in POOLINGS:
                raise UserError(f"the pooling of {path} is none of {', '.join(POOLINGS)}", "choose another model",
                                key="embedding_model")  # fmt: skip
            pooling = chosen[0]
        elif kind != "Normalize":
            raise UserError(f"{path} has a module of kind {kind}", "choose a model of transformer, pooling and "
                            "normalisation alone", key="embedding_model")  # fmt: skip
    return body, pooling


def _longest(body: Path, model: Any) -> int:
    settings = body / "sentence_bert_config.json"
    named = json.loads(settings.read_text()).get("max_seq_length") if settings.is_file() else None
    limit = getattr(model.config, "max_position_embeddings", None) or LONGEST
    return min(int(named or LONGEST), int(limit))
