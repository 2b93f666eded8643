"""How often a reasoning trace verifies, goes back, sets sub-goals and tries another way."""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from curation.config import SHIPPED, read_yaml
from curation.measures._thoughts import Spans, ThoughtMeasure

LEXICON = SHIPPED / "phrases" / "reasoning.yaml"
BEHAVIOURS = ("verifications", "backtracks", "subgoals", "alternatives")


class ReasoningBehaviour(ThoughtMeasure):
    """Occurrences of the phrases of `catalogs/phrases/reasoning.yaml` in the thoughts of a row (0 or more; null where
    it has no thought), and per 1,000 characters of thought all of them together. `whole_answers` counts in all
    assistant text instead, for traces that no marks enclose. `phrases` takes the place of those of the file: behaviour
    -> phrases. Phrases are evidence of a behaviour, not the behaviour: a source's counts mean more than a row's.

    Behaviours: Gandhi et al. 2025 (arXiv 2503.01307)."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        [*((name, pa.int32()) for name in BEHAVIOURS), ("behaviours_per_1000_chars", pa.float64())]
    )

    whole_answers: bool = False
    phrases: dict[str, list[str]] | None = None

    def identity(self) -> dict[str, Any]:
        """As of every plug-in, with the phrases that are counted."""
        found = super().identity()
        return found | {"config": found["config"] | {"phrases": self._phrases()}}

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.kernels.traces import ANSWER, UNFINISHED

        chosen, texts = _texts(self.spans(rows, stage), ANSWER if self.whole_answers else UNFINISHED)
        series = pl.Series(texts) if len(chosen) else pl.Series([], dtype=pl.String)
        counts = {name: series.str.count_matches(_pattern(tuple(phrases))).to_numpy()
                  for name, phrases in self._phrases().items()}  # fmt: skip
        some = np.zeros(rows.num_rows, np.bool_)
        some[chosen] = True
        columns: dict[str, pa.Array] = {}
        for name in BEHAVIOURS:
            values = np.zeros(rows.num_rows, np.int32)
            values[chosen] = counts.get(name, 0)
            columns[name] = pa.array(values, mask=~some)
        rate = np.zeros(rows.num_rows)
        chars = np.maximum(series.str.len_chars().to_numpy(), 1)
        rate[chosen] = 1000 * sum(counts.values(), np.zeros(len(chosen))) / chars
        columns["behaviours_per_1000_chars"] = pa.array(rate, mask=~some)
        return pa.table(columns).cast(self.columns)

    def _phrases(self) -> dict[str, list[str]]:
        return _lexicon() if self.phrases is None else self.phrases


def _texts(spans: Spans, last_kind: int) -> tuple[np.ndarray, pa.LargeStringArray]:
    """(rows that have text in spans up to a kind, that text of each), separated by line breaks."""
    from curation.kernels.traces import gather

    some = np.flatnonzero((spans.kind_P <= last_kind) & (spans.end_P > spans.start_P))
    row = spans.row_S[spans.segment_P[some]]
    start, end = spans.start_P[some], spans.end_P[some]
    ends = np.cumsum(end - start + 1)
    data = gather(spans.texts.data_B, start, end, int(ends[-1]) if len(ends) else 0)
    rows, first = np.unique(row, return_index=True)
    offsets = np.r_[0, ends][np.r_[first, len(ends)]] if len(ends) else np.zeros(1, np.int64)
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data)]
    return rows, pa.LargeStringArray.from_buffers(len(rows), buffers[1], buffers[2])


@functools.cache
def _lexicon() -> dict[str, list[str]]:
    found, _ = read_yaml(LEXICON.read_text(), LEXICON.name)
    return {name: [phrase for language in languages.values() for phrase in language]
            for name, languages in found.items()}  # fmt: skip


@functools.cache
def _pattern(phrases: tuple[str, ...]) -> str:
    """One regular expression of all phrases, the longest first; ASCII word borders, which are fast."""
    parts = []
    for phrase in sorted(phrases, key=lambda text: (-len(text), text)):
        text = r"\s+".join(re.escape(word).replace(r"\-", "-") for word in phrase.split()).replace("'", "['’]")
        opening = r"(?-u:\b)" if re.match(r"[A-Za-z0-9]", phrase) else ""
        closing = r"(?-u:\b)" if re.search(r"[A-Za-z0-9]$", phrase) else ""
        parts.append(opening + text + closing)
    return "(?i)" + "|".join(parts) if parts else "[^\\s\\S]"
