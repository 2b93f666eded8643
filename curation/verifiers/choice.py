"""Verifier `choice`: the letter of an option in a written answer.

An answer commits itself: boxes or statements that differ, "A or B", "B is wrong" and options listed one after the other
are wrong, whatever stands last.
"""

from __future__ import annotations

import re

from curation.verifiers import ANYWHERE, Finder, Judgement
from curation.verifiers.reading import DENIED, boxed

# Blanks are possessive (`\s*+`): several runs of them in a row would be split in every way, for hours on a long one.
_BOXED = re.compile(r"\s*+(?:\\(?:text|textbf|mathrm|mathbf)\{\s*+)?\(?([A-Z])\)?[.:]?\s*+(?:\}\s*+)?")
_LETTER = r"(?:\*\*|\$)?\(?([A-Z])(?![A-Za-z'])"
_IS = r"\s*+(?:(?i:is|:|=)\s*+)?(?::\s*+)?"
_SAID = re.compile(rf"(?i:answer){_IS}(?:(?i:option|choice)\s*+)?{_LETTER}")
_NAMED = re.compile(rf"(?i:option|choice){_IS}{_LETTER}")
_MORE = re.compile(r"[\s)*.$]*(?:,|/|&|\||(?i:or|and))[\s(*$]*(?i:option |choice )?\(?[A-Z](?![A-Za-z'])")
_CONCLUDES = re.compile(r"(?i:\b(?:so|therefore|thus|hence|correct|best|choose|chose|select|pick|is right)\b)")
_ALONE = re.compile(r"^[ \t*(]*([A-Z])[ \t*).:,]*$", re.MULTILINE)
# "A) B) C)" is a list
_BEGINS = re.compile(r"^(?:[^\S\n]|[*(])*+([A-Z])[*).:]+\s(?!\(?[B-HJ-Z](?![A-Za-z']))", re.MULTILINE)


def settle(text: str) -> tuple[str | None, bool]:
    """The letter that an answer settles on, and whether the answer stands by it. In this order: boxed letters, "the
    answer is (B)", "option B", a line with nothing but a letter, a line that begins with one."""
    boxes = [box for box in boxed(text) if box.strip()]
    if boxes:
        letters = [found[1] if (found := _BOXED.fullmatch(box)) else None for box in boxes]
        return letters[-1], len(set(letters)) == 1
    said = list(_SAID.finditer(text))
    if said:
        sure = len({found[1] for found in said}) == 1
        return said[-1][1], sure and not any(_hedged(text, found) for found in said)
    named = list(_NAMED.finditer(text))
    if named:
        last = named[-1]
        start = max(text.rfind("\n", 0, last.start()), text.rfind(". ", 0, last.start())) + 1
        sentence = {found[1] for found in named if found.start() >= start}
        concludes = len(named) == 1 or _CONCLUDES.search(text, start, last.start()) is not None
        one = len({found[1] for found in named}) == 1
        return last[1], not _hedged(text, last) and (one or (concludes and len(sentence) == 1))
    for pattern in (_ALONE, _BEGINS):
        letters = pattern.findall(text)
        if letters:
            return letters[-1], len(set(letters)) == 1
    return None, True


def _hedged(text: str, found: re.Match[str]) -> bool:
    return bool(_MORE.match(text, found.end()) or DENIED.match(text, found.end()))


def read_letter(text: str) -> str | None:
    """The option that `text` settles on; None where there is none, or several. A bare "A" inside a sentence is an
    article, not an answer."""
    letter, stands = settle(text)
    return letter if stands else None


def judge(text: str, gold: str, finder: Finder = ANYWHERE) -> Judgement:
    """Right where the letter equals `gold`. A finder's pattern that returns a bare letter is taken as is. Raises
    ValueError where `gold` is no letter A to Z."""
    expected = gold.strip().strip("().").upper()
    if not (len(expected) == 1 and "A" <= expected <= "Z"):
        raise ValueError(f"the gold answer {gold!r:.60} is no letter of an option")
    found = finder.find(text)
    if found is None:
        return Judgement("unparsed", None)
    bare = found.strip().strip("().*")
    letter, stands = (bare.upper(), True) if len(bare) == 1 and bare.isascii() and bare.isalpha() else settle(found)
    if letter is None:
        return Judgement("unparsed", None)
    return Judgement("right" if letter == expected and stands else "wrong", letter)
