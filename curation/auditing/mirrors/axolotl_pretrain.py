"""axolotl 0.18.0 on plain text: `pretraining_dataset` (prompt_strategies/pretrain.py, utils/data/streaming.py) and
datasets of `type: completion` (prompt_strategies/completion.py), as arithmetic over anatomy.

pretraining_dataset with sample_packing cuts a text into windows of sequence_len - 1 tokens that overlap by up to 256,
and appends the end of sequence to every window: false document ends, and tokens that are trained twice. Without
sample_packing a text is cut at sequence_len - 2 and its rest is lost; the end of sequence is appended, after a cut too,
only with pretraining_sample_concatenation. Type completion cuts a text every sequence_len tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, SPLIT, WHOLE, Fates, Integers, Runs
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.axolotl_sft import DEAD, MIN_SAMPLE_LEN, READ, VERSIONS, bins, isolating, raising
from curation.errors import UserError

MOST_BLOCKS = 64  # a text of type completion is tokenised up to 64 times sequence_len
OVERLAP = 256


class AxolotlPretrain(Mirror):
    """axolotl's options that decide what becomes of a text, under its names and defaults; `type` is that of the
    dataset. The last token of a row is the end of sequence; those that axolotl appends to other windows are counted
    nowhere, and tell in `false_stop`.

    Approximated: a BOS that the tokenizer puts before every window is counted once; windows are packed best-fit in the
    frozen order, while axolotl packs them in shuffled buffers and drops the last sequence of each that is not full."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("midtrain",)
    limits: ClassVar[str] = "sequence_len"
    package: ClassVar[str] = "axolotl"
    versions: ClassVar[str] = VERSIONS
    read_not_run: ClassVar[str] = READ
    dead_options: ClassVar[dict[str, str]] = DEAD
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"overlap_len": (None, 0), "skip": (None, 0)}
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/auditing/mirrors/axolotl_sft.py", "curation/auditing/mirrors/trl_sft.py",
    )  # fmt: skip

    type: Literal["pretrain", "completion"] = "pretrain"
    sequence_len: int = Field(default=512, ge=4)
    min_sample_len: int | None = Field(default=None, ge=0)
    sample_packing: bool | None = None
    pretrain_multipack_attn: bool = True
    pretraining_sample_concatenation: bool | None = None
    flash_attention: bool | None = None
    sdp_attention: bool | None = None
    flex_attention: bool | None = None
    xformers_attention: bool | None = None
    attn_implementation: str | None = None

    @property
    def packs(self) -> bool:
        return bool(self.sample_packing) or self._joins

    @property
    def _joins(self) -> bool:
        return self.type == "pretrain" and not self.sample_packing and bool(self.pretraining_sample_concatenation)

    @property
    def isolates(self) -> bool:
        if self.type == "completion":
            return not self.packs or isolating(self.model_dump())
        return not self._joins and (not self.packs or self.pretrain_multipack_attn)

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if "text" not in columns:
            raise UserError("these rows are chats, which axolotl trains as type chat_template",
                            "use the mirror axolotl_sft", key="trainer.name")  # fmt: skip
        return "text"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        return raising(anatomy)

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens, runs = anatomy["tokens"].to_numpy().astype(np.int64), Runs.of(anatomy)
        if self.type == "completion":
            row, start, length = self._blocks(tokens)
            false_stop = np.zeros(len(tokens), bool)
        elif self.sample_packing:
            row, start, length = windows(tokens, self.sequence_len)
            false_stop = np.bincount(row, minlength=len(tokens)) > 1
        else:
            row, start, length, false_stop = self._beginnings(tokens)
        return self._fates(tokens, runs, (row, start, length), false_stop)

    def _blocks(self, tokens: Integers) -> tuple[Integers, Integers, Integers]:
        """Blocks of sequence_len tokens; one that is too short to be a sample is dropped."""
        limit = self.sequence_len
        kept = np.minimum(tokens, MOST_BLOCKS * limit)
        row, nth = _numbered(-(-kept // limit))
        start = nth * limit
        length = np.minimum(limit, kept[row] - start)
        stay = length >= (self.min_sample_len or MIN_SAMPLE_LEN)
        return row[stay], start[stay], length[stay]

    def _beginnings(self, tokens: Integers) -> tuple[Integers, Integers, Integers, np.ndarray]:
        """The first sequence_len - 2 tokens of each text, and its end of sequence where texts are joined."""
        text = np.maximum(tokens - 1, 0)
        kept = np.minimum(text, self.sequence_len - 2)
        cut = kept < text
        if self._joins:
            kept = kept + ((tokens > 0) & ~cut)
        row = np.flatnonzero(kept > 0)
        return row, np.zeros(len(row), np.int64), kept[row], cut & self._joins

    def _fates(self, tokens: Integers, runs: Runs, pieces: tuple[Integers, Integers, Integers],
               false_stop: np.ndarray) -> Fates:  # fmt: skip
        row, start, length = pieces
        count = np.bincount(row, minlength=len(tokens))
        ends = np.zeros(len(tokens), np.int64)
        np.maximum.at(ends, row, start + length)
        fate = np.where(count == 0, DROPPED, np.where(count > 1, SPLIT, np.where(ends < tokens, CUT, WHOLE)))
        bin = np.full(len(row), -1, np.int32)
        if self._joins:
            bin = in_order(length + 1 + false_stop[row], self.sequence_len)  # a pad follows each end of sequence
        elif self.packs:
            shorter = (start + length) < tokens[row] if self.type == "pretrain" else np.zeros(len(row), bool)
            bin = bins(length + shorter, self.sequence_len)
        return Fates(fate.astype(np.int8), row, start, length, bin, runs.within(row, start, length), false_stop)


def windows(tokens: Integers, limit: int) -> tuple[Integers, Integers, Integers]:
    """(row, start, length) of the windows of N texts (tokens with their end of sequence): `limit` - 1 tokens each, the
    next beginning min(256, (limit - 2) // 2) before the end of the one before, until one reaches the end of its text.
    The last takes the end of sequence of the text."""
    width = limit - 1
    step = width - min(OVERLAP, (limit - 2) // 2)
    text = np.maximum(tokens - 1, 0)
    row, nth = _numbered(np.where(tokens > 0, -(-np.maximum(text - width, 0) // step) + 1, 0))
    start = nth * step
    length = np.minimum(width, text[row] - start)
    return row, start, length + (start + length == text[row])


def in_order(lengths: Integers, limit: int) -> np.ndarray:
    """int32[P]: documents (tokens) laid one after the other into sequences of `limit` tokens; one that does not fit
    begins the next."""
    bin, space, found = -1, 0, np.empty(len(lengths), np.int32)
    for index, length in enumerate(lengths.tolist()):
        if length > space:
            bin, space = bin + 1, limit
        space -= length
        found[index] = bin
    return found


def _numbered(counts: Integers) -> tuple[Integers, Integers]:
    """(row, number within the row) of `counts` pieces per row."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
