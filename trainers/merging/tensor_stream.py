"""Tensors of safetensors files, read and written a block at a time: memory is that of some blocks, whatever the size of
a shard.

A safetensors file is eight bytes with the length of its header, the header (JSON: name -> dtype, shape, data_offsets),
and the tensors' bytes (https://huggingface.co/docs/safetensors). Files are read with plain reads and not mapped: mapped
pages stay resident and would make the memory that of whole shards again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curation import checkpoints
from curation.errors import UserError

BLOCK = 1 << 20  # numbers per block: 4 MB in float32, so that a few of them stay in a processor's cache
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its safetensors dtype, its shape, and where its bytes begin and end in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        return self.stop - self.start

    @property
    def is_float(self) -> bool:
        """Whether it is of a dtype that can be averaged here."""
        return self.dtype in SIZES


@dataclass(frozen=True)
class Shard:
    """A safetensors file: its header as it is (length and JSON) and its tensors in the order of their bytes."""

    file: Path
    header: bytes
    tensors: tuple[Tensor, ...]


def shards_of(folder: Path) -> list[Shard]:
    """The weight files of a checkpoint in name order, of full weights or an adapter. Raises UserError where it is none
    or a file is cut off."""
    kind = checkpoints.check_weights(folder)
    pattern = "*.safetensors" if kind == "full" else "adapter_model*.safetensors"
    return [read_shard(path) for path in sorted(folder.glob(pattern))]


def read_shard(file: Path) -> Shard:
    """The header of a safetensors file. Raises UserError where the file is cut off."""
    header = checkpoints.check_safetensors(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        stream.seek(0)
        raw = stream.read(8 + length)
    found = [
        Tensor(name, item["dtype"], tuple(item["shape"]), file, *(len(raw) + end for end in item["data_offsets"]))
        for name, item in header.items() if name != "__metadata__"
    ]  # fmt: skip
    found.sort(key=lambda item: (item.start, item.stop, item.name))
    place = len(raw)
    for tensor in found:
        size = math.prod(tensor.shape) * SIZES.get(tensor.dtype, 0)
        if tensor.start != place or (tensor.is_float and size != tensor.num_bytes):
            raise UserError(f"is no sound safetensors file: {tensor.name} does not lie where it should",
                            "save it again", where=str(file))  # fmt: skip
        place = tensor.stop
    return Shard(file, raw, tuple(found))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's folder by name. Raises UserError as `shards_of` and `by_name` do."""
    return by_name(shards_of(folder))


def by_name(shards: Iterable[Shard]) -> dict[str, Tensor]:
    """The tensors of a folder's shards. Raises UserError where two files hold a tensor of the same name."""
    found: dict[str, Tensor] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in found:
                what = f"{found[tensor.name].file.name} and {shard.file.name} both hold {tensor.name}"
                next_ = "remove the file that is left from another save"
                raise UserError(what, next_, where=str(tensor.file.parent))
            found[tensor.name] = tensor
    return found


def blocks(tensor: Tensor) -> Iterator[Floats]:
    """The numbers of a float tensor, flat, in blocks of BLOCK: float64 as they are, all others in float32."""
    for raw in byte_blocks(tensor, BLOCK * SIZES[tensor.dtype]):
        yield to_floats(raw, tensor.dtype)


def byte_blocks(tensor: Tensor, size: int = 4 * BLOCK) -> Iterator[bytes]:
    """The bytes of a tensor in blocks of `size`."""
    with tensor.file.open("rb", buffering=0) as stream:
        stream.seek(tensor.start)
        left = tensor.num_bytes
        while left:
            raw = stream.read(min(size, left))
            while raw and len(raw) < min(size, left):  # a read may be interrupted
                raw += stream.read(min(size, left) - len(raw))
            if not raw:
                raise UserError("became shorter while it was read", "copy or save it again", where=str(tensor.file))
            left -= len(raw)
            yield raw


def equal_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in the same dtype and shape."""
    if (one.dtype, one.shape, one.num_bytes) != (other.dtype, other.shape, other.num_bytes):
        return False
    return all(a == b for a, b in zip(byte_blocks(one), byte_blocks(other), strict=True))


def to_floats(raw: bytes, dtype: str) -> Floats:
    """Little-endian bytes of a float dtype as float32 (float64 for F64). A bfloat16 is the upper half of a float32."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view(np.float32)
    if dtype == "F16":
        return np.frombuffer(raw, "<f2").astype(np.float32)
    return np.frombuffer(raw, "<f8" if dtype == "F64" else "<f4")


def to_bytes(values: Floats, dtype: str) -> bytes:
    """The bytes of finite numbers in a float dtype, rounded to the nearest, ties to even, as torch rounds."""
    if dtype == "BF16":
        bits = values.astype("<f4", copy=False).view("<u4")
        return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype], copy=False).tobytes()
