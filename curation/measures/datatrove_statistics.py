"""The statistics of datatrove's own `pipeline.stats` blocks, per row."""

from __future__ import annotations

import functools
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curation.errors import UserError
from curation.measures import PartMeasure
from curation.texts import SIDES, joined

STATISTICS = (
    "length", "white_space_ratio", "non_alpha_digit_ratio", "digit_ratio", "uppercase_ratio", "elipsis_ratio",
    "punctuation_ratio",
    "n_lines", "avg_line_length", "short_line_ratio_chars_10", "short_line_ratio_chars_30",
    "long_line_ratio_chars_2000", "long_line_ratio_chars_10000", "lines_ending_with_terminal_mark_ratio",
    "bullet_point_lines_ratio", "line_duplicates", "line_char_duplicates",
    "n_paragraphs", "avg_paragraph_length", "short_paragraph_ratio_100", "long_paragraph_ratio_1000",
    "paragraph_duplicates", "paragraph_char_duplicates",
    "n_sentences", "avg_sentence_length", "short_sentence_ratio_20", "long_sentence_ratio_75",
    "n_words", "avg_word_length", "avg_words_per_line", "short_word_ratio_3", "long_word_ratio_7", "type_token_ratio",
    "uppercase_word_ratio", "capitalized_word_ratio", "stop_word_ratio",
)  # fmt: skip
WORD = re.compile(r"\w+|[^\w\s]")


def installed() -> str:
    """datatrove's version; empty where it is not installed."""
    try:
        return version("datatrove")
    except PackageNotFoundError:
        return ""


class DatatroveStatistics(PartMeasure):
    """What DocStats, LineStats, ParagraphStats, SentenceStats and WordStats of datatrove say of a row's whole text (all
    turns on lines of their own, thoughts included), each under its own name behind `datatrove_`; ratios are 0..1,
    lengths in characters, `line_duplicates` and the like as datatrove defines them, 0 where there is nothing to divide
    by. Words are runs of word characters or single marks (datatrove's own tokenizer for English needs spaCy),
    sentences those of datatrove's fallback. Not called: the blocks that need a model or a download (language,
    perplexity, tokens) and contamination. One document at a time, in Python: some 3,000 rows per CPU-second."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/texts.py",)
    columns: ClassVar[pa.Schema] = pa.schema([(f"datatrove_{name}", pa.float64()) for name in STATISTICS])

    datatrove: str = Field(default_factory=installed)

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        if not self.datatrove:
            raise UserError("the measure 'datatrove_statistics' needs datatrove, which is not installed",
                            'run: pip install "kedge[scale]"')  # fmt: skip
        from datatrove.data import Document

        found = blocks()
        values: dict[str, list[float]] = {name: [] for name in STATISTICS}
        for text in joined(rows, SIDES[stage]).to_pylist():
            document = Document(text=text, id="")
            told: dict[str, Any] = {}
            for block in found:
                told |= block.extract_stats(document)
            for name in STATISTICS:
                values[name].append(float(told[name]))
        return pa.table([pa.array(values[name], pa.float64()) for name in STATISTICS], schema=self.columns)


@functools.cache
def blocks() -> tuple[Any, ...]:
    """datatrove's blocks as they are, with a word tokenizer that needs no download."""
    from datatrove.pipeline.stats import DocStats, LineStats, ParagraphStats, SentenceStats, WordStats
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer

    class Words(WhitespaceTokenizer):  # type: ignore[misc]
        def word_tokenize(self, text: str) -> list[str]:
            return WORD.findall(text)

    words, nowhere = Words(), "memory://kedge-datatrove-statistics"
    plain = (DocStats(nowhere), LineStats(nowhere), ParagraphStats(nowhere))
    return (*plain, SentenceStats(nowhere, language=words), WordStats(nowhere, language=words))
