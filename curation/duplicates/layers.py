"""Exact layers below the whole row: keys of single turns, of answers, and of prompt and answer together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation import schema
from curation.duplicates.texts import COLUMNS
from curation.kernels.canonical import chained, text_keys
from curation.texts import FIELDS, PLAIN, Segments, segments, utf8

Keys = npt.NDArray[np.uint64]
ASSISTANT, USER = schema.ROLES.index("assistant"), schema.ROLES.index("user")
_PROMPT_FACTOR, _SIDE_FACTOR = np.uint64(0x94D049BB133111EB), np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Turns:
    """The turns of N rows that hold any text: those of row n at first_N1[n] : first_N1[n + 1]. `key_T` is of a turn's
    reasoning, content and tool calls; `column_T` an index into `columns`; text without turns is one of role PLAIN."""

    columns: tuple[str, ...]
    key_T: Keys
    column_T: npt.NDArray[np.int8]
    role_T: npt.NDArray[np.int8]
    row_T: npt.NDArray[np.int64]
    first_N1: npt.NDArray[np.int64]


def turns_of(rows: pa.Table, stage: str) -> Turns:
    """The turns of a table's rows. Texts are equal here when they differ in white space and Unicode form (NFC) alone:
    case, punctuation and digits count."""
    texts = segments(rows, COLUMNS[stage], FIELDS)
    keys, row_S = _text_keys(texts), texts.row_S
    new = np.ones(len(keys), bool)
    new[1:] = (np.diff(row_S) != 0) | (np.diff(texts.column_S) != 0) | (np.diff(texts.turn_S) != 0)
    at = np.flatnonzero(new)
    key_T = np.zeros(len(at), np.uint64)
    chained(keys, texts.field_S, np.append(at, len(keys)), key_T)
    first = np.searchsorted(row_S[at], np.arange(rows.num_rows + 1))
    return Turns(texts.columns, key_T, texts.column_S[at], texts.role_S[at], row_S[at], first)


def _text_keys(texts: Segments) -> Keys:
    keys = np.zeros(len(texts.start_S), np.uint64)
    if (texts.data_B < 128).all():
        text_keys(texts.data_B, texts.start_S, texts.end_S, keys)
        return keys
    data, ends = utf8(pc.utf8_normalize(texts.strings(), form="NFC"))
    text_keys(data, ends[:-1], ends[1:], keys)
    return keys


def layer_columns(rows: pa.Table, stage: str) -> dict[str, pa.Array]:
    """The columns of the measure duplicate_layers, by name."""
    turns = turns_of(rows, stage)
    assistant = turns.role_T == ASSISTANT
    if stage == "preference":
        answer = _pair_answer(turns, assistant)
        whole, have = _pairs(turns)
    else:
        answer = _last(turns, turns.role_T == PLAIN if stage == "rlvr" else assistant)
        whole, have = _up_to(turns, answer), answer >= 0
    key = turns.key_T[answer] if len(turns.key_T) else np.zeros(len(answer), np.uint64)
    return {
        "prompt_answer_key": pa.array(whole.view(np.int64), mask=~have),
        "answer_key": pa.array(key.view(np.int64), mask=(answer < 0) | (stage == "rlvr")),
        "answer_turn_keys": _lists(turns, assistant),
        "user_turn_keys": _lists(turns, turns.role_T == USER),
    }


def _up_to(turns: Turns, answer_N: npt.NDArray[np.int64]) -> Keys:
    """A key of every row's turns up to its answer (N), which may be -1."""
    begin = turns.first_N1[:-1]
    spans = np.stack([begin, np.maximum(answer_N + 1, begin)], 1).reshape(-1)  # every second one: the turns after it
    keys = np.zeros(len(spans), np.uint64)
    chained(turns.key_T, turns.role_T, np.append(spans, len(turns.key_T)), keys)
    return np.ascontiguousarray(keys[::2])


def _pair_answer(turns: Turns, assistant_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The last answer of the chosen side, of a lone bad answer that of the rejected one (N); -1 without any."""
    found = np.full(len(turns.first_N1) - 1, -1, np.int64)
    for side in ("rejected", "chosen"):
        if side in turns.columns:
            last = _last(turns, assistant_T & (turns.column_T == turns.columns.index(side)))
            found = np.where(last >= 0, last, found)
    return found


def _last(turns: Turns, wanted_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The last of the wanted turns of every row (N), -1 where it has none."""
    found = np.full(len(turns.first_N1) - 1, -1, np.int64)
    at = np.flatnonzero(wanted_T)
    found[turns.row_T[at]] = at  # ascending: the last one stays
    return found


def _pairs(turns: Turns) -> tuple[Keys, npt.NDArray[np.bool_]]:
    """(a key of a pair's prompt with its two sides whatever their order, whether it has any text) of every row (N)."""
    num_rows = len(turns.first_N1) - 1
    new = np.ones(len(turns.key_T), bool)
    new[1:] = (np.diff(turns.row_T) != 0) | (np.diff(turns.column_T) != 0)
    at = np.flatnonzero(new)
    key = np.zeros(len(at), np.uint64)
    chained(turns.key_T, turns.role_T, np.append(at, len(turns.key_T)), key)
    prompt = turns.column_T[at] == (turns.columns.index("prompt") if "prompt" in turns.columns else PLAIN)
    factors = np.where(prompt, _PROMPT_FACTOR, _SIDE_FACTOR)
    whole = np.zeros(num_rows, np.uint64)
    np.add.at(whole, turns.row_T[at], key * factors)
    return whole, np.diff(turns.first_N1) > 0


def _lists(turns: Turns, wanted_T: npt.NDArray[np.bool_]) -> pa.Array:
    counts = np.bincount(turns.row_T[wanted_T], minlength=len(turns.first_N1) - 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(turns.key_T[wanted_T].view(np.int64)))
