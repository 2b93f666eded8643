"""Language consistency: the share of a completion that is written in the language it should be written in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from trainers.rewards import Reward, Sample, Score

PIECE_CHARS = 400  # what is told at a time: paragraphs are joined up to it, and longer ones cut


class Language(Reward):
    """The share (0..1) of a completion's characters, thought included, that stand in pieces of the wanted language: the
    language consistency reward of DeepSeek-R1 (arXiv 2501.12948, 2.3.2) by the measure `language` instead of words. The
    language is `language` (ISO 639-1), else the prompt's own. Pieces without a language (formulas, code, short ones)
    count for neither. No value where nothing can be told.

    Outcomes: consistent (all of it), mixed, other (none of it), unknown."""

    version: ClassVar[int] = 1
    language: str | None = None

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        from curation.verifiers.languages import languages

        cut = [_pieces(sample.completion) for sample in samples]
        texts = [sample.prompt_text for sample in samples] + [piece for pieces in cut for piece in pieces]
        told = languages(texts)
        first = len(samples)
        scores = []
        for index, pieces in enumerate(cut):
            found, first = told[first : first + len(pieces)], first + len(pieces)
            scores.append(_share(self.language or told[index], pieces, found))
        return scores


def _pieces(text: str) -> list[str]:
    text = re.sub(r"</?think>|</?answer>", "\n\n", text)
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for start in range(0, len(paragraph), PIECE_CHARS):
            part = paragraph[start : start + PIECE_CHARS].strip()
            if part and pieces and len(pieces[-1]) + len(part) < PIECE_CHARS // 4:
                pieces[-1] += "\n" + part
            elif part:
                pieces.append(part)
    return pieces


def _share(wanted: str | None, pieces: Sequence[str], told: Sequence[str | None]) -> Score:
    chars = sum(len(piece) for piece, found in zip(pieces, told, strict=True) if found is not None)
    if wanted is None or not chars:
        return Score(None, "unknown")
    share = sum(len(piece) for piece, found in zip(pieces, told, strict=True) if found == wanted) / chars
    return Score(share, "consistent" if share == 1 else "other" if share == 0 else "mixed")
