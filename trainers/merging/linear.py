"""Merging full weights: the weighted mean of checkpoints of one model, tensor by tensor.

    merged = sum of weight * tensor, in float32 (float64 for F64), rounded once to the first one's dtype

An average of checkpoints lies between them in weight space, and often keeps most of what both are good at (Wortsman et
al. 2022, "Model soups"; Rame et al. 2024, "WARP", for RL against its SFT start). Which weight is best is not known
beforehand: it is swept and evaluated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from curation import checkpoints
from curation.errors import Problem, UserError
from curation.outputs import sync
from trainers.likeness import config_differences, group_of, text_differences
from trainers.merging.tensor_stream import Shard, Tensor, blocks, by_name, byte_blocks, equal_bytes, shards_of, to_bytes

RECORD = "merge.json"
COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "additional_chat_templates")
NOT_COPIED = (RECORD, "model.safetensors.index.json", "trainer_state.json", "adapter_config.json")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def merge_linear(
    folders: Sequence[Path],
    weights: Sequence[float],
    target: Path,
    *,
    waive: str | None = None,
    hashes: Sequence[str] | None = None,
) -> tuple[str, str]:
    """Write the weighted mean of full checkpoints to `target`, whole or not at all; returns kind and hash as
    `checkpoints.weights_of` does.

    `weights` are the shares of `folders`, finite and 1 together. Shards, dtypes and everything beside the weights
    (configuration, tokenizer, template, generation settings) are the first one's; merge.json says what was merged.
    Equal inputs give equal bytes. Memory is that of some blocks of numbers, whatever the size of a shard. Tensors that
    are no floats must be equal. A tied tensor (an output head that is the embedding) may be stored in some folders and
    not in others. Raises UserError with every difference of names, shapes, architecture, tokenizer and template;
    `waive` accepts another tokenizer or template with a reason. `hashes` are the folders' weights hashes if known."""
    _check_weights(folders, weights)
    first, *others = [shards_of(folder) for folder in folders]
    partners = _partners(folders, first, others, waive)
    with publishing(target, sum(item.num_bytes for shard in first for item in shard.tensors)) as draft:
        for shard in first:
            _write_shard(shard, partners, weights, draft / shard.file.name)
        copy_beside(folders[0], draft)
        index = folders[0] / "model.safetensors.index.json"
        if index.is_file():
            shutil.copyfile(index, draft / index.name)
        write_record(
            draft, linear_record(hashes or [checkpoints.weights_of(item)[1] for item in folders], weights, waive)
        )
    return checkpoints.weights_of(target)


def linear_record(hashes: Sequence[str], weights: Sequence[float], waive: str | None) -> dict[str, Any]:
    """What merge.json says of a weighted mean: the weights hash and share of each checkpoint, and the waiver."""
    merged = [{"weights_hash": digest, "weight": weight} for digest, weight in zip(hashes, weights, strict=True)]
    return {"method": "linear", "merged": merged, "waived": waive}


def _check_weights(folders: Sequence[Path], weights: Sequence[float]) -> None:
    if len(folders) < 2 or len(folders) != len(weights):
        raise UserError(
            f"{len(folders)} checkpoints with {len(weights)} weights", "give two or more, a weight for each"
        )
    if not all(map(math.isfinite, weights)) or abs(sum(weights) - 1) > 1e-6:
        raise UserError(f"the weights {', '.join(f'{weight:g}' for weight in weights)} are not 1 together",
                        "give shares that sum to 1")  # fmt: skip
    for folder in folders:
        if checkpoints.check_weights(folder) != "full":
            what = "is an adapter, whose numbers mean nothing without its base"
            raise UserError(what, "merge it onto its base first: kedge checkpoint merge ADAPTER", where=str(folder))


def _partners(folders: Sequence[Path], first: list[Shard], others: list[list[Shard]],
              waive: str | None) -> dict[str, list[Tensor]]:  # fmt: skip
    """The tensor of every checkpoint for each name of the first. Raises UserError with all differences."""
    own = by_name(first)
    found = {name: [tensor] for name, tensor in own.items()}
    problems: list[Problem] = []
    for folder, shards in zip(folders[1:], others, strict=True):
        theirs = by_name(shards)
        what = config_differences(folders[0], folder)
        texts = text_differences(folders[0], folder)
        for name, tensor in own.items():
            partner = theirs.get(name) or _tied(folders, tensor, own, theirs)
            if partner is None:
                what.append(f"lacks the tensor {name}")
            elif partner.shape != tensor.shape:
                what.append(f"has {name} in the shape {list(partner.shape)}, not {list(tensor.shape)}")
            elif tensor.is_float != partner.is_float or not (tensor.is_float or equal_bytes(tensor, partner)):
                what.append(f"has other numbers in {name} ({partner.dtype}, {tensor.dtype}), which are no floats to "
                            "be averaged")  # fmt: skip
            else:
                found[name].append(partner)
        what += [f"has the tensor {name}, which the first one lacks" for name, tensor in theirs.items()
                 if name not in own and _tied(folders, tensor, theirs, own) is None]  # fmt: skip
        problems += [Problem(item, "merge checkpoints of one model", where=str(folder)) for item in what]
        if waive is None:
            problems += [Problem(item, "train both under one tokenizer and template, or accept it with --waive REASON",
                                 where=str(folder)) for item in texts]  # fmt: skip
    if problems:
        raise UserError(problems)
    return found


def _tied(folders: Sequence[Path], tensor: Tensor, among: dict[str, Tensor],
          others: dict[str, Tensor]) -> Tensor | None:  # fmt: skip
    """What stands in `others` for an embedding or head that only `among` stores, where the two are tied: the partner of
    the one with the same numbers."""
    if group_of(tensor.name) not in ("embed", "head"):
        return None
    if not json.loads((folders[0] / "config.json").read_text()).get("tie_word_embeddings", True):
        return None
    for name, twin in among.items():
        if name != tensor.name and group_of(name) in ("embed", "head") and name in others and equal_bytes(tensor, twin):
            return others[name]
    return None


def _write_shard(shard: Shard, partners: dict[str, list[Tensor]], weights: Sequence[float], path: Path) -> None:
    """A shard with the first one's header, hence its names, dtypes, shapes and places, and the averaged numbers."""
    with path.open("wb") as stream:
        stream.write(shard.header)
        for tensor in shard.tensors:
            if not tensor.is_float:
                for raw in byte_blocks(tensor):
                    stream.write(raw)
                continue
            for raw in _averaged(partners[tensor.name], weights):
                stream.write(raw)


def _averaged(tensors: Sequence[Tensor], weights: Sequence[float]) -> Iterator[bytes]:
    """The bytes of a weighted mean in the first tensor's dtype, block by block. Raises UserError where a number is not
    finite, or not in that dtype."""
    wide = np.float64 if tensors[0].dtype == "F64" else np.float32
    limit = {"F16": 65504.0, "BF16": 3.3895313892515355e38}.get(tensors[0].dtype, np.inf)
    for parts in zip(*(blocks(tensor) for tensor in tensors), strict=True):
        total = parts[0].astype(wide, copy=False) * wide(weights[0])
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total += part.astype(wide, copy=False) * wide(weight)
        low, high = float(total.min()), float(total.max())  # a NaN comes through both
        if not (np.isfinite(low) and np.isfinite(high) and -limit <= low and high <= limit):
            raise UserError(f"{tensors[0].name} holds a number that is not finite in {tensors[0].dtype}",
                            "one of the checkpoints is broken: take an earlier step",
                            where=", ".join(str(item.file) for item in tensors))  # fmt: skip
        yield to_bytes(total, tensors[0].dtype)


def copy_beside(source: Path, target: Path) -> None:
    """Copy what lies beside the weights (configuration, tokenizer, template, generation settings, model code)."""
    for pattern in COPIED:
        for path in sorted(source.glob(pattern)):
            if path.name in NOT_COPIED or path.name.endswith(".index.json"):
                continue
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, target / path.name)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write merge.json: what was merged, by weights hash."""
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def publishing(target: Path, num_bytes: int) -> Iterator[Path]:
    """A folder beside `target` that takes its place whole when the block ends; an exception, a full disk or a kill
    leaves no target. Drafts of dead processes are removed. Raises UserError where `target` is there already, or where
    the disk has no room for `num_bytes`."""
    if target.exists():
        raise UserError("is there already", "name another target, or remove it", where=str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(".tmp-*"):
        pid = leftover.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free
    if free < num_bytes:
        raise _no_room(target, num_bytes, free)
    draft = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        for path in draft.rglob("*"):
            if path.is_file():
                sync(path)
        sync(draft)
        draft.rename(target)
        sync(target.parent)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _no_room(target, num_bytes, shutil.disk_usage(target.parent).free) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _no_room(target: Path, num_bytes: int, free: int) -> UserError:
    what = f"there is no room for {num_bytes / 2**20:,.1f} MiB of weights ({free / 2**20:,.1f} MiB are free)"
    next_ = "free some and run the same command again; nothing was registered"
    return UserError(what, next_, where=str(target.parent))
