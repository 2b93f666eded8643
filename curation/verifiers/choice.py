"""Verifier `choice`: the letter of an option in a written answer."""

from __future__ import annotations

import re

from curation.verifiers import ANYWHERE, Finder, Judgement

_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\(?([A-Z])\)?\}?\s*\}")
_STATED = re.compile(r"(?i:answer|option|choice)\s*(?i:is|:|=)?\s*:?\s*(?:\*\*|\$)?\(?([A-Z])(?![A-Za-z'])")
_ALONE = re.compile(r"^[\s*(]*([A-Z])[\s*).:,]*(?:$|(?<=[).:,])\s|\n)", re.MULTILINE)


def read_letter(text: str) -> str | None:
    """The option that `text` settles on: the last boxed letter, else the last stated one ("the answer is (B)"), else
    the last letter that stands alone at the beginning of a line; None where there is none. A bare "A" inside a
    sentence is an article, not an answer."""
    for pattern in (_BOXED, _STATED, _ALONE):
        found = pattern.findall(text)
        if found:
            return str(found[-1])
    return None


def judge(text: str, gold: str, finder: Finder = ANYWHERE) -> Judgement:
    """Right where the letter equals `gold` (a letter). A finder's pattern that returns a bare letter is taken as is."""
    found = finder.find(text)
    if found is None:
        return Judgement("unparsed", None)
    bare = found.strip().strip("().*")
    letter = bare.upper() if len(bare) == 1 and bare.isalpha() else read_letter(found)
    if letter is None:
        return Judgement("unparsed", None)
    return Judgement("right" if letter == gold.strip().upper() else "wrong", letter)
