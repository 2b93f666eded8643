r"""Verifier `numeric`: the last number of the answer, compared as an exact fraction.

`1,234.50`, `$12`, `12.`, `-3`, `3/4`, `\frac{3}{4}`, `1e3`, `50%` and `\boxed{7}` are read; 0.5 and 1/2 are equal, 50%
and 50 are too (a benchmark that asks for a share says so in its question).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from curation.verifiers import ANYWHERE, Finder, Judgement

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_SIGN = r"(?:(?<![\w.)\]}])[-+])?"
_NUMBER = re.compile(
    rf"(?P<frac>{_SIGN}\\[dt]?frac\{{\d+\}}\{{\d+\}})|(?P<over>{_SIGN}(?<![\d/])\d+\s*/\s*\d+(?![\d/]))"
    rf"|(?P<plain>{_SIGN}\$?(?:{_DIGITS})(?:[eE][-+]?\d{{1,3}}(?!\w))?)"
)


def read_number(text: str) -> Fraction | None:
    """The last number in `text`, or None. A fraction with denominator 0 is no number."""
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("\\$", "$").replace("{,}", ",")
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return None
    found = re.sub(r"[$,\s+]", "", matches[-1][0]) if not re.search(r"[eE]\+", matches[-1][0]) else matches[-1][0]
    if matches[-1]["frac"]:
        over, under = re.findall(r"\d+", found)
        if int(under) == 0:
            return None
        return Fraction(int(over), int(under)) * (-1 if found.startswith("-") else 1)
    try:
        return Fraction(found.replace("$", "").replace(",", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


def judge(text: str, gold: str, finder: Finder = ANYWHERE) -> Judgement:
    """Right where the last number of what was found equals that of `gold`. Raises ValueError where `gold` holds no
    number: that is a defect of the benchmark, not an answer."""
    expected = read_number(gold)
    if expected is None:
        raise ValueError(f"the gold answer {gold!r:.60} holds no number")
    found = finder.find(text)
    number = None if found is None else read_number(found)
    if number is None:
        return Judgement("unparsed", None)
    return Judgement("right" if number == expected else "wrong", str(number))
