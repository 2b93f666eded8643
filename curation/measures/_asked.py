"""What a row asks and answers: the text of its user turns and of its answer, which several measures read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from curation.texts import segments

ASKED_IN = {"midtrain": "messages", "sft": "messages", "preference": "prompt", "rlvr": "prompt"}
ANSWERED_IN = {"midtrain": ("text", "messages"), "sft": ("messages",), "preference": ("chosen", "rejected"),
               "rlvr": ("reference_solution",)}  # fmt: skip
HEAD_CHARS = TAIL_CHARS = 1_000


def last_asked(rows: pa.Table, stage: str) -> pl.Series:
    """The content of the last user turn that has one (N; null where no turn asks)."""
    return _last(rows, ASKED_IN[stage], "user")


def longest_asked(rows: pa.Table, stage: str) -> pl.Series:
    """The content of the longest user turn in bytes, of equals the first (N; null where no turn asks): a chat's last
    turn is often a thank-you, its first a greeting."""
    found = segments(rows, (ASKED_IN[stage],), ("content",), roles=("user",))
    counts = np.diff(found.first_N1)
    has = counts > 0
    if not has.any():
        return pl.Series([None] * rows.num_rows, dtype=pl.String)
    bytes_S = found.end_S - found.start_S
    order_S = np.lexsort((-bytes_S, found.row_S))  # stable: of equals the first
    segment = np.where(has, order_S[np.minimum(found.first_N1[:-1], len(order_S) - 1)], 0)
    return pl.Series(found.values.take(pa.array(found.value_S[segment], mask=~has)))


def last_answer(rows: pa.Table, stage: str) -> pl.Series:
    """The content of the last assistant turn that has one (N; null where there is none): of a pair that of `chosen`,
    else of `rejected`; of an RLVR row its reference solution; of a page its text."""
    return pl.select(pl.coalesce(_last(rows, name, "assistant") for name in ANSWERED_IN[stage]))[:, 0]


def last_turn(rows: pa.Table, column: str, role: str) -> pl.Series:
    """The content of the very last turn of a role (N; null where a row has no such turn, or one without content)."""
    turns = pl.DataFrame({"turns": pl.from_arrow(rows[column])})
    last = pl.col("turns").list.filter(pl.element().struct.field("role") == role).list.last()
    return turns.select(last.struct.field("content"))["content"]


def bounded(texts: pl.Series) -> pl.Series:
    """Of texts above 2,000 characters the first and the last 1,000, on lines of their own: an instruction stands before
    its material or behind it."""
    text = pl.col("text")
    ends = text.str.slice(0, HEAD_CHARS) + "\n" + text.str.slice(-TAIL_CHARS)
    short = text.str.len_bytes() <= HEAD_CHARS + TAIL_CHARS
    short |= text.str.len_chars() <= HEAD_CHARS + TAIL_CHARS
    return texts.alias("text").to_frame().select(pl.when(short).then(text).otherwise(ends))["text"]


def _last(rows: pa.Table, column: str, role: str) -> pl.Series:
    """The last turn of `role` with content, or the text of a column without turns."""
    found = segments(rows, (column,), ("content",), roles=(role,))
    has: npt.NDArray[np.bool_] = found.first_N1[1:] > found.first_N1[:-1]
    if not has.any():
        return pl.Series([None] * rows.num_rows, dtype=pl.String)
    segment = np.where(has, found.first_N1[1:] - 1, 0)
    return pl.Series(found.values.take(pa.array(found.value_S[segment], mask=~has)))
