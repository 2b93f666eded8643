"""A reviewed map from words to skills (`catalogs/skills/NAME.yaml`), and the skill that it gives to rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import model_validator

from curation.config import Strict

Weighted = dict[int, list[str]]
SEPARATORS = r"[^\p{L}\p{N}+#']+"
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class SkillWords(Strict):
    """What speaks for one skill: see the head of catalogs/skills/general.yaml. The keys are weights."""

    asked: Weighted = {}
    written: Weighted = {}
    answered: Weighted = {}
    verified: Weighted = {}
    calls: int = 0
    tools: int = 0


class SkillMap(Strict):
    """A file of catalogs/skills. A row whose best skill has less than `least` has none."""

    least: int = 2
    skills: dict[str, SkillWords]

    @model_validator(mode="after")
    def _expressions(self) -> SkillMap:
        for skill, words in self.skills.items():
            for expression, _ in _pairs(words.written, words.answered, words.verified):
                try:
                    pl.Series([""]).str.contains(expression)
                except pl.exceptions.ComputeError as error:
                    raise ValueError(f"skills.{skill}: '{expression}' is no regular expression; mend it (it is read "
                                     "by Rust's regex: no look-around, no references)") from error  # fmt: skip
        return self


def _pairs(*weighted: Weighted) -> Iterator[tuple[str, int]]:
    for entry in weighted:
        for weight, texts in entry.items():
            for text in texts:
                yield text, weight


def skill_by_map(skills: SkillMap, rows: pl.DataFrame) -> pl.Series:
    """The skill of N rows (null where none fits). `rows` has the columns asked, answered, verifier (text or null),
    calls and tools (boolean)."""
    names = list(skills.skills)
    score_NS = np.zeros((len(rows), len(names)), np.int64)
    _add_words(score_NS, skills, rows["asked"])
    for place, words in enumerate(skills.skills.values()):
        for column, weighted in (("asked", words.written), ("answered", words.answered), ("verifier", words.verified)):
            for expression, weight in _pairs(weighted):
                score_NS[:, place] += weight * rows[column].str.contains(expression).fill_null(False).to_numpy()
        for column, weight in (("calls", words.calls), ("tools", words.tools)):
            score_NS[:, place] += weight * rows[column].to_numpy()
    best = score_NS.argmax(1) if len(names) else np.zeros(len(rows), np.int64)
    enough: npt.NDArray[np.bool_] = score_NS[np.arange(len(rows)), best] >= skills.least
    chosen = pl.Series(names, dtype=pl.String).gather(best)
    return pl.select(pl.when(pl.Series(enough)).then(chosen))[:, 0].alias("skill")


def _add_words(score_NS: npt.NDArray[np.int64], skills: SkillMap, asked: pl.Series) -> None:
    """Add the weights of the words that a text has, each once."""
    entries = [(_pattern(text), place, weight) for place, words in enumerate(skills.skills.values())
               for text, weight in _pairs(words.asked)]  # fmt: skip
    if not entries:
        return
    known = pl.DataFrame(entries, schema=["word", "skill", "weight"], orient="row").unique(["word", "skill"])
    plain = " " + asked.fill_null("").str.to_lowercase().str.replace_all("’", "'", literal=True)
    plain = plain.str.replace_all(SEPARATORS, " ") + " "
    words = known["word"].unique(maintain_order=True).to_list()
    found = plain.str.extract_many(words, overlapping=True).alias("word").to_frame().with_row_index("row")
    hits = found.explode("word", empty_as_null=True).drop_nulls().unique().join(known, on="word")
    np.add.at(score_NS, (hits["row"].to_numpy(), hits["skill"].to_numpy()), hits["weight"].to_numpy())


def _pattern(text: str) -> str:
    """Words between spaces; open at the end where they end in `*`; anywhere in a script without spaces."""
    if UNSPACED.search(text):
        return text
    return f" {text[:-1].rstrip()}" if text.endswith("*") else f" {text} "
