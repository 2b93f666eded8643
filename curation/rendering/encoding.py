"""Texts -> token ids and where each token lies in its text, as fast as the tokenizer itself where its bytes add up.

A byte-level BPE writes every byte of the text into exactly one token, so positions follow from the lengths of the
tokens and `encode_batch_fast`, which keeps no offsets, is enough. Where they do not add up (another kind of model, a
normalizer that changes the text, tokens that swallow white space) the tokenizer's own offsets are taken.
"""

from __future__ import annotations

import json
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.rendering.tokenizers import Tokenizer

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Encoded:
    """`ids` int32[T]; token t covers the characters starts[t]..ends[t] (end exclusive). The tokens of one character
    that is split over several all cover it. `begins` is None where every token starts where the one before it ends."""

    ids: Ints
    ends: Ints
    begins: Ints | None = None

    @property
    def starts(self) -> Ints:
        """int32[T]: the first character of each token."""
        if self.begins is not None:
            return self.begins
        found = np.zeros_like(self.ends)
        found[1:] = self.ends[:-1]
        return found

    def token_at(self, character: int) -> int:
        """The first token that holds a character; T where it lies past the end."""
        return int(self.ends.searchsorted(character, side="right"))

    def holding(self, character: int) -> int | None:
        """The first token that holds a character, None where none does."""
        token = self.token_at(character)
        if token >= len(self.ids) or (self.begins is not None and self.begins[token] > character):
            return None
        return token


MANY = 256  # texts from which a second tokenizer is worth its making
EMPTY = Encoded(np.empty(0, np.int32), np.empty(0, np.int32))


class Encoder:
    """A tokenizer's texts-to-ids. `special` adds the tokenizer's special tokens around each text."""

    def __init__(self, backend: Any, special: bool):
        self.backend, self.special = backend, special
        self.lengths, self.form = _byte_lengths(backend)
        edges = backend.encode("", add_special_tokens=True).ids if special else []
        self.edges = len(edges)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One Encoded per text, in order."""
        if self.lengths is None or self.edges:
            return [_with_offsets(item) for item in self._slow(texts)]
        flat, edges = array("i"), [0]
        for encoding in self._fast(texts):
            flat.fromlist(encoding.ids)
            edges.append(len(flat))
        ids = np.frombuffer(flat, np.int32) if flat else EMPTY.ids
        ends = np.concatenate(([0], self.lengths[ids].cumsum()))  # bytes, over all texts
        found = [self._placed(text, ids[first:last], ends[first : last + 1])
                 for text, first, last in zip(texts, edges, edges[1:], strict=False)]  # fmt: skip
        missing = [number for number, item in enumerate(found) if item is None]
        for number, encoding in zip(missing, self._slow([texts[number] for number in missing]), strict=True):
            found[number] = _with_offsets(encoding)
        return [item for item in found if item is not None]

    def _fast(self, texts: Sequence[str]) -> list[Any]:
        """Encodings without offsets. Many texts of ASCII alone go past the normalizer, which changes nothing there."""
        plain = [number for number, text in enumerate(texts) if text.isascii()] if self.form else []
        if len(plain) < MANY:
            found: list[Any] = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return found
        found = [None] * len(texts)
        rest = [number for number, text in enumerate(texts) if not text.isascii()]
        for numbers, backend in ((plain, self.unnormalised), (rest, self.backend)):
            given = [texts[number] for number in numbers]
            for number, encoding in zip(
                numbers, backend.encode_batch_fast(given, add_special_tokens=False), strict=True
            ):
                found[number] = encoding
        return found

    @cached_property
    def unnormalised(self) -> Any:
        """The same tokenizer without its normalizer."""
        from tokenizers import Tokenizer as Backend

        return Backend.from_str(json.dumps(json.loads(self.backend.to_str()) | {"normalizer": None}))

    def _slow(self, texts: Sequence[str]) -> Any:
        return self.backend.encode_batch(list(texts), add_special_tokens=self.special) if texts else []

    def _placed(self, text: str, ids: Ints, borders: npt.NDArray[np.int64]) -> Encoded | None:
        """Where T tokens lie, by the T + 1 borders between them in bytes; None where those do not add up to the
        text's."""
        total = int(borders[-1] - borders[0])
        ends = (borders[1:] - borders[0]).astype(np.int32)
        if text.isascii():
            return Encoded(ids, ends) if total == len(text) else None
        data = np.frombuffer(text.encode(), np.uint8)
        if total != len(data) or (self.form and not unicodedata.is_normalized(self.form, text)):
            return None
        character = ((data & 0xC0) != 0x80).cumsum(dtype=np.int32)  # 1-based number of the character of each byte
        starts = np.concatenate((np.zeros(1, np.int32), ends[:-1]))
        return Encoded(ids, character[ends - 1], character[starts] - 1)


@lru_cache(maxsize=8)
def encoder_of(tokenizer: Tokenizer, special: bool) -> Encoder:
    """The encoder of a tokenizer, made once in a process."""
    return Encoder(tokenizer.hf.backend_tokenizer, special)


def _with_offsets(encoding: Any) -> Encoded:
    offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    return Encoded(np.array(encoding.ids, dtype=np.int32), offsets[:, 1].copy(), offsets[:, 0].copy())


def _byte_lengths(backend: Any) -> tuple[Ints | None, Any]:
    """(bytes of each token by id, the Unicode form that the normalizer makes or None) of a byte-level BPE; (None, None)
    for any other tokenizer."""
    state = json.loads(backend.to_str())
    normalizer = (state.get("normalizer") or {}).get("type")
    plain = normalizer in (None, "NFC", "NFD", "NFKC", "NFKD")
    if state["model"]["type"] != "BPE" or not plain or not _byte_level(state):
        return None, None
    vocabulary = backend.get_vocab(with_added_tokens=False)
    added = backend.get_added_tokens_decoder()
    lengths = np.zeros(max([*vocabulary.values(), *added], default=-1) + 1, np.int32)
    for token, number in vocabulary.items():
        lengths[number] = len(token)  # one character of the byte alphabet per byte
    for number, token in added.items():
        lengths[number] = len(token.content.encode())
    return lengths, normalizer


def _byte_level(state: dict[str, Any]) -> bool:
    """Whether the pre-tokenizer maps bytes one to one and no post-processor trims offsets."""
    before = state.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    after = state.get("post_processor") or {}
    trims = [step for step in after.get("processors", [after]) if step.get("trim_offsets")]
    levels = [step for step in steps if step.get("type") == "ByteLevel"]
    return bool(levels) and not trims and not any(step.get("add_prefix_space") for step in levels) and all(
        step.get("type") in ("ByteLevel", "Split", "Digits") and step.get("behavior") != "Removed" for step in steps
    )  # fmt: skip
