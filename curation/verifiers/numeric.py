r"""Verifier `numeric`: the last number of the answer, compared as an exact fraction.

`1,234.50`, `$12`, `12.`, `-3`, `3/4`, `2 1/2`, `\frac{3}{4}`, `1e3`, `2^5`, `50%` and `\boxed{7}` are read; 0.5 and 1/2
are equal, 50% and 50 are too (a benchmark that asks for a share says so in its question). Boxed numbers come first. An
answer commits itself: boxes that differ, "the answer is 3. The answer is 5.", a list ("3, 5 or 7") and a denial ("is
not 7") are wrong, whatever stands last.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from curation.verifiers import ANYWHERE, Finder, Judgement
from curation.verifiers.reading import DENIED, NEGATED, WINDOW, boxed, plain

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_SIGN = r"(?:(?<![\w.)\]}])[-+])?"
_NUMBER = re.compile(
    rf"(?P<frac>{_SIGN}\\[dt]?frac\{{\d+\}}\{{\d+\}})"
    rf"|(?P<mixed>{_SIGN}(?<![\d/.,^])\d{{1,9}}\s\d{{1,4}}/\d{{1,4}}(?![\d/]))"
    rf"|(?P<over>{_SIGN}(?<![\d/])\d+\s*/\s*\d+(?![\d/]))"
    rf"|(?P<power>(?<![\d.,])\d{{1,9}}\s?\^\s?\{{?\d{{1,2}}\}}?)"
    rf"|(?P<unit>(?<=[A-Za-z)}}])\^\{{?-?\d\}}?)"  # the exponent of a unit is no number of the answer
    rf"|(?P<plain>{_SIGN}\$?(?:{_DIGITS})(?:[eE][-+]?\d{{1,3}}(?!\w))?)"
)
_BETWEEN = re.compile(r"[\s$%*().]*(?:(?:,|;|\||&|/|\band\b|\bor\b)[\s$*()]*)+|\s+", re.IGNORECASE)
_ALONE = re.compile(r"[\s\d.,$%*•\-+/()]+")
_STYLE = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_BARE = re.compile(r"[\s$+-]*[\d.,]+[\s$%]*")
_SAID = re.compile(r"(?:answer(?:\s+(?:is|are|equals?|would be|will be|=)|\s*[:=])|####)[\s:=$*(\\]*", re.IGNORECASE)
_NEAR = 60  # what stands before a number is looked at for so many characters


class _Found(NamedTuple):
    value: Fraction | None
    start: int
    end: int


def _numbers(text: str) -> list[_Found]:
    """The numbers of a text that `plain` has folded."""
    return [_Found(_value(found), found.start(), found.end()) for found in _NUMBER.finditer(text)
            if found.lastgroup != "unit"]  # fmt: skip


def _value(found: re.Match[str]) -> Fraction | None:
    """The value of a match; None for a denominator of 0 and for more digits than are read."""
    text = found[0].replace("$", "").replace(",", "")
    try:
        if found.lastgroup == "plain":
            return Fraction(text)
        parts = [int(part) for part in re.findall(r"\d+", text)]
        sign = -1 if text.startswith("-") else 1
        if found.lastgroup == "power":
            return Fraction(parts[0] ** parts[1])
        if found.lastgroup == "mixed":
            return sign * (parts[0] + Fraction(parts[1], parts[2]))
        return sign * Fraction(parts[0], parts[1])
    except (ValueError, ZeroDivisionError):
        return None


def read_number(text: str) -> Fraction | None:
    """The last number in `text`, or None. A fraction with denominator 0 is no number."""
    numbers = _numbers(plain(text))
    return numbers[-1].value if numbers else None


def settle(text: str) -> tuple[Fraction | None, bool]:
    """The number that an answer ends with, and whether the answer stands by it: False where it names several, or denies
    the one that it names."""
    boxes = [box for box in boxed(text) if box.strip()]
    if boxes:
        settled = [_in_box(box) for box in dict.fromkeys(boxes)]
        values = {value for value, _ in settled}
        return settled[-1][0], len(values) == 1 and all(stands for _, stands in settled)
    return _last(text)


def _in_box(box: str) -> tuple[Fraction | None, bool]:
    """The last number of a box; two numbers with a sign of equality between them are two answers."""
    value, stands = _last(_STYLE.sub(r" \1 ", box))
    sides = [_last(side)[0] for side in box.split("=") if _BARE.fullmatch(side)]
    return value, stands and len(set(sides)) <= 1


def _last(text: str) -> tuple[Fraction | None, bool]:
    text = plain(text)
    numbers = _numbers(text)
    if not numbers:
        return None, True
    last = numbers[-1]
    before = text[max(0, last.start - _NEAR) : last.start]
    if NEGATED.search(before) or DENIED.match(text, last.end):
        return last.value, False
    return last.value, not (_listed(text, numbers) or _contradicted(text, numbers))


def _listed(text: str, numbers: list[_Found]) -> bool:
    """Whether the last number ends a list of different ones: "3, 5 or 7", "3 5 7", or a line each."""
    last = numbers[-1]
    for index in range(len(numbers) - 2, -1, -1):
        between = text[numbers[index].end : numbers[index + 1].start]
        if not _BETWEEN.fullmatch(between):
            break
        if "\n" in between:
            line = text.rfind("\n", 0, numbers[index].start) + 1
            rest = text.find("\n", last.end)
            if not (_ALONE.fullmatch(text, line, numbers[index].end)
                    and _ALONE.fullmatch(text, last.start, rest if rest >= 0 else len(text))):  # fmt: skip
                break
        if numbers[index].value != last.value:
            return True
    return False


def _contradicted(text: str, numbers: list[_Found]) -> bool:
    """Whether the last statement of an answer has another one right before it."""
    said = list(_SAID.finditer(text))
    if len(said) < 2 or said[-1].start() - said[-2].end() > WINDOW:
        return False
    starts = {number.start: number.value for number in numbers}
    values = [starts[mark.end()] for mark in said if mark.end() in starts and said[-1].start() - mark.end() <= WINDOW]
    return len(set(values)) > 1


def judge(text: str, gold: str, finder: Finder = ANYWHERE) -> Judgement:
    """Right where the last number of what was found equals that of `gold`. Raises ValueError where `gold` holds no
    number: that is a defect of the benchmark, not an answer."""
    expected = read_number(gold)
    if expected is None:
        raise ValueError(f"the gold answer {gold!r:.60} holds no number")
    found = finder.find(text)
    number, stands = (None, True) if found is None else settle(found)
    if number is None:
        return Judgement("unparsed", None)
    return Judgement("right" if number == expected and stands else "wrong", str(number))
