"""Identity is content: stable hashes of values, files and payloads.

`fingerprint` encodes a value canonically and refuses whatever has no stable form, so that a fingerprint never depends
on memory addresses, set order or float formatting.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import xxhash
from pydantic import BaseModel

FINGERPRINT_CHARS = 32


def _stable(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, enum.Enum):
        return _stable(value.value, where)
    if isinstance(value, int):
        return value if -(2**53) < value < 2**53 else {"int": str(value)}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where}: {value} has no stable form")
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": hashlib.blake2b(value, digest_size=16).hexdigest()}
    if isinstance(value, BaseModel):
        return _stable({name: getattr(value, name) for name in type(value).model_fields}, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is no string")
        return {"map": {key: _stable(value[key], f"{where}.{key}") for key in value}}
    if isinstance(value, list | tuple):
        return [_stable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{where}: {type(value).__name__} has no stable form")


def canonical(value: Any) -> bytes:
    """Canonical bytes of `value`: None, bool, int, finite float, str, bytes, enum, pydantic model, mapping with string
    keys, list or tuple. Raises TypeError for anything else (sets, callables, NaN, paths, arbitrary objects)."""
    return orjson.dumps(_stable(value, "value"), option=orjson.OPT_SORT_KEYS)


def fingerprint(value: Any) -> str:
    """32 hex characters (blake2b, 128 bits) of the canonical bytes of `value`."""
    return hashlib.blake2b(canonical(value), digest_size=16).hexdigest()


def hash_bytes(data: bytes) -> str:
    """32 hex characters (xxh3-128) of `data`."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """32 hex characters (xxh3-128) of a file's bytes, read in blocks of 4 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(4 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_folder(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """32 hex characters over the names and bytes of the files in `folder` that match a pattern, in name order."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return fingerprint([[path.relative_to(folder).as_posix(), hash_file(path)] for path in files])
