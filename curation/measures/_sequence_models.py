"""Sequence classifiers under a path: transformers folders of safetensors, and fastText files."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curation.config import project_around, shown
from curation.errors import UserError, did_you_mean
from curation.fingerprint import hash_file, hash_folder

FASTTEXT = (".bin", ".ftz")
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")  # what a folder's labels depend on
BUCKET = 64  # tokens by which the length of a batch grows
Scores = npt.NDArray[np.float64]


class SequenceModel(Protocol):
    """A loaded classifier. `labels` has L names."""

    @property
    def labels(self) -> list[str]: ...

    def scores(self, texts: Sequence[str], max_tokens: int, batch_size: int) -> Scores:
        """N x L: the probability of every label (its raw value where there is one output), NaN for a text that the
        model says nothing of."""


def locate(reference: str) -> Path:
    """The model's folder or file: an absolute path, or one relative to the project (else to the working directory).
    Raises UserError where it is not there or is no classifier that is loaded."""
    path = Path(reference).expanduser()
    if not path.is_absolute():
        project = project_around()
        path = path if project is None else project.root / path
    path = path.resolve()
    if path.is_dir():
        _check_folder(path)
    elif not path.is_file():
        raise UserError(f"there is no classifier at '{reference}'", "name a folder or a fastText file, relative to the "
                        "project", key="path")  # fmt: skip
    elif path.suffix not in FASTTEXT:
        raise UserError("is no classifier that kedge loads", "name a transformers folder with safetensors, or a "
                        f"fastText file ({', '.join(FASTTEXT)})", where=shown(path))  # fmt: skip
    return path


def _check_folder(path: Path) -> None:
    from curation.checkpoints import weights_of

    kind, _ = weights_of(path)
    if kind == "adapter":
        raise UserError("holds an adapter without its model", "merge it into its base and save that", where=shown(path))
    if "auto_map" in _config(path):
        raise UserError("needs code of its own (auto_map), which is never run", "use a model of an architecture that "
                        "transformers has", where=shown(path))  # fmt: skip


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"config.json cannot be read: {error}", "save the model again", where=shown(folder)) from error


def model_hash(path: Path, label: str | None = None) -> str:
    """Identity of a model by the bytes of its files. Raises UserError where a folder's configuration has no `label`."""
    if path.is_file():
        return _hash(path, _state([path]))
    if label is not None:
        known = _labels(_config(path))
        if known and label not in known:
            raise UserError(f"the classifier has no label '{label}'", did_you_mean(label, known), where=shown(path),
                            key="label")  # fmt: skip
    return _hash(path, _state(sorted({file for pattern in FILES for file in path.glob(pattern)})))


def _labels(config: dict[str, Any]) -> list[str]:
    names = config.get("id2label") or {}
    return [str(names[key]) for key in sorted(names, key=int)]


def _state(files: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@functools.lru_cache(maxsize=64)
def _hash(path: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """Read once per state of the files: a project's rules are loaded several times in a command."""
    return hash_file(path) if path.is_file() else hash_folder(path, FILES)


@functools.lru_cache(maxsize=4)
def load_model(path: str, expected: str) -> SequenceModel:
    """The model under a path that `locate` gave. Raises UserError where it cannot be loaded, RuntimeError where its
    bytes are not those that were expected."""
    place = Path(path)
    if model_hash(place) != expected:
        raise RuntimeError(f"the classifier at {path} changed while it was in use")
    return _load_folder(place) if place.is_dir() else _load_fasttext(place)


@dataclass(frozen=True)
class _Folder:
    labels: list[str]
    model: Any
    tokenizer: Any
    limit: int
    device: str

    def scores(self, texts: Sequence[str], max_tokens: int, batch_size: int) -> Scores:
        import torch

        length = min(max_tokens, self.limit)
        ids = self.tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
        found = np.zeros((len(texts), len(self.labels)), np.float64)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums split over threads differ in their last bits
        try:
            for batch in _batches([len(item) for item in ids], batch_size):
                found[batch] = self._probabilities([ids[index] for index in batch], batch_size)[: len(batch)]
        finally:
            torch.set_num_threads(threads)
        return found

    def _probabilities(self, ids: list[list[int]], batch_size: int) -> Scores:
        import torch

        longest = len(ids[0]) if batch_size == 1 else -(-max(map(len, ids)) // BUCKET) * BUCKET
        rows = [*ids, *[ids[-1]] * (batch_size - len(ids))]
        pad = self.model.config.pad_token_id or 0
        tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        with torch.inference_mode():
            logits = self.model(input_ids=tokens, attention_mask=mask).logits.double().cpu()
        if logits.shape[1] == 1:
            return np.asarray(logits)
        many = self.model.config.problem_type == "multi_label_classification"
        return np.asarray(logits.sigmoid() if many else logits.softmax(-1))


def _batches(lengths: list[int], size: int) -> Iterator[list[int]]:
    """Indices of texts of one padded length, at most `size` together; one by one where it is 1."""
    if size == 1:
        yield from ([index] for index in range(len(lengths)))
        return
    alike: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        alike.setdefault(-(-length // BUCKET), []).append(index)
    for indices in alike.values():
        yield from (indices[first : first + size] for first in range(0, len(indices), size))


def _load_folder(folder: Path) -> _Folder:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = shown(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True)  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        what = str(error).strip().splitlines()[0]
        raise UserError(f"cannot be loaded as a classifier: {what}", "save model and tokenizer with save_pretrained",
                        where=where) from error  # fmt: skip
    if info["missing_keys"]:
        raise UserError(f"is no sequence classifier: it lacks {', '.join(sorted(info['missing_keys'])[:3])}", "name a "
                        "folder of a ...ForSequenceClassification model", where=where)  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    limits = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 1 << 30)
    return _Folder([str(model.config.id2label[index]) for index in range(model.config.num_labels)],
                   model.eval().to(device), tokenizer, min(limits), device)  # fmt: skip


@dataclass(frozen=True)
class _FastText:
    labels: list[str]
    names: dict[str, int]
    model: Any

    def scores(self, texts: Sequence[str], max_tokens: int, batch_size: int) -> Scores:
        lines = [" ".join(text.split(None, max_tokens)[:max_tokens]) for text in texts]
        found = np.full((len(texts), len(self.labels)), np.nan)
        for row, (labels, values) in enumerate(zip(*self.model.predict(lines, k=-1), strict=True)):
            found[row, [self.names[label] for label in labels]] = values
        return found.clip(0.0, 1.0)  # float32 sums may pass 1


def _load_fasttext(path: Path) -> _FastText:
    try:
        import fasttext
    except ImportError as error:
        raise UserError("needs the package fasttext, which is not installed", 'run: pip install "kedge[scale]"',
                        where=shown(path)) from error  # fmt: skip
    try:
        model = fasttext.load_model(str(path))
        labels = list(model.get_labels())
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot be loaded: {error}", "name a supervised fastText model", where=shown(path)) from error
    names = [label.removeprefix("__label__") for label in labels]
    return _FastText(names, {label: index for index, label in enumerate(labels)}, model)
