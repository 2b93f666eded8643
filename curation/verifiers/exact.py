"""Verifier `exact`: the same text, up to Unicode form, whitespace and (on request) case."""

from __future__ import annotations

import unicodedata

from curation.verifiers import ANYWHERE, Finder, Judgement


def normalise(text: str) -> str:
    """NFKC, runs of whitespace folded to one space, ends stripped."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def judge(text: str, gold: str, finder: Finder = ANYWHERE, *, ignore_case: bool = False) -> Judgement:
    """Right where the found answer equals `gold`; unparsed where nothing, or only whitespace, was found. Raises
    ValueError where `gold` is empty."""
    expected = normalise(gold)
    if not expected:
        raise ValueError("the gold answer is empty")
    found = finder.find(text)
    answer = None if found is None else normalise(found)
    if not answer:
        return Judgement("unparsed", None)
    same = answer.casefold() == expected.casefold() if ignore_case else answer == expected
    return Judgement("right" if same else "wrong", answer)
