"""What of a row is compared with other rows: its texts before any template renders them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation import schema
from curation.texts import FIELDS, Segments, segments

Scope = Literal["row", "answer"]
COLUMNS = {"midtrain": ("text", "messages"), "sft": ("messages",), "preference": ("prompt", "chosen", "rejected"),
           "rlvr": ("prompt", "ground_truth")}  # fmt: skip
ROLES = ("user", "assistant", "tool")  # a system prompt that a thousand rows share would make them all alike
ASSISTANT = schema.ROLES.index("assistant")
_REJECTED = np.uint64(0xA5A5_1234_9E37_79B9)


@dataclass(frozen=True)
class Compared:
    """The texts of N rows for the kernels: row n is the stretches first_N1[n] : first_N1[n + 1] read as one text. The
    words of a rejected side are salted: a pair with its sides swapped contradicts the first, it does not repeat it."""

    texts: Segments
    salt_S: npt.NDArray[np.uint64]

    @property
    def stretches(self) -> tuple[Any, Any, Any, Any, Any, Any, Any]:
        """(data_B, start_S, end_S, salt_S, first_N1, class and fold of code points): how every kernel begins."""
        from curation.kernels.words import character_tables

        kept = self.texts
        return kept.data_B, kept.start_S, kept.end_S, self.salt_S, kept.first_N1, *character_tables()


def compared(rows: pa.Table, stage: str, scope: Scope) -> Compared:
    """What near duplicates of a stage are compared by. Scope "row": every turn but those of the system; of a midtrain
    row its text, of an rlvr row prompt and ground truth. Scope "answer": the last assistant turn, of a pair that of the
    chosen side, else of the rejected one."""
    texts = segments(rows, COLUMNS[stage], FIELDS, roles=ROLES)
    if scope == "answer":
        texts = _last_answers(texts)
    salt = np.zeros(len(texts.start_S), np.uint64)
    if scope == "row" and "rejected" in texts.columns:
        salt[texts.column_S == texts.columns.index("rejected")] = _REJECTED
    return Compared(texts, salt)


def _last_answers(texts: Segments) -> Segments:
    num_rows = len(texts.first_N1) - 1
    row_S = texts.row_S
    last = np.full(num_rows, -1)  # a stretch of the answer of each row
    for column in ("rejected", "chosen") if "chosen" in texts.columns else texts.columns:
        at = np.flatnonzero((texts.role_S == ASSISTANT) & (texts.column_S == texts.columns.index(column)))
        last[row_S[at]] = at  # ascending: the last one stays
    turn = np.stack([texts.column_S, texts.turn_S])
    keep = (last[row_S] >= 0) & (turn == turn[:, last[row_S]]).all(0) & (texts.role_S == ASSISTANT)
    counts = np.bincount(row_S[keep], minlength=num_rows)
    chosen = {name: getattr(texts, name)[keep] for name in ("value_S", "start_S", "end_S", "column_S", "turn_S",
                                                            "role_S", "field_S")}  # fmt: skip
    return replace(texts, first_N1=np.concatenate([[0], np.cumsum(counts)]), **chosen)
