"""A model on this machine: which one an option means, how it is asked, and where its answers end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.errors import UserError
from curation.fingerprint import fingerprint, hash_bytes
from curation.rendering.templates import OWN

if TYPE_CHECKING:
    from curation.generation import Ask
    from curation.rendering import Rendered, Rendering

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(frozen=True)
class Local:
    """Weights and how they are asked. `base` is the folder that an adapter belongs to, None for full weights;
    `tokenizer` and `template` are references, `stop_ids` those that generation_config.json names, `positions` what the
    model was made for (None where its configuration does not say)."""

    name: str
    folder: Path
    base: Path | None
    weights: str
    tokenizer: str
    template: str
    template_kwargs: dict[str, Any]
    stop_ids: tuple[int, ...]
    positions: int | None


def find(catalog: Catalog, checkpoint: str | None, model: str | None, tokenizer: str | None, template: str | None,
         template_kwargs: dict[str, Any] | None) -> Local:  # fmt: skip
    """The model that a checkpoint (`RUN@STEP`, a tag, `RUN` for its last) or `model` (a folder, or a hub id) names. A
    checkpoint is asked with the template of its run unless another is named. Raises UserError where it is not there,
    not whole, or no causal language model."""
    if checkpoint is not None:
        known = checkpoints.find(catalog, checkpoint)
        folder, base = known.folder(catalog), known.base_folder(catalog)
        kind = checkpoints.check_weights(folder)
        if base is not None:
            checkpoints.check_weights(base)
        name, weights = known.id, _weights(known.weights_hash, known.base_hash)
        own_template, own_kwargs = _of_run(catalog, known.run)
    else:
        folder, base, name = _folder(catalog, model or ""), None, (model or "").rstrip("/")
        name = Path(name).name if folder == _below(catalog, name) else name
        kind, weights = checkpoints.weights_of(folder)
        own_template, own_kwargs = OWN, {}
    if kind == "adapter" and base is None:
        raise UserError("is an adapter, whose base is not known", "register it with its base: kedge checkpoint add "
                        "FOLDER --base BASE, and name the checkpoint", where=str(folder))  # fmt: skip
    config = _json(folder if base is None else base, "config.json")
    _require_causal(config, folder if base is None else base)
    return Local(name, folder, base, weights, tokenizer or str(_tokenizer_folder(folder, base)),
                 template or own_template, own_kwargs if template_kwargs is None else template_kwargs,
                 _stop_ids(folder if base is None else base), _positions(config))  # fmt: skip


def _weights(weights_hash: str, base_hash: str | None) -> str:
    return weights_hash if base_hash is None else fingerprint([weights_hash, base_hash])


def _below(catalog: Catalog, reference: str) -> Path:
    return catalog.project.root / reference  # an absolute reference stays what it is


def _folder(catalog: Catalog, reference: str) -> Path:
    folder = _below(catalog, reference)
    return folder if folder.is_dir() else checkpoints.fetch_model(reference)


def _of_run(catalog: Catalog, run: str) -> tuple[str, dict[str, Any]]:
    """The template, and its arguments, that a run trains with; the tokenizer's own where it has no run file."""
    from curation.runs import Run

    if run not in catalog.project.paths("runs", ".yaml"):
        return OWN, {}
    found = Run(catalog, run)
    return found.template_reference(), dict(found.file.template_kwargs)


def _tokenizer_folder(folder: Path, base: Path | None) -> Path:
    for place in (folder, base):
        if place is not None and any((place / name).is_file() for name in TOKENIZER_FILES):
            return place
    raise UserError("has no tokenizer beside its weights", "save it there, or name one: tokenizer: FOLDER",
                    where=str(folder))  # fmt: skip


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    value = json.loads(path.read_bytes()) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _require_causal(config: dict[str, Any], folder: Path) -> None:
    named = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith(("ForSequenceClassification", "ForTokenClassification")) for name in named):
        raise UserError(f"is a {named[0]}, which writes nothing", "name a causal language model", where=str(folder))


def _stop_ids(folder: Path) -> tuple[int, ...]:
    ends = _json(folder, "generation_config.json").get("eos_token_id")
    found = ends if isinstance(ends, list) else [ends]
    return tuple(sorted({item for item in found if type(item) is int}))


def _positions(config: dict[str, Any]) -> int | None:
    for part in (config, config.get("text_config")):
        for key in ("max_position_embeddings", "n_positions"):
            if isinstance(part, dict) and isinstance(part.get(key), int):
                return int(part[key])
    return None


def conditions(catalog: Catalog, local: Local) -> dict[str, Any]:
    """What of a model's surroundings decides its answers: tokenizer, template, its arguments, where answers end."""
    from curation.rendering.checked import checked

    found = checked(catalog.project, local.tokenizer, local.template)
    return {
        "tokenizer": found.fingerprint,
        "template": hash_bytes((found.template_text or "").encode()),
        "template_kwargs": local.template_kwargs,
        "stop_ids": sorted({*found.stop_ids, *local.stop_ids}),
    }


def rendering(catalog: Catalog, local: Local) -> Rendering:
    """How prompts become tokens."""
    from curation.rendering import Rendering, load_template, load_tokenizer

    tokenizer = load_tokenizer(catalog.project, local.tokenizer)
    template = load_template(catalog.project, local.template, tokenizer)
    return Rendering(tokenizer, template, "whole", local.template_kwargs)


def render(how: Rendering, asks: Sequence[Ask]) -> list[Rendered]:
    """The prompt of each ask as token ids, up to where the assistant begins."""
    return how.render_prompts([{"prompt": ask.prompt, "tools": ask.tools} for ask in asks])


def stop_ids(how: Rendering, local: Local) -> tuple[int, ...]:
    """Ids that end an answer, ascending: those of the tokenizer and of the model's generation_config.json, and the
    special token with which the template ends an assistant's turn. Raises UserError where there is none."""
    found = {*how.tokenizer.stop_ids, *local.stop_ids, *_end_of_turn(how)}
    if not found:
        raise UserError("the tokenizer names no end token", "set eos_token in tokenizer_config.json")
    return tuple(sorted(found))


def _end_of_turn(how: Rendering) -> set[int]:
    from curation.rendering.render import template_errors
    from curation.rendering.turn_ends import TURN, end_of_turn

    try:
        text, _ = how.chat(list(TURN))
    except template_errors():
        return set()
    return end_of_turn(how.tokenizer.hf, text)
