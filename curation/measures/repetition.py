"""Loops and repetition of what a row teaches: its assistant texts, or its text."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curation.measures import PartMeasure
from curation.measures._judged import with_answer
from curation.texts import segments

Floats = npt.NDArray[np.float64]
READS = {"midtrain": ("text", "messages"), "sft": ("messages",), "preference": ("chosen", "rejected")}


class Repetition(PartMeasure):
    """Of the texts of a row (every answer and every thought kept apart; of pairs the chosen side, else the rejected
    one) the value of the worst: the one whose loop covers most, whose novelty or distinct share is lowest. Words are
    those of kernels/words.py: a Chinese character is one, case and punctuation do not count.

    loop_*: the longest stretch of at least `rounds` equal rounds: its period in words, its number of rounds (with the
    broken last one), its length in words, its share of the text's words, and the words that follow it; null, 0 where
    there is none. template_loop_*: the same with every run of numbers as one symbol (a counter that changes in each
    round; an arithmetic table too). tail_*: the longest end of a text that is periodic by bytes, words or not.
    novelty_min, novelty_last: share of word n-grams (`gram_words`) that stood nowhere before, in the lowest and in the
    last window (an eighth of the text, within `window_words`); null without an n-gram. stale_share: share of the words
    from where on every window stays below `stale_below`: novelty never recovers. recycled_share: share of the words
    inside n-grams that stood before. duplicate_*: share of the lines (paragraphs) that stood before, and of their
    bytes. distinct_n: different word n-grams per n-gram.

    Sources: novelty and exact period of vLLM PR #52677 and its neighbours; duplicate lines and paragraphs of Rae et
    al. 2021 (arXiv 2112.11446, table A1); distinct-n of Li et al. 2016 (arXiv 1510.03055)."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft", "preference")
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/kernels/repetition.py", "curation/kernels/words.py", "curation/measures/_judged.py",
        "curation/texts.py",
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("loop_period", pa.int32()),
            ("loop_rounds", pa.float64()),
            ("loop_words", pa.int32()),
            ("loop_share", pa.float64()),
            ("words_after_loop", pa.int32()),
            ("template_loop_period", pa.int32()),
            ("template_loop_share", pa.float64()),
            ("tail_period_bytes", pa.int32()),
            ("tail_rounds", pa.float64()),
            ("tail_share", pa.float64()),
            ("novelty_min", pa.float64()),
            ("novelty_last", pa.float64()),
            ("stale_share", pa.float64()),
            ("recycled_share", pa.float64()),
            ("duplicate_line_share", pa.float64()),
            ("duplicate_line_byte_share", pa.float64()),
            ("duplicate_paragraph_share", pa.float64()),
            ("duplicate_paragraph_byte_share", pa.float64()),
            ("distinct_1", pa.float64()),
            ("distinct_2", pa.float64()),
            ("distinct_3", pa.float64()),
        ]
    )

    gram_words: int = Field(8, ge=2, le=64)
    rounds: int = Field(3, ge=2)
    window_words: tuple[int, int] = (32, 512)
    stale_below: float = Field(0.02, ge=0, le=1)

    def reads(self, stage: str) -> tuple[str, ...]:
        return READS[stage]

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.kernels.repetition import repetition

        judged = with_answer(rows, stage)
        texts = segments(judged, judged.column_names, roles=None if stage == "midtrain" else ("assistant",))
        found = repetition(texts.data_B, texts.start_S, texts.end_S, size=self.gram_words, rounds=self.rounds,
                           windows=self.window_words, stale_below=self.stale_below)  # fmt: skip
        columns = _row_values(found, texts.first_N1)
        return pa.Table.from_arrays([pa.array(columns[field.name], mask=np.isnan(columns[field.name]), from_pandas=True)
                                     .cast(field.type) for field in self.columns], schema=self.columns)  # fmt: skip


def _row_values(found: dict[str, Floats], first_N1: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """The columns of the measure (N; NaN is null) from one value per text (S)."""
    words, grams = found["words"], found["grams"]
    loop = _share(found["loop_words"], words)
    tail = _share(found["tail_bytes"], found["text_bytes"])
    looping, templated, ending = (_best(value, first_N1) for value in (loop, found["template_words"], tail))

    def at(place: npt.NDArray[np.int64], value: Floats, have: Floats) -> Floats:
        chosen = np.where(place >= 0, place, 0)
        return np.where((place >= 0) & (have[chosen] > 0), value[chosen], np.nan) if len(value) else \
            np.full(len(place), np.nan)  # fmt: skip

    few = np.where(grams > 0, 0.0, np.nan)
    worst = {"loop_share": loop, "template_loop_share": found["template_words"], "tail_share": tail}
    for name, part, whole in (
        ("stale", "stale_words", "words"), ("recycled", "recycled_words", "words"),
        ("duplicate_line", "duplicate_lines", "lines"), ("duplicate_line_byte", "duplicate_line_bytes", "line_bytes"),
        ("duplicate_paragraph", "duplicate_paragraphs", "paragraphs"),
        ("duplicate_paragraph_byte", "duplicate_paragraph_bytes", "line_bytes"),
    ):  # fmt: skip
        worst[f"{name}_share"] = _share(found[part], found[whole])
    lowest = {name: found[name] + few for name in ("novelty_min", "novelty_last")}
    lowest |= {f"distinct_{size}": np.where(words >= size, found[f"distinct_{size}"], np.nan) for size in (1, 2, 3)}
    return {
        "loop_period": at(looping, found["loop_period"], loop),
        "loop_rounds": at(looping, _share(found["loop_words"], found["loop_period"]), loop),
        "loop_words": at(looping, found["loop_words"], loop),
        "words_after_loop": at(looping, found["loop_after"], loop),
        "template_loop_period": at(templated, found["template_period"], found["template_words"]),
        "tail_period_bytes": at(ending, found["tail_period"], tail),
        "tail_rounds": at(ending, _share(found["tail_bytes"], found["tail_period"]), tail),
        **{name: _reduced(np.fmax, value, first_N1) for name, value in worst.items()},
        **{name: _reduced(np.fmin, value, first_N1) for name, value in lowest.items()},
    }


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _reduced(function: np.ufunc, value_S: Floats, first_N1: npt.NDArray[np.int64]) -> Floats:
    """`function` over the texts of each row (N); NaN for rows without a text."""
    out = np.full(len(first_N1) - 1, np.nan)
    have = first_N1[1:] > first_N1[:-1]
    if have.any():
        out[have] = function.reduceat(value_S, first_N1[:-1][have])
    return out


def _best(value_S: Floats, first_N1: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first text of each row (N) with the row's highest value; -1 for rows without a text."""
    row_S = np.repeat(np.arange(len(first_N1) - 1), np.diff(first_N1))
    highest = _reduced(np.fmax, value_S, first_N1)
    out = np.full(len(first_N1) - 1, -1)
    hits = np.flatnonzero(value_S == highest[row_S])[::-1]
    out[row_S[hits]] = hits
    return out
