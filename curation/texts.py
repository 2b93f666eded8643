"""The texts of rows as stretches of one buffer, each with the place where it stands: what the kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation import schema

FIELDS = ("reasoning", "content", "tool_calls")  # in the order in which a turn is written
PLAIN = -1  # the turn and role of a column that holds text and no turns
SIDES = {"midtrain": ("text", "messages"), "sft": ("messages",), "preference": ("prompt", "chosen", "rejected"),
         "rlvr": ("prompt", "ground_truth", "reference_solution")}  # fmt: skip


@dataclass(frozen=True)
class Segments:
    """The texts of N rows: S stretches of `data_B` (B UTF-8 bytes), those of row n at `first_N1[n] : first_N1[n + 1]`
    in reading order (column, turn, then reasoning, content, tool calls). Empty texts are left out.

    `values` is the array whose bytes `data_B` are and `value_S` the index of each stretch in it; `start_S` and `end_S`
    are byte offsets in `data_B`; `column_S` is an index into `columns`, `turn_S` a 0-based turn of that column,
    `role_S` an index into schema.ROLES (both PLAIN for text without turns), `field_S` an index into FIELDS.
    """

    columns: tuple[str, ...]
    values: pa.LargeStringArray
    value_S: npt.NDArray[np.int64]
    data_B: npt.NDArray[np.uint8]
    start_S: npt.NDArray[np.int64]
    end_S: npt.NDArray[np.int64]
    first_N1: npt.NDArray[np.int64]
    column_S: npt.NDArray[np.int8]
    turn_S: npt.NDArray[np.int32]
    role_S: npt.NDArray[np.int8]
    field_S: npt.NDArray[np.int8]

    @property
    def row_S(self) -> npt.NDArray[np.int64]:
        """The row of each stretch."""
        return np.repeat(np.arange(len(self.first_N1) - 1), np.diff(self.first_N1))

    @property
    def learnt_S(self) -> npt.NDArray[np.bool_]:
        """Which stretches a model learns to say: assistant turns and plain text, but for the prompt of a pair or an
        RLVR row and for a rejected side."""
        other = [index for index, name in enumerate(self.columns) if name in ("prompt", "rejected")]
        says = np.isin(self.role_S, (PLAIN, schema.ROLES.index("assistant")))
        return says & ~np.isin(self.column_S, other)

    def strings(self) -> pa.LargeStringArray:
        """The S stretches as strings."""
        return self.values.take(pa.array(self.value_S))

    def text(self, segment: int) -> str:
        """One stretch as text."""
        return bytes(self.data_B[self.start_S[segment] : self.end_S[segment]]).decode()


@dataclass(frozen=True)
class _Strings:
    """One child array of a column: its strings, the row and turn of each, and its role."""

    values: pa.LargeStringArray
    row: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int32]
    role: npt.NDArray[np.int8]
    column: int
    field: int


def segments(rows: pa.Table, columns: Sequence[str], fields: Sequence[str] = ("reasoning", "content"), *,
             roles: Sequence[str] | None = None) -> Segments:  # fmt: skip
    """The texts of `columns` (those that the table has; text, lists of text or lists of messages). Of messages the
    `fields` are read, of turns of `roles` where those are given; text without turns has no role and is always read."""
    names = tuple(name for name in columns if name in rows.column_names)
    pieces: list[_Strings] = []
    for index, name in enumerate(names):
        pieces += _strings(rows[name], index, fields)
    if not pieces:
        pieces = _strings(pa.chunked_array([pa.nulls(rows.num_rows, pa.string())]), 0, fields)
    whole = pa.concat_arrays([piece.values for piece in pieces])
    buffer, ends = utf8(whole)
    start, end = ends[:-1], ends[1:]
    row, turn, role = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("row", "turn", "role"))
    column = np.concatenate([np.full(len(piece.row), piece.column, np.int8) for piece in pieces])
    field = np.concatenate([np.full(len(piece.row), piece.field, np.int8) for piece in pieces])
    keep = end > start
    if roles is not None:
        codes = [PLAIN, *(schema.ROLES.index(name) for name in roles)]
        keep &= np.isin(role, codes)
    chosen = np.flatnonzero(keep)
    if len(pieces) > 1:
        chosen = chosen[np.lexsort((field[chosen], turn[chosen], column[chosen], row[chosen]))]
    counts = np.bincount(row[chosen], minlength=rows.num_rows)
    return Segments(names, whole, chosen, buffer, start[chosen], end[chosen], np.concatenate([[0], np.cumsum(counts)]),
                    column[chosen], turn[chosen], role[chosen], field[chosen])  # fmt: skip


def utf8(strings: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(the bytes B of N strings without nulls, the N + 1 offsets in them): what the kernels read."""
    _, offsets, data = strings.buffers()
    ends = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), ends


def _strings(column: pa.ChunkedArray, index: int, fields: Sequence[str]) -> list[_Strings]:
    array = column.combine_chunks()
    num_rows = len(array)
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        plain = np.full(num_rows, PLAIN)
        return [_Strings(array.cast(pa.large_string()), np.arange(num_rows), plain.astype(np.int32),
                         plain.astype(np.int8), index, FIELDS.index("content"))]  # fmt: skip
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.repeat(np.arange(num_rows), lengths)
    turn = (np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32)
    items = array.flatten()
    if not pa.types.is_struct(items.type):
        plain_role = np.full(len(row), PLAIN, np.int8)
        return [_Strings(items.cast(pa.large_string()), row, turn, plain_role, index, FIELDS.index("content"))]
    known = pc.index_in(items.field("role"), value_set=pa.array(schema.ROLES))
    role = pc.fill_null(known, PLAIN).to_numpy(zero_copy_only=False).astype(np.int8)
    return [_Strings(items.field(name).cast(pa.large_string()), row, turn, role, index, FIELDS.index(name))
            for name in FIELDS if name in fields]  # fmt: skip


def joined(rows: pa.Table, columns: Sequence[str], fields: Sequence[str] = ("reasoning", "content"), *,
           roles: Sequence[str] | None = None, separator: str = "\n") -> pa.LargeStringArray:  # fmt: skip
    """One text per row (N, never null): what `segments` finds, joined with `separator`."""
    found = segments(rows, columns, fields, roles=roles)
    lists = pa.LargeListArray.from_arrays(pa.array(found.first_N1, pa.int64()), found.strings())
    return pc.binary_join(lists, pa.scalar(separator, pa.large_string()))
