"""Checkpoints: weights at a step of a run, with parent, mixture and template.

One JSON record per checkpoint under `lake/runs/<run>/checkpoints/step-NNNNNNNN.json`, written last and in one step, so
that a half-written folder is never registered; the weights are on the disk before it. Weights are identified by the
hash of their bytes. Where a retention rule removed them, the record stays and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from curation.catalog import Catalog
from curation.errors import UserError, did_you_mean
from curation.fingerprint import hash_folder
from curation.outputs import sync, write_atomically


class Checkpoint(BaseModel):
    """A registered checkpoint. `path` is relative to the project, or absolute outside of it. `mixture` is
    `NAME@FINGERPRINT` and None where the data is unknown; `parent` a checkpoint id; `base_hash` (adapters only) the
    weights hash of the model that the adapter belongs to and `base_path` its folder. `merged_from` has the share (0..1)
    of each checkpoint whose weights were averaged, an adapter and its base both with 1; it is empty for what was
    trained. `pruned`: a retention rule removed the weights."""

    model_config = ConfigDict(frozen=True)
    run: str
    step: int
    path: str
    weights: Literal["full", "adapter"]
    weights_hash: str
    base_path: str | None = None
    base_hash: str | None = None
    run_fingerprint: str | None = None
    parent: str | None = None
    mixture: str | None = None
    audit: str | None = None
    tokenizer: str | None = None  # fingerprint
    template: str | None = None  # fingerprint
    tags: list[str] = []
    merged_from: dict[str, float] = {}
    pruned: bool = False

    @property
    def id(self) -> str:
        return f"{self.run}@{self.step}"

    def folder(self, catalog: Catalog) -> Path:
        """Where the weights lie. Raises UserError where a retention rule removed them."""
        if self.pruned:
            kept = [item.id for item in every(catalog, self.run) if item.step < self.step and not item.pruned]
            origin = kept[-1] if kept else self.parent
            raise UserError(f"the weights of {self.id} were removed by the rule 'keep' of its run",
                            f"to get them again: kedge train {self.run} --from {origin}", key="checkpoint")  # fmt: skip
        return self.place(catalog)

    def place(self, catalog: Catalog) -> Path:
        """Where the weights lie, or lay before they were removed."""
        path = Path(self.path)
        return path if path.is_absolute() else catalog.project.root / path

    def base_folder(self, catalog: Catalog) -> Path | None:
        """Where an adapter's base lies; None for full weights."""
        if self.base_path is None:
            return None
        path = Path(self.base_path)
        return path if path.is_absolute() else catalog.project.root / path


def _record(catalog: Catalog, run: str, step: int) -> Path:
    return catalog.folder("runs", run, "checkpoints", f"step-{step:08d}.json")


def every(catalog: Catalog, run: str | None = None) -> list[Checkpoint]:
    """All registered checkpoints (of a run), ordered by run and step."""
    pattern = f"{run or '*'}/checkpoints/step-*.json"
    found = [Checkpoint.model_validate_json(path.read_bytes()) for path in catalog.folder("runs").glob(pattern)]
    return sorted(found, key=lambda item: (item.run, item.step))


def register(catalog: Catalog, checkpoint: Checkpoint) -> Checkpoint:
    """Enter a checkpoint once its files are on the disk; entering the same one twice changes nothing. Raises UserError
    where the run has other weights at this step already (unless they were removed), OSError where the disk did not take
    the files."""
    path = _record(catalog, checkpoint.run, checkpoint.step)
    if path.exists():
        known = Checkpoint.model_validate_json(path.read_bytes())
        if known.weights_hash != checkpoint.weights_hash and not known.pruned:
            raise UserError(
                f"{checkpoint.id} is registered already with other weights ({known.weights_hash[:12]}, "
                f"now {checkpoint.weights_hash[:12]})",
                "register it under another --run name",
            )
        if known == checkpoint:
            return known
    if checkpoint.place(catalog).is_dir():  # a network disk may tell only now that it was full
        for file in checkpoint.place(catalog).iterdir():
            if file.is_file():
                sync(file)
    return _write(catalog, checkpoint)


def _write(catalog: Catalog, checkpoint: Checkpoint) -> Checkpoint:
    text = json.dumps(checkpoint.model_dump(mode="json"), indent=1, sort_keys=True)
    write_atomically(_record(catalog, checkpoint.run, checkpoint.step), text.encode())
    return checkpoint


def amend(catalog: Catalog, checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    """Change fields of a registered checkpoint, as its record is now; the caller holds `amending`."""
    record = _record(catalog, checkpoint.run, checkpoint.step)
    now = Checkpoint.model_validate_json(record.read_bytes())
    return _write(catalog, now.model_copy(update=changes))


@contextlib.contextmanager
def amending(catalog: Catalog) -> Iterator[None]:
    """Hold the right to change records; another process that wants it waits. Held for moments only: a tag that is
    set while a rule removes weights is seen by it or comes after it."""
    path = catalog.lake / ".locks" / "checkpoints.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def find(catalog: Catalog, reference: str) -> Checkpoint:
    """The checkpoint that a reference means: `RUN@STEP`, a tag, or `RUN` for its last step. Raises UserError."""
    known = every(catalog)
    for item in known:
        if reference == item.id or reference in item.tags:
            return item
    of_run = [item for item in known if item.run == reference]
    if of_run:
        return of_run[-1]
    names = {item.id for item in known} | {item.run for item in known}
    raise UserError(f"there is no checkpoint '{reference}'", f"{did_you_mean(reference, names)} (see: kedge checkpoint "
                    "list)", key="checkpoint")  # fmt: skip


def lineage(catalog: Catalog, checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoint's ancestors from the first base to itself."""
    chain = [checkpoint]
    while chain[0].parent is not None:
        parent = find(catalog, chain[0].parent)
        if parent in chain:
            raise UserError(f"{checkpoint.id} is its own ancestor", "mend the 'parent' of its run")
        chain.insert(0, parent)
    return chain


def weights_of(folder: Path) -> tuple[Literal["full", "adapter"], str]:
    """Kind and hash of the weights in a folder: xxh3-128 over the names and bytes of its safetensors (and, for an
    adapter, its configuration). Raises UserError where it is no complete checkpoint."""
    kind = check_weights(folder)
    wanted = ("*.safetensors",) if kind == "full" else ("adapter_model*.safetensors", "adapter_config.json")
    return kind, hash_folder(folder, wanted)


def check_weights(folder: Path) -> Literal["full", "adapter"]:
    """The kind of the weights in a folder, whose files are whole as far as their headers and JSON tell. Raises
    UserError where it is no complete checkpoint."""
    if not folder.is_dir():
        raise UserError("is no folder", "name a checkpoint's folder", where=str(folder))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _read_json(folder / name)
    tokenizer = folder / "tokenizer.json"  # large: its end tells whether it was cut off
    if tokenizer.is_file() and not _last_bytes(tokenizer).rstrip().endswith(b"}"):
        raise UserError("is no JSON: half-written?", "copy or save it again", where=str(tokenizer))
    adapter = sorted(folder.glob("adapter_model*.safetensors"))
    if adapter:
        if not (folder / "adapter_config.json").is_file():
            raise UserError("has adapter weights but no adapter_config.json", "copy it from the training output",
                            where=str(folder))  # fmt: skip
        _read_json(folder / "adapter_config.json")
        for file in adapter:
            check_safetensors(file)
        return "adapter"
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        what = "holds pickled weights, which are never loaded" if pickled else "holds no safetensors weights"
        raise UserError(what, "save it with safetensors (save_pretrained)", where=str(folder))
    if not (folder / "config.json").is_file():
        raise UserError("has weights but no config.json: half-written?", "save the model again", where=str(folder))
    held = {shard.name: check_safetensors(shard) for shard in shards}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        _check_index(index, held)
    return "full"


def _check_index(index: Path, held: dict[str, dict[str, Any]]) -> None:
    """Raises UserError where a shard that the index names is missing, or lacks a tensor that it should hold."""
    value = _read_json(index)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict):
        raise UserError("has no 'weight_map'", "save the model again", where=str(index))
    missing = sorted(set(places.values()) - set(held))
    if missing:
        raise UserError(f"lacks {', '.join(missing)}: half-written?", "copy the missing shards",
                        where=str(index.parent))  # fmt: skip
    astray = sorted(name for name, shard in places.items() if name not in held[shard])
    if astray:
        raise UserError(f"lacks the tensor {astray[0]}" + (f" and {len(astray) - 1} more" if astray[1:] else "") +
                        ": shards of another save?", "copy or save it again", where=str(index.parent))  # fmt: skip


def _last_bytes(path: Path, count: int = 64) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - count))
        return stream.read()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not UTF-8, cut off, or nested without end
        raise UserError("is no JSON: half-written?", "copy or save it again", where=str(path)) from error


def check_safetensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises UserError where the file is shorter than its header says (a save or
    copy that was cut off)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size:
            raise UserError("is no complete safetensors file", "copy or save it again", where=str(path))
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            end = max((item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise UserError("is no safetensors file: its header cannot be read", "copy or save it again",
                            where=str(path)) from error  # fmt: skip
    if 8 + length + end != size:
        raise UserError(f"is cut off: {size} bytes where its header says {8 + length + end}", "copy or save it again",
                        where=str(path))  # fmt: skip
    return header


def register_base(catalog: Catalog, reference: str) -> Checkpoint:
    """A base model as a checkpoint `base-NAME@0`: a local folder (relative to the project), or a hub id that the
    local hub cache holds or can fetch."""
    local = Path(reference) if Path(reference).is_absolute() else catalog.project.root / reference
    if local.is_dir():
        folder = local
    else:
        folder = fetch_model(reference)
    kind, digest = weights_of(folder)
    if kind == "adapter":
        raise UserError("is an adapter, not a base model", "use checkpoint add --base", where=str(folder))
    name = "base-" + Path(reference.rstrip("/")).name.replace("@", "-")
    return register(catalog, Checkpoint(run=name, step=0, path=catalog.project.relative(folder), weights="full",
                                        weights_hash=digest))  # fmt: skip


def fetch_model(reference: str) -> Path:
    """The local folder of a hub model `ID@REVISION`, through the hub's own cache. Raises UserError where it is neither
    a folder, nor cached, nor to be had."""
    from huggingface_hub import snapshot_download

    repository, _, revision = reference.partition("@")
    wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except Exception as error:
        raise UserError(
            f"'{reference}' is neither a folder nor a model that could be fetched ({type(error).__name__})",
            "give a local folder, or check the id and the network",
        ) from error
