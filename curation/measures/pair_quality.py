"""What tells the two sides of a preference pair apart, and what does not: similarity, length, format, margin, state."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from curation import texts
from curation.fingerprint import hash_file
from curation.measures import PartMeasure
from curation.measures._asked import last_turn
from curation.phrases import FOLDER, refusals
from curation.references import side_states

SIDES = ("chosen", "rejected")
ASKING = ("system", "developer", "user")
# Counted in the assistant turns of a side. A heading, list item or table row is a line.
FORMATS = {
    "list_items": r"(?m)^[ \t]{0,8}(?:[-*+•]|\d{1,3}[.)])[ \t]+\S",
    "headings": r"(?m)^[ \t]{0,3}#{1,6}[ \t]+\S",
    "bold": r"\*\*[^\s*](?:[^*\n]*[^\s*])?\*\*",
    "code_blocks": r"(?m)^[ \t]*```",  # fences; two make a block
    "latex": r"\\\(|\\\[|\$\$|\\(?:d?frac|boxed|sqrt|begin|sum|int|cdot|times|text)\b|\$[^\s$][^$\n]*[\\^_=][^$\n]*\$",
    "emoji": r"\p{Emoji_Presentation}|\p{Extended_Pictographic}\x{FE0F}",
    "table_rows": r"(?m)^[ \t]*\|.+\|[ \t]*$",
    "exclamations": r"[!！](?:[\s\"”'’)*!！]|$)",
}
REPEATED_WORDS = 5  # a side may well begin with a prompt that is shorter
OPEN_END = r"[\p{L}\p{N},;:(\-–—]$"
OPEN_WORDS = 8  # a shorter answer needs no full stop
LISTED = r"(?m)^[ \t]*(?:[-*+•|#>]|\d{1,3}[.)]|```)[^\n]*$"

INT = pa.int32()


class PairQuality(PartMeasure):
    """Compares the assistant turns (thought, text and tool calls) of `chosen` with those of `rejected`. Every value is
    null where a side that it needs is absent (KTO).

    `sides_identical`: all turns of both sides are the same text. `side_similarity` (0..1) is 2 * LCS / (words of both):
    rapidfuzz's normalised Indel similarity over words (case and punctuation folded); between the common begin and end
    at most `max_words` words of each are aligned and the others count as different, so that it is a lower bound for
    longer ones; null where neither has a word. `shared_prefix_*_share` are of the shorter side, null where it is empty.
    Differences are chosen minus rejected. `prompts_mismatch`: the sides hold user or system turns of their own that
    differ, so that they answer different prompts (which answer belongs to which prompt cannot be told otherwise).
    `*_repeats_prompt`: the side begins with the last user turn (5 words or more).
    `score_margin` is `margin`, else chosen_score - rejected_score; null is missing. `margin_contradicts_scores`: the
    margin's sign is not that of the scores. `*_ends_open`: 8 words or more, and the last line is prose that ends
    without an end of sentence. `*_state` (right, wrong, unparsed) is the side's last turn judged by `pair_verifier`
    against the reference in meta, null where there is none (see references.py).
    """

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/texts.py", "curation/measures/_asked.py", "curation/kernels/words.py",
        "curation/kernels/pair_sides.py", "curation/phrases.py", "curation/references.py",
        "curation/verifiers/__init__.py", "curation/verifiers/choice.py", "curation/verifiers/exact.py",
        "curation/verifiers/numeric.py", "curation/verifiers/reading.py",
    )  # fmt: skip
    max_words: int = 4096
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("sides_identical", pa.bool_()),
            ("side_similarity", pa.float64()),
            ("shared_prefix_chars_share", pa.float64()),
            ("shared_prefix_words_share", pa.float64()),
            *((f"{side}_{unit}", INT) for side in SIDES for unit in ("turns", "chars", "words")),
            ("chars_difference", INT),
            ("words_difference", INT),
            ("prompts_mismatch", pa.bool_()),
            *((f"{side}_repeats_prompt", pa.bool_()) for side in SIDES),
            *((f"{side}_{name}", INT) for name in FORMATS for side in SIDES),
            ("score_margin", pa.float64()),
            ("margin_contradicts_scores", pa.bool_()),
            *((f"{side}_{name}", pa.bool_()) for name in ("empty", "thinks", "refuses", "ends_open") for side in SIDES),
            ("pair_verifier", pa.string()),
            *((f"{side}_state", pa.string()) for side in SIDES),
        ]
    )

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"phrases": hash_file(FOLDER / "refusals.yaml")}

    def reads(self, stage: str) -> tuple[str, ...]:
        return ("prompt", "chosen", "rejected", "margin", "chosen_score", "rejected_score", "meta")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        answers = [texts.joined(rows, [side], texts.FIELDS, roles=("assistant",)) for side in SIDES]
        turns = {side: last_turn(rows, side, "assistant") for side in SIDES}
        paired = pl.Series(np.asarray(pc.and_(rows["chosen"].is_valid(), rows["rejected"].is_valid())))
        found = self._similarity(answers)
        found["sides_identical"] = _same(rows, texts.FIELDS, (*ASKING, "assistant", "tool"))
        found["prompts_mismatch"] = [not item for item in _same(rows, ("content",), ASKING)]
        words = found.pop("words")
        found = {name: pl.Series(name, values, nan_to_null=True).set(~paired, None) for name, values in found.items()}
        for index, side in enumerate(SIDES):
            absent = pl.Series(np.asarray(rows[side].is_null()))
            values = _of_side(answers[index], turns[side], rows, side) | {"words": pl.Series(words[:, index])}
            found |= {f"{side}_{name}": item.set(absent, None) for name, item in values.items()}
        found |= _margins(rows)
        found["pair_verifier"], *states = side_states(rows["meta"], [turns[side] for side in SIDES])
        found |= {f"{side}_state": state for side, state in zip(SIDES, states, strict=True)}
        return pl.DataFrame([found[name].alias(name) for name in self.columns.names]).to_arrow().cast(self.columns)

    def _similarity(self, answers: list[pa.LargeStringArray]) -> dict[str, Any]:
        from curation.kernels.pair_sides import compare_sides
        from curation.kernels.words import character_tables

        size = len(answers[0])
        prefix_chars, prefix_words = np.zeros(size, np.int64), np.zeros(size, np.int64)
        words, similarity = np.zeros((size, 2), np.int64), np.zeros(size)
        (a_B, a_N1), (b_B, b_N1) = map(texts.utf8, answers)
        kind, fold = character_tables()
        compare_sides(a_B, a_N1, b_B, b_N1, kind, fold, self.max_words, prefix_chars, words, prefix_words, similarity)
        chars = np.stack([pc.utf8_length(array).to_numpy() for array in answers])
        return {
            "side_similarity": np.where(words.sum(axis=1) > 0, similarity, np.nan),
            "shared_prefix_chars_share": _share(prefix_chars, chars.min(axis=0)),
            "shared_prefix_words_share": _share(prefix_words, words.min(axis=1)),
            "chars_difference": chars[0] - chars[1], "words_difference": words[:, 0] - words[:, 1], "words": words,
        }  # fmt: skip


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _same(rows: pa.Table, fields: tuple[str, ...], roles: tuple[str, ...]) -> list[bool]:
    sides = [texts.joined(rows, [side], fields, roles=roles, separator="\x1e") for side in SIDES]
    return pc.equal(*sides).to_pylist()


def _of_side(answers: pa.LargeStringArray, last: pl.Series, rows: pa.Table, side: str) -> dict[str, pl.Series]:
    """The values of one side alone."""
    frame = pl.DataFrame({"answer": pl.from_arrow(answers), "last": last.fill_null(""),
                          "turns": pl.from_arrow(rows[side]), "prompt": pl.from_arrow(rows["prompt"])})  # fmt: skip
    asked = pl.col("prompt").list.filter(pl.element().struct.field("role") == "user").list.last()
    text = asked.struct.field("content").fill_null("").str.strip_chars()
    repeats = pl.col("answer").str.strip_chars_start().str.starts_with(text)
    end = pl.col("last").str.strip_chars_end()
    line = end.str.extract(r"([^\n]*)$", 1)
    reasoning = pl.col("turns").list.eval(pl.element().struct.field("reasoning").fill_null("") != "").list.any()
    counts = {name: pl.col("answer").str.count_matches(pattern) for name, pattern in FORMATS.items()}
    counts["code_blocks"] = (counts["code_blocks"] + 1) // 2
    found = frame.select(
        turns=pl.col("turns").list.len().fill_null(0), chars=pl.col("answer").str.len_chars(),
        repeats_prompt=repeats & (text.str.count_matches(r"\S+") >= REPEATED_WORDS),
        empty=pl.col("answer").str.strip_chars() == "",
        thinks=reasoning.fill_null(False) | pl.col("answer").str.contains("<think>", literal=True),
        ends_open=line.str.contains(OPEN_END) & ~line.str.contains(LISTED)
        & (pl.col("last").str.count_matches(r"\S+") >= OPEN_WORDS),
        **counts,
    )  # fmt: skip
    refuses = pl.Series(refusals(last))
    return {name: found[name] for name in found.columns} | {"refuses": refuses}


def _margins(rows: pa.Table) -> dict[str, pl.Series]:
    names = ("margin", "chosen_score", "rejected_score")
    frame = pl.DataFrame({name: pl.from_arrow(rows[name]) for name in names})
    told = pl.col("chosen_score") - pl.col("rejected_score")
    found = frame.select(
        score_margin=pl.col("margin").fill_null(told),
        margin_contradicts_scores=pl.col("margin").sign() != told.sign(),
    )
    return {name: found[name] for name in found.columns}
