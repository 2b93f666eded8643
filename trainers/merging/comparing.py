"""`kedge checkpoint compare`: how far the weights of two checkpoints lie apart, and what differs beside them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.config import find_project
from curation.console import out, print_json, table
from curation.errors import UserError
from trainers.likeness import config_differences, generation_differences, group_of, read, text_differences
from trainers.merging.command import require_weights
from trainers.merging.tensor_stream import Tensor, blocks, equal_bytes, tensors_of

GROUPS = ("embed", "attention", "mlp", "norm", "head", "other", "all")
MOST_NAMES = 20


@dataclass(frozen=True)
class Distance:
    """Of a group of tensors: how many there are, how many of them differ, |B - A| / |A| over all their numbers
    (Euclidean norms; None where A is all zero), and the cosine (-1..1) of A - ancestor and B - ancestor (None without
    an ancestor, or where one of the two did not move)."""

    group: str
    num_tensors: int
    num_different: int
    relative_distance: float | None
    delta_cosine: float | None


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints A and B. `structure` says where they are not the same architecture (settings, and tensors that
    one lacks or has in another shape); `beside` what differs in tokenizer, template and generation settings."""

    a: str
    b: str
    ancestor: str | None
    same_weights: bool
    structure: list[str]
    beside: list[str]
    distances: list[Distance]
    farthest: list[dict[str, Any]] = field(
        default_factory=list
    )  # the tensors that differ most: name, relative_distance


@dataclass
class _Sums:
    """Sums of squares over numbers of A, of B - A, of the deltas to the ancestor, and of the deltas' product."""

    tensors: int = 0
    different: int = 0
    own: float = 0.0
    apart: float = 0.0
    moved: float = 0.0
    other_moved: float = 0.0
    product: float = 0.0

    def add(self, other: _Sums) -> None:
        for name in vars(other):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def distance(self) -> float | None:
        return math.sqrt(self.apart / self.own) if self.own else (0.0 if not self.apart else None)

    def cosine(self) -> float | None:
        size = math.sqrt(self.moved) * math.sqrt(self.other_moved)
        return max(-1.0, min(1.0, self.product / size)) if size else None


def compare(first: str, second: str) -> Comparison:
    """Compare two registered checkpoints by their files, a block of numbers at a time. Their nearest common ancestor is
    read too, where it has full weights of these shapes. Raises UserError where one is unknown, was removed or changed,
    or where an adapter meets what is no adapter on the same base."""
    catalog = Catalog(find_project())
    a, b = checkpoints.find(catalog, first), checkpoints.find(catalog, second)
    if a.id == b.id:
        raise UserError(f"'{first}' and '{second}' are the same checkpoint", "name two")
    _check_kinds(a, b)
    require_weights(catalog, a)
    require_weights(catalog, b)
    one, other = a.folder(catalog), b.folder(catalog)
    tensors, partners = tensors_of(one), tensors_of(other)
    ancestor = _ancestor(catalog, a, b) if a.weights == "full" else None
    roots = tensors_of(ancestor.folder(catalog)) if ancestor is not None else {}
    sums = {name: _sums(tensor, partners[name], roots.get(name)) for name, tensor in tensors.items()
            if name in partners and partners[name].shape == tensor.shape}  # fmt: skip
    return Comparison(
        a.id, b.id, None if ancestor is None else ancestor.id, a.weights_hash == b.weights_hash,
        _architecture(one, other, a.weights) + _shape_differences(tensors, partners),
        [f"{b.id} {item}" for item in text_differences(one, other) + generation_differences(one, other)],
        _distances(sums), _farthest(sums))  # fmt: skip


def _check_kinds(a: Checkpoint, b: Checkpoint) -> None:
    adapters = [item for item in (a, b) if item.weights == "adapter"]
    if len(adapters) == 1:
        raise UserError(f"{adapters[0].id} is an adapter and the other has full weights",
                        f"first: kedge checkpoint merge {adapters[0].id}")  # fmt: skip
    if len(adapters) == 2 and a.base_hash != b.base_hash:
        raise UserError(f"{a.id} and {b.id} are adapters on different bases",
                        f"first: kedge checkpoint merge {a.id}, and {b.id}")  # fmt: skip


def _ancestor(catalog: Catalog, a: Checkpoint, b: Checkpoint) -> Checkpoint | None:
    """The nearest checkpoint that both descend from and whose full weights are there."""
    line = {item.id for item in checkpoints.lineage(catalog, b)}
    common = [item for item in checkpoints.lineage(catalog, a) if item.id in line and item.id not in (a.id, b.id)]
    usable = [item for item in common if not item.pruned and item.weights == "full" and item.place(catalog).is_dir()]
    return usable[-1] if usable else None


def _architecture(one: Path, other: Path, kind: str) -> list[str]:
    if kind == "full":
        return config_differences(one, other)
    first, second = read(one, "adapter_config.json"), read(other, "adapter_config.json")
    keys = sorted({*first, *second} - {"base_model_name_or_path", "inference_mode", "peft_version"})
    return [f"has {key} = {second.get(key)}, not {first.get(key)}" for key in keys if _differ(first, second, key)]


def _differ(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> bool:
    one, other = first.get(key), second.get(key)
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) != sorted(map(str, other))  # PEFT saves sets of names in any order
    return one != other


def _shape_differences(tensors: dict[str, Tensor], partners: dict[str, Tensor]) -> list[str]:
    found = [f"lacks the tensor {name}" for name in tensors if name not in partners]
    found += [f"has the tensor {name}, which the first one lacks" for name in partners if name not in tensors]
    both = [(name, item, partners[name]) for name, item in tensors.items() if name in partners]
    return found + [f"has {name} in the shape {list(other.shape)}, not {list(item.shape)}"
                    for name, item, other in both if other.shape != item.shape]  # fmt: skip


def _sums(tensor: Tensor, partner: Tensor, root: Tensor | None) -> _Sums:
    """The sums of one tensor; of numbers that are no floats only whether they differ."""
    if not (tensor.is_float and partner.is_float):
        return _Sums(1, int(not equal_bytes(tensor, partner)))
    if root is not None and (root.shape != tensor.shape or not root.is_float):
        root = None
    total = _Sums(1)
    for a, b, c in zip(blocks(tensor), blocks(partner), repeat(None) if root is None else blocks(root), strict=False):
        left = a.astype(np.float64)
        apart = b - left
        total.own += _dot(left, left)
        total.apart += _dot(apart, apart)
        if c is not None:
            moved = left - c
            other = moved + apart
            total.moved += _dot(moved, moved)
            total.other_moved += _dot(other, other)
            total.product += _dot(moved, other)
    total.different = int(total.apart != 0)
    return total


def _dot(one: Any, other: Any) -> float:
    return float(np.einsum("i,i->", one, other))  # not BLAS, whose order of adding depends on the machine


def _distances(sums: dict[str, _Sums]) -> list[Distance]:
    groups: dict[str, _Sums] = defaultdict(_Sums)
    for name, item in sums.items():
        groups[group_of(name)].add(item)
        groups["all"].add(item)
    return [Distance(name, groups[name].tensors, groups[name].different, groups[name].distance(),
                     groups[name].cosine()) for name in GROUPS if name in groups]  # fmt: skip


def _farthest(sums: dict[str, _Sums]) -> list[dict[str, Any]]:
    ranked = sorted(((item.distance() or 0.0, name) for name, item in sums.items() if item.different), reverse=True)
    return [{"name": name, "relative_distance": value} for value, name in ranked[:MOST_NAMES]]


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """A table of distances, and a line for everything else that differs."""
    if as_json:
        print_json(asdict(comparison))
        return
    deltas = f"cosine of deltas to {comparison.ancestor}" if comparison.ancestor else "cosine of deltas"
    rows = [[item.group, item.num_tensors, item.num_different, item.relative_distance, item.delta_cosine]
            for item in comparison.distances]  # fmt: skip
    table(
        f"{comparison.a} and {comparison.b}", ["tensors of", "number", "different", "relative distance", deltas], rows
    )
    out.print("the same architecture" if not comparison.structure else "not the same architecture:", markup=False)
    for line in comparison.structure[:MOST_NAMES]:
        out.print(f"  {comparison.b} {line}", markup=False)
    if comparison.structure[MOST_NAMES:]:
        out.print(f"  and {len(comparison.structure) - MOST_NAMES} more (see --json)", markup=False)
    for line in comparison.beside or ["tokenizer, template and generation settings are the same"]:
        out.print(line, markup=False)
