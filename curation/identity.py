"""Who a row is: hashes of its payload, of its prompt, and its id."""

from __future__ import annotations

import unicodedata
from typing import Any

import orjson
import xxhash

from curation import schema
from curation.conversations import Rejected

SPLIT_RANGE = 2**64


def payload_bytes(fields: dict[str, Any], stage: str) -> bytes:
    """Canonical bytes of the training fields alone: nulls dropped, keys sorted. Raises Rejected for lone surrogates."""
    payload = {name: fields[name] for name, _ in schema.PAYLOAD[stage] if fields.get(name) is not None}
    try:
        return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise Rejected(f"holds what JSON cannot: {error}") from error


def content_hash(payload: bytes) -> bytes:
    """16 bytes (xxh3-128) of the payload; equal across sources for equal payloads."""
    return xxhash.xxh3_128_digest(payload)


def row_id(source: str, content: bytes, occurrence: int) -> bytes:
    """16 bytes (xxh3-128) of the source, the content hash and the row's number among its identical twins."""
    return xxhash.xxh3_128_digest(b"%b\0%b\0%d" % (source.encode(), content, occurrence))


def prompt_text(fields: dict[str, Any]) -> str:
    """The user turns before the first assistant turn, or the text (or question) of a row without turns."""
    turns = fields.get("prompt") or fields.get("messages")
    if turns is None:
        return fields.get("text") or fields.get("question") or ""
    asked = []
    for turn in turns:
        if turn["role"] == "assistant":
            break
        if turn["role"] == "user":
            asked.append(turn.get("content") or "")
    return "\n".join(asked)


def prompt_hash(fields: dict[str, Any]) -> bytes:
    """16 bytes (xxh3-128) of the prompt, NFKC, case folded, white space folded: the key of held-out shares."""
    text = prompt_text(fields)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return xxhash.xxh3_128_digest(" ".join(text.casefold().split()))


def is_held_out(prompt: bytes, share: float) -> bool:
    """Whether a prompt belongs to the held-out share (0..1); a larger share holds out a superset."""
    return int.from_bytes(prompt[:8], "big") < share * SPLIT_RANGE
