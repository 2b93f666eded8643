"""References that sources keep in meta, and the two sides of a pair judged against them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

# Names that mean nothing else: `answer` or `target` of a preference set may be a judge's choice or a group of people.
KEYS = ("ground_truth", "gt", "gold", "gold_answer", "reference_answer", "correct_answer", "expected_answer",
        "final_answer")  # fmt: skip
_NUMBER = re.compile(r"\s*[-+]?[$€£]?\s*(?:[\d,]+(?:\.\d*)?|\.\d+)(?:\s*/\s*\d+|[eE][-+]?\d{1,3}|\s*%)?\s*(?:\.\s*)?")
_LETTER = re.compile(r"\s*\(?([A-Ja-j])[).]?\s*")
EXACT_CHARS = 200  # a longer reference is a model solution, which no answer repeats


def rows_with_key(meta: pl.Series, keys: Sequence[str]) -> list[int]:
    """Rows whose meta (N JSON texts or nulls) may hold one of some keys: a search of text, so that few are parsed."""
    return meta.str.contains('"(?:' + "|".join(map(re.escape, keys)) + ')":').fill_null(False).arg_true().to_list()


def stated(meta: Any, keys: Sequence[str] = KEYS, most_chars: int | None = None) -> tuple[str, str] | None:
    """(key, value as text): the first of `keys` that a parsed meta holds, on top or in `reward_model`, as a number or
    as text that is not empty (of at most `most_chars`); None where there is none."""
    if not isinstance(meta, dict):
        return None
    inner = meta.get("reward_model")
    for place in [meta, inner] if isinstance(inner, dict) else [meta]:
        for key in keys:
            value = place.get(key)
            text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
            if text and (most_chars is None or len(text) <= most_chars):
                return key, text
    return None


def reference_of(meta: str | None) -> tuple[str, str] | None:
    """(verifier, gold) that a row's meta tells: `numeric` for a number (also the one after GSM8K's `####`), `choice`
    for a letter A to J, `exact` for other text of up to 200 characters without LaTeX; else None, for the verifiers
    `numeric`, `choice` and `exact` cannot judge it."""
    found = stated(orjson.loads(meta)) if meta else None
    if found is None:
        return None
    text = found[1].rpartition("####")[2].strip()
    if _NUMBER.fullmatch(text):
        return "numeric", text
    if letter := _LETTER.fullmatch(text):
        return "choice", letter[1].upper()
    if 0 < len(text) <= EXACT_CHARS and "\\" not in text:
        return "exact", text
    return None


def side_states(meta: pa.ChunkedArray, sides: Sequence[pl.Series]) -> list[pl.Series]:
    """The verifier of N rows, then per side N states (right, wrong, unparsed) of its text after a closed thought; null
    where meta holds no reference or the side no text."""
    from curation.verifiers import choice, exact, numeric

    judges = {"numeric": numeric.judge, "choice": choice.judge, "exact": exact.judge}
    texts = pl.Series("meta", pl.from_arrow(meta), dtype=pl.String)
    verifier: list[str | None] = [None] * len(texts)
    states: list[list[str | None]] = [[None] * len(texts) for _ in sides]
    for row in rows_with_key(texts, KEYS):
        reference = reference_of(texts[row])
        if reference is None:
            continue
        verifier[row], gold = reference
        for side, state in zip(sides, states, strict=True):
            if side[row] is not None:
                try:
                    state[row] = judges[reference[0]](side[row].rpartition("</think>")[2], gold).state
                except ValueError:  # a reference that looks like a number and is none (1/0)
                    verifier[row] = None
    return [pl.Series(values, dtype=pl.String) for values in (verifier, *states)]
