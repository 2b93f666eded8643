"""What a trainer does to token sequences: their fates, and the pieces of them that it trains on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

FATES = ("whole", "cut", "dropped", "split")
WHOLE, CUT, DROPPED, SPLIT = range(4)

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fates:
    """Of N sequences. `fate` int8[N] indexes FATES. A piece is a stretch of one sequence that the trainer keeps; of P
    pieces, ascending by sequence and position: `row` (its sequence), `start` and `length` in tokens of the sequence
    before any cut, `bin` (the packed sequence it lies in, -1 where nothing is packed) and `trained` (its trained
    tokens). `false_stop` bool[N]: the trainer lets the model learn to stop where the answer does not end."""

    fate: npt.NDArray[np.int8]
    row: Integers
    start: Integers
    length: Integers
    bin: npt.NDArray[np.int32]
    trained: Integers
    false_stop: Flags

    @classmethod
    def prefixes(cls, fate: np.ndarray, kept: np.ndarray, trained: np.ndarray, bins: np.ndarray | None = None) -> Fates:
        """Fates that keep the first `kept` tokens of every sequence (0 of a dropped one); all arguments [N]."""
        row = np.flatnonzero(kept > 0)
        bins = np.full(len(fate), -1, np.int32) if bins is None else bins
        return cls(fate.astype(np.int8), row, np.zeros(len(row), np.int64), kept[row], bins[row], trained[row],
                   np.zeros(len(fate), bool))  # fmt: skip

    @cached_property
    def kept(self) -> Integers:
        """int64[N]: kept tokens; a token that is kept in two pieces counts twice."""
        return self._sums(self.length)

    @cached_property
    def kept_trained(self) -> Integers:
        """int64[N]: trained tokens that stay."""
        return self._sums(self.trained)

    @property
    def whole(self) -> Flags:
        return self.fate == WHOLE

    @property
    def dropped(self) -> Flags:
        return self.fate == DROPPED

    @cached_property
    def _starts_alone(self) -> bool:
        """Whether every kept sequence is one piece from its first token on."""
        return not self.start.any() and (len(self.row) < 2 or bool((np.diff(self.row) > 0).all()))

    def holds(self, first: np.ndarray, end: np.ndarray) -> Flags:
        """bool[N]: whether one piece of each sequence holds the tokens first..end (end exclusive) whole. False where
        `first` is negative."""
        if self._starts_alone:
            return (first >= 0) & (end <= self.kept)
        row = self.row
        inside = (first[row] >= self.start) & (end[row] <= self.start + self.length)
        found = np.zeros(len(self.fate), bool)
        found[row[inside]] = True
        return found & (first >= 0)

    def covers_start(self) -> Flags:
        """bool[N]: whether what is kept begins with the first token and has no hole up to its last one."""
        if self._starts_alone:
            return self.kept > 0
        first = np.r_[True, np.diff(self.row) > 0] if len(self.row) else np.empty(0, bool)
        expected = np.where(first, 0, np.r_[0, (self.start + self.length)[:-1]] if len(self.row) else 0)
        found = self.kept > 0
        found[self.row[self.start > expected]] = False
        return found

    def num_bins(self) -> int | None:
        """Number of packed sequences; None where nothing is packed."""
        used = self.bin[self.bin >= 0]
        return len(np.unique(used)) if len(used) else None

    def _sums(self, values: Integers) -> Integers:
        if self._starts_alone:
            found = np.zeros(len(self.fate), np.int64)
            found[self.row] = values
            return found
        return np.bincount(self.row, weights=values, minlength=len(self.fate)).astype(np.int64)

    def table(self) -> pa.Table:
        """N rows: fate, kept_tokens, kept_trained_tokens, bin (of the first piece) and `pieces`, a list of (start,
        length, bin) that is null where the sequence is whole, cut at the end or dropped."""
        names = pa.DictionaryArray.from_arrays(pa.array(self.fate, pa.int8()), list(FATES)).cast(pa.string())
        bins = np.full(len(self.fate), -1, np.int32)
        bins[self.row[::-1]] = self.bin[::-1]
        return pa.table({"fate": names, "kept_tokens": pa.array(self.kept, pa.int32()),
                         "kept_trained_tokens": pa.array(self.kept_trained, pa.int32()), "bin": pa.array(bins),
                         "pieces": self._pieces()})  # fmt: skip

    def _pieces(self) -> pa.Array:
        kind = pa.list_(pa.struct([("start", pa.int32()), ("length", pa.int32()), ("bin", pa.int32())]))
        if self._starts_alone:
            return pa.nulls(len(self.fate), kind)
        edges = np.concatenate(([0], np.cumsum(np.bincount(self.row, minlength=len(self.fate)))))
        values = pa.StructArray.from_arrays(
            [pa.array(item, pa.int32()) for item in (self.start, self.length, self.bin)], fields=list(kind.value_type)
        )
        return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), values)


@dataclass(frozen=True)
class Runs:
    """The trained stretches of N sequences: run r of all starts at `start[r]` and is `length[r]` tokens long; those of
    sequence i are runs edges[i]..edges[i + 1]."""

    start: Integers
    length: Integers
    edges: Integers

    @classmethod
    def of(cls, anatomy: pa.Table) -> Runs:
        """From the columns mask_starts and mask_lengths."""
        starts = anatomy["mask_starts"].combine_chunks()
        sizes = pc.list_value_length(starts).to_numpy(zero_copy_only=False)
        return cls(
            pc.list_flatten(starts).to_numpy(zero_copy_only=False).astype(np.int64),
            pc.list_flatten(anatomy["mask_lengths"].combine_chunks()).to_numpy(zero_copy_only=False).astype(np.int64),
            np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        )

    def before(self, limit: int) -> Integers:
        """int64[N]: trained tokens among the first `limit` of each sequence."""
        running = np.concatenate(([0], np.cumsum(np.clip(limit - self.start, 0, self.length))))
        return running[self.edges[1:]] - running[self.edges[:-1]]

    def within(self, row: Integers, start: Integers, length: Integers) -> Integers:
        """int64[P]: trained tokens of P pieces (sequence, first token, tokens)."""
        sizes = self.edges[row + 1] - self.edges[row]
        edges = np.concatenate(([0], np.cumsum(sizes)))
        run = np.repeat(self.edges[row] - edges[:-1], sizes) + np.arange(edges[-1])
        piece = np.repeat(np.arange(len(row)), sizes)
        first = np.maximum(self.start[run], start[piece])
        last = np.minimum(self.start[run] + self.length[run], (start + length)[piece])
        running = np.concatenate(([0], np.cumsum(np.clip(last - first, 0, None))))
        return running[edges[1:]] - running[edges[:-1]]

    def trains(self, row: Integers, position: Integers) -> Flags:
        """bool[P]: whether single tokens (sequence, position) are trained."""
        return self.within(row, position, np.ones(len(row), np.int64)) > 0
