"""Phrases that assistants use and should not: data in catalogs/phrases/*.yaml, one file per kind. The phrases of a kind
become one regular expression, which polars searches in Rust at half a gigabyte a second.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from curation.config import SHIPPED, Strict, read_yaml
from curation.errors import UserError
from curation.fingerprint import fingerprint

BEGINNING = 200  # characters of an answer in which a refusal stands: further on the words are a mention
THOUGHT = r"(?s)^.*</think>\s*"  # an answer begins behind its thought
FOLDER = SHIPPED / "phrases"
TEXT, ANY, MAYBE, GAP = "text", "any", "maybe", "gap"
_PIECE = re.compile(r"\{([^{}]+)\}|\[([^\[\]]*)\]|(\.\.\. ?)|((?:(?!\.\.\.)[^{}\[\]])+)")
_REST_OF_SENTENCE = r"[^.!?\n。！？]*?"
_BORDER = r"(?-u:\b)"  # of ASCII words: the Unicode one makes a search fifty times slower
Texts: TypeAlias = pl.Series | pa.Array | pa.ChunkedArray | Sequence[str | None]
Mask = npt.NDArray[np.bool_]


class Phrases(Strict):
    """A file of catalogs/phrases: phrases by language (ISO 639-1). In a phrase `{name}` stands for any of the `words`
    of that name (which may use others), `[a|b]` for a, b or nothing, `...` for some of the rest of the sentence; case
    does not count and ' is also written ’. A phrase that begins or ends with an ASCII letter does so at the border of a
    word."""

    words: dict[str, list[str]] = {}
    phrases: dict[str, list[str]]

    def pieces(self, phrase: str) -> list[tuple[str, list[str]]]:
        """What a phrase is made of: (TEXT, [text]), (ANY, words of which one stands there), (MAYBE, texts or nothing),
        (GAP, []). Raises UserError for an unknown name and for brackets that do not match."""
        found = []
        if "".join(match.group() for match in _PIECE.finditer(phrase)) != phrase:
            raise UserError(f"brackets do not match in '{phrase}'", "close them", where=str(FOLDER), key="phrases")
        for name, optional, gap, text in _PIECE.findall(phrase):
            if name and name not in self.words:
                raise UserError(f"'{phrase}' uses {{{name}}}", "add it to words", where=str(FOLDER), key="words")
            piece = (ANY, self.words[name]) if name else (TEXT, [text]) if text else (MAYBE, optional.split("|"))
            found.append((GAP, []) if gap else piece)
        return found

    def expression(self, phrase: str, first: bool = True, last: bool = True) -> str:
        """A phrase as a regular expression, with the border of a word before its first and behind its last letter where
        that is an ASCII one."""
        parts = []
        pieces = self.pieces(phrase)
        needed = [index for index, (kind, _) in enumerate(pieces) if kind in (TEXT, ANY)]
        for index, (kind, words) in enumerate(pieces):
            opens, closes = first and index == needed[0], last and index == needed[-1]
            if kind == GAP:
                parts.append(_REST_OF_SENTENCE)
            elif kind == TEXT:
                parts.append(_border(words[0][0], opens) + _literal(words[0]) + _border(words[0][-1], closes))
            elif kind == MAYBE:
                parts.append(f"(?:{'|'.join(map(_literal, words))})?")
            else:
                longest_first = sorted(words, key=len, reverse=True)  # the first that matches is taken
                parts.append(f"(?:{'|'.join(self.expression(word, opens, closes) for word in longest_first)})")
        return "".join(parts)


def _border(letter: str, wanted: bool) -> str:
    return _BORDER if wanted and re.match("[0-9A-Za-z]", letter) else ""


def _literal(text: str) -> str:
    return re.sub(r"([.^$*+?()|\\])", r"\\\1", text).replace("'", "['’]")


@functools.cache
def phrases(kind: str) -> Phrases:
    """The file of a kind. Raises UserError where it is not as Phrases says."""
    value, _ = read_yaml((FOLDER / f"{kind}.yaml").read_text(), f"{kind}.yaml")
    return Phrases.model_validate(value)


@functools.cache
def pattern(kind: str) -> str:
    """The regular expression of a kind."""
    file = phrases(kind)
    every = (phrase for many in file.phrases.values() for phrase in many)
    return f"(?i)(?:{'|'.join(map(file.expression, every))})"


def fingerprint_of_phrases() -> str:
    """Identity of all phrase files: part of the fingerprint of every measure that reads them."""
    return fingerprint({path.name: path.read_text() for path in sorted(FOLDER.glob("*.yaml"))})


def series(texts: Texts) -> pl.Series:
    """Texts as a polars series of strings."""
    return texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)


def holding(texts: Texts, kind: str) -> Mask:
    """Which of N texts hold a phrase of a kind; a null holds none."""
    return series(texts).str.contains(pattern(kind)).fill_null(False).to_numpy()


def answers(texts: Texts) -> pl.Series:
    """Texts behind the thought that a `</think>` ends; whole where there is none."""
    every = series(texts)
    thinks = every.str.contains("</think>", literal=True).fill_null(False)
    return replaced(every, thinks, every.filter(thinks).str.replace(THOUGHT, ""))


def replaced(texts: pl.Series, mask: pl.Series, values: pl.Series) -> pl.Series:
    """`texts` with `values` where `mask` holds."""
    return texts.clone().scatter(mask.arg_true(), values) if len(values) else texts


def refusals_and_mentions(texts: Texts) -> tuple[Mask, Mask]:
    """Which of N answers refuse, and which only mention a refusal: a phrase of refusals.yaml stands in their first
    BEGINNING characters (behind a thought that `</think>` ends), or further on."""
    every = answers(texts)
    mentioned = holding(every, "refusals")
    places = np.flatnonzero(mentioned)
    refused = np.zeros(len(every), np.bool_)
    refused[places] = holding(every.gather(places).str.slice(0, BEGINNING), "refusals")
    return refused, mentioned & ~refused


def refusals(texts: Texts) -> Mask:
    """Which of N answers refuse (N booleans; a null or empty text refuses nothing): see `refusals_and_mentions`.
    English first; de, fr, es, pt, it, ru, zh, ja, ko by their commonest forms."""
    return refusals_and_mentions(texts)[0]
