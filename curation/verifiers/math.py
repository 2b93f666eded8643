r"""Verifier `math`: a mathematical answer against a reference, compared by math-verify.

This half is pure text: what the answer is, and whether text alone decides. The comparison of two expressions can run
for ever, so it happens in worker processes that are killed at their limit (pool.py).

The answer is what is boxed; several boxes are right only where each is right by itself, or where together they are the
reference ("\boxed{1} and \boxed{2}" for 1,2). Without a box it is what follows the last "####" or "answer is", else the
last formula or number of the last line that has one. A negated, listed or hedged value is wrong.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from curation.verifiers import Judgement
from curation.verifiers.numeric import settle as settle_number
from curation.verifiers.reading import DENIED, NEGATED, WINDOW, boxed, last_lines, plain

MAX_ANSWERS = 8  # that disagree; more are wrong without a look
MAX_WORDS = 4  # of an answer that is no expression and in no box
MAX_CHARS = 2_000  # of an answer or a reference; longer ones are none
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_RATIONAL = re.compile(
    rf"(-)?\s*(?:\\[dt]?frac\s*\{{\s*({_WHOLE})\s*\}}\s*\{{\s*({_WHOLE})\s*\}}|({_WHOLE})(?:\s*/\s*({_WHOLE}))?)"
)
_SPACING = re.compile(r"\\[,!;: ]|\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\s+|[$]")
_STYLE = re.compile(r"\\(?:text|mbox|textbf|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z' -]+")
_NEGATES = re.compile(r"\b(?:not|wrong|incorrect|false|never|except|unless|neither|nor|unlike)\b|n't", re.IGNORECASE)
_RELATES = re.compile(
    r"\\neq?(?![A-Za-z])|\\not(?![A-Za-z])|≠|!=|\\(?:cup|cap|setminus|mid|vee|wedge|lor|land)(?![A-Za-z])|\?"
)
_BEGINS = re.compile(r"\s*(?:[<>]|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant)(?![A-Za-z]))")
_FORMULA = re.compile(r"\$\$((?:[^$\\]|\\.)+)\$\$|\$((?:[^$\\\n]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SAID = re.compile(r"(?:answer(?:\s+(?:is|are|equals?|would be|will be|=)|\s*[:=])|####)[ \t:=*]*", re.IGNORECASE)
_ORDINAL = re.compile(r"\^\s*\{?\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?")
_ASSENTS = re.compile(
    r"(?:in(?:deed|correct)|correct|right|wrong|reasonable|fine|valid|consistent|clear|unique|as|above|below|the|an|that"
    r"|this|it|not|now|in|of|still|definitely|probably)\b",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3}|\{,\}\d{3}| \d{3})+(?!\d)|\d+\s+\d+/\d+")
_THOUSANDS = re.compile(
    r"(?<![\d.])[1-9]\d{0,2}(?:(?: |\\,)\d{3})+(?![\d.])"
)  # apart by spaces they would be multiplied
_ORDERS = re.compile(r"[<>≤≥]|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant|in|cup)(?![A-Za-z])")
_NAME = re.compile(r"^\s*[A-Za-z]\s*(?:=|\\in(?![A-Za-z]))")
_PART = re.compile(r"[(){}\[\],;]|\b(?:or|and|OR|AND)\b")
_FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "exp",
    "sqrt", "pi", "mod", "inf", "infinity", "min", "max", "gcd", "lcm", "det", "or", "and",
))  # fmt: skip
_WORDS = re.compile(r"(?<![\\A-Za-z\d^_{}(])[A-Za-z]{2,}(?![A-Za-z])")
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)])\s+")
_MEMBER = re.compile(r"^\s*[A-Za-z]\s*\\in(?![A-Za-z])\s*(?=\S)")
_UNIT = re.compile(r"\\(?:text|mbox|mathrm)\s*\{([^{}]*)\}(?:\s*\^\s*\{?\d\}?)?")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_CONSTANT = frozenset(("frac", "dfrac", "tfrac", "sqrt", "cdot", "times", "div", "pi", "circ", "left", "right"))
_CALL = re.compile(r"\s*[A-Za-z]+(?:_\{?\w+\}?)?\s*(?:\([^()]*\)|\{[^{}]*\})?\s*")
_JOINS = re.compile(r"[\s,]*(?:,|;|\band\b|\bor\b)[\s,]*", re.IGNORECASE)
_END = re.compile(r"\.(?=\s|$)|\n")


class Comparison(NamedTuple):
    """What math-verify decides: whether each of `answers` equals `gold`, or `together` (all of them as one list) does.
    `shown` is the answer as text."""

    gold: str
    answers: tuple[str, ...]
    together: str | None
    shown: str


def clean(gold: str) -> str:
    """A reference without the marks around it: `####`, `$...$`, `\\(...\\)`, `\\boxed{...}`, a final full stop. Raises
    ValueError where nothing is left, or more than 2,000 characters."""
    text = gold.rpartition("####")[2].strip()
    boxes = boxed(text)
    if len(boxes) == 1 and text.startswith("\\boxed"):
        text = boxes[0].strip()
    for begin, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inner = text[len(begin) : -len(end)]
        if len(text) > len(begin + end) and text.startswith(begin) and text.endswith(end) and begin not in inner:
            text = inner.strip()
    text = text.removesuffix(".").strip()
    if not text or len(text) > MAX_CHARS:
        raise ValueError(f"the gold answer {gold!r:.60} holds no expression")
    return text


def answers(text: str) -> tuple[tuple[str, ...], bool]:
    """What a text answers, each spelling once and in order, and whether it stands by that (False: denied or listed)."""
    boxes = [box.strip() for box in boxed(text) if box.strip()]
    if boxes:
        found: dict[str, str] = {}
        for box in boxes:
            found.setdefault(squash(box), _ORDINAL.sub("", box[: MAX_CHARS + 1]))
        return tuple(found.values()), True
    said = list(_SAID.finditer(text))
    if said:
        near = [mark for mark in said if said[-1].start() - mark.end() <= WINDOW]
        values = [_stretch(text, mark.end()) for mark in near]
        settled = [item for item in values if item[0]]
        if settled:
            distinct = {squash(item[0]) for item in settled}
            return (settled[-1][0],), len(distinct) == 1 and all(stands for _, stands in settled)
    lines = last_lines(text[-5 * MAX_CHARS :])
    whole = lines[0].strip(" .*") if len(lines) == 1 else ""
    if _WORD.fullmatch(whole) and whole.count(" ") < MAX_WORDS and "answer" not in whole.lower():
        return (whole,), True
    for place in range(len(lines) - 1, -1, -1):
        answer, stands = _in_line(lines[place])
        if answer:
            return (answer,), stands and not _is_list(lines[max(0, place - 1) : place + 1])
    return (), True


def _is_list(lines: list[str]) -> bool:
    """Whether the last two lines are two different values and nothing else."""
    bare = [_BULLET.sub("", line).strip(" *:_") for line in lines]
    values = [squash(line) for line in bare if _is_expression(line)]
    if len(values) != 2 or values[0] == values[1]:
        return False
    (left, sign, right), (name, other, value) = (item.partition("=") for item in values)
    return sign == other and (not sign or right == value or left == name)  # else an equation is being solved


def _stretch(text: str, start: int) -> tuple[str, bool]:
    """The value that follows a statement, up to the end of its sentence."""
    begins = text.find("$$", start, start + 4) >= 0 or text.find("\\[", start, start + 4) >= 0
    stop = None if begins else _END.search(text, start, start + MAX_CHARS)
    sentence = text[start : stop.start() if stop else start + MAX_CHARS]
    if re.match(r"\s*(?:not|never|one of|any of|either|among|between)\b", sentence, re.IGNORECASE):
        return sentence.strip(), False
    answer, stands = _in_line(sentence, first=True)
    if answer:
        return answer, stands
    words = sentence.strip(" *:_\"'“”`")
    named = _WORD.fullmatch(words) and words.count(" ") < MAX_WORDS and not _ASSENTS.match(words)
    return (words, True) if named else ("", True)


def _in_line(line: str, *, first: bool = False) -> tuple[str, bool]:
    """The last (or first) formula of a line, else its last number. Formulas that are joined are one list."""
    formulas = [found for found in _FORMULA.finditer(line) if found[found.lastindex or 0].strip()]
    if not formulas:
        number, stands = settle_number(_UNIT.sub(_spelt_out, line))
        bare = line.strip(" *:_").removesuffix(".")
        if _is_expression(bare):
            return bare, True
        return ("" if number is None else str(number)), stands
    place = 0 if first else len(formulas) - 1
    chosen = formulas[place]
    after = settle_number(line[chosen.end() :]) if not first else (None, True)
    if after[0] is not None:  # "with $x$ the sum is 7"
        return str(after[0]), after[1] and not _listed(line, formulas[-1])
    group = _joined(line, formulas, place)
    text = ", ".join(item[item.lastindex or 0].strip() for item in group)
    denied = NEGATED.search(line[max(0, group[0].start() - 60) : group[0].start()]) or DENIED.match(
        line, group[-1].end()
    )
    return text, not denied


def _spelt_out(unit: re.Match[str]) -> str:
    """Text inside a formula: words that join or deny stay, units go."""
    return f" {unit[1]} " if _JOINS.search(unit[1]) or _NEGATES.search(unit[1]) else " "


def _listed(line: str, formula: re.Match[str]) -> bool:
    number = re.search(r"[-+]?\d", line[formula.end() :])
    return number is not None and _JOINS.fullmatch(line, formula.end(), formula.end() + number.start()) is not None


def _joined(line: str, formulas: list[re.Match[str]], place: int) -> list[re.Match[str]]:
    low = high = place
    while low > 0 and _JOINS.fullmatch(line, formulas[low - 1].end(), formulas[low].start()):
        low -= 1
    while high + 1 < len(formulas) and _JOINS.fullmatch(line, formulas[high].end(), formulas[high + 1].start()):
        high += 1
    return formulas[low : high + 1]


def _is_expression(text: str) -> bool:
    """Whether a bare line may be an expression: no list of numbers apart by spaces, and no words but a few."""
    if not text or len(text) > 200 or re.search(r"\d\s+\d", text):
        return False
    if any(word.lower() not in _FUNCTIONS for word in _WORDS.findall(_STYLE.sub("", text))):
        return False
    return "\\" in text or re.fullmatch(r"[\w\s+\-*/^=().,:;!%<>|{}\[\]°]+", text) is not None


def squash(text: str) -> str:
    """A spelling without spaces, sizes and styles, for texts that are the same to the reader."""
    text = _SPACING.sub("", plain(text)).replace("dfrac", "frac").replace("tfrac", "frac")
    return text.removesuffix(".").replace("^{\\circ}", "^\\circ")


def _word(text: str) -> str | None:
    """A text of letters alone, folded; None for a formula. One letter may be a variable, and the letter of an option
    stands in brackets."""
    bare = _STYLE.sub(r"\1", text).replace("\\ ", " ").strip(" .$")
    return " ".join(bare.casefold().split()) if _WORD.fullmatch(bare) and len(bare.replace(" ", "")) > 1 else None


def _rational(text: str) -> Fraction | None:
    """A whole number or a fraction of two; None for all else (math-verify rounds decimals)."""
    found = _RATIONAL.fullmatch(text) if len(text) < 100 else None
    if found is None:
        return None
    over, under = (int((part or "1").replace(",", "")) for part in (found[2] or found[4], found[3] or found[5]))
    return Fraction(-over if found[1] else over, under) if under else None


def is_word(text: str) -> bool:
    """Whether a reference is compared as a word and not as a formula."""
    return _word(text) is not None


def is_plain(gold: str) -> bool:
    """Whether a reference needs no parser: a whole number or a word."""
    return _rational(clean(gold)) is not None or is_word(clean(gold))


def _quick(answer: str, gold: str) -> bool | None:
    """Whether an answer equals the reference, where text alone decides; else None."""
    values = _rational(answer), _rational(gold)
    if None not in values:
        return values[0] == values[1]
    if re.search(r"\d\s+-?\d", _GROUPED.sub("0", answer)) and not re.search(r"\d\s+-?\d", gold):
        return False  # numbers apart by spaces would be multiplied, or one number
    if squash(answer) == squash(gold):
        return True
    if len(answer) > MAX_CHARS:
        return False
    word = _word(gold)
    if word is not None:
        return _word(answer) == word
    said = _NEGATES.search(answer.rpartition("=")[2]) or _NEGATES.match(answer.replace("\\text{", "").strip())
    if said and said[0].lower() not in gold.lower():
        return False
    if set(_RELATES.findall(answer)) - set(_RELATES.findall(gold)) or (
        _BEGINS.match(answer) and not _BEGINS.match(gold)
    ):
        return False
    if answer.count("=") > gold.count("=") > 0:
        return False
    if num_parts(answer) > num_parts(gold) and not _ORDERS.search(gold):
        return False
    return None


def num_parts(text: str) -> int:
    """How many values a text lists: "1, 2 or 3" and "(1, 2, 3)" three, `1 \\pm 2` two, `1,000` and `f(1, 2)` one."""
    text = _NAME.sub("", _GROUPED.sub("0", plain(text).replace("\\left", "").replace("\\right", "")).strip(), count=1)
    text = re.sub(r"\\(?:text|mbox|textbf|mathrm)\s*\{\s*,?\s*(or|and|OR|AND)\s*\}", ",", text)
    text = re.sub(r"\\[{}|]", lambda found: {"\\{": "(", "\\}": ")"}.get(found[0], " "), text).strip()
    depth = count = outer = 0
    for mark in _PART.finditer(text):
        if mark[0] in "([{":
            depth += 1
        elif mark[0] in ")]}":
            depth -= 1
        elif depth == 0:
            count += 1
        elif depth == 1:
            outer += 1
    wrapped = text[:1] in "([" and text[-1:] in ")]" and count == 0
    return 1 + (outer if wrapped else count) + (1 if "\\pm" in text else 0)


def _sides(answer: str, gold: str) -> list[str]:
    """The values that an equation claims at once (`\\frac{24}{3} = \\frac{14}{3}`), each to be compared: sides without
    a variable, and where the reference has variables, sides with a number too. `f(2) = 5` names its value."""
    if "=" not in answer or "=" in gold:
        return [answer]
    variables, known = _has_variable(gold), _CONSTANT.union(_COMMAND.findall(gold))
    claims = [side.strip() for side in answer.split("=")[:-1]
              if re.search(r"\d", side) and set(_COMMAND.findall(side)) <= known and not _CALL.fullmatch(side)
              and (variables or not _has_variable(side)) and not side.rstrip().endswith(("<", ">", "!"))]  # fmt: skip
    return [answer, *claims]


def _value(text: str) -> str:
    """`n = 2, 5, 13` and `x \\in [1, 2]` without the name: math-verify takes different ones for the same."""
    text = _MEMBER.sub("", text, count=1)
    name, sign, rest = text.partition("=")
    named = sign and re.fullmatch(r"\s*[A-Za-z]\s*", name) and "=" not in rest and not _has_variable(rest)
    return rest.strip() if named and rest.strip() else text


def _has_variable(text: str) -> bool:
    return re.search(r"[A-Za-z]", re.sub(r"\\(?:begin|end)\s*\{\w+\}|\\[A-Za-z]+", "", text)) is not None


def settle(text: str, gold: str) -> Judgement | Comparison:
    """The judgement on `text` where text alone decides, else what math-verify must compare. Raises ValueError where
    `gold` is no reference."""
    reference = clean(gold)
    found, stands = answers(text)
    if not found:
        return Judgement("unparsed", None)
    reference, found = _value(reference), tuple(map(_value, found))
    found = tuple(_THOUSANDS.sub(lambda group: re.sub(r"\\,| ", "", group[0]), answer) for answer in found)
    shown = "; ".join(found)[:200]
    if not stands or len(found) > MAX_ANSWERS:
        return Judgement("wrong", shown)
    verdicts = [_quick(answer, reference) for answer in found]
    apart = 1 < len(found) == num_parts(reference) and max(map(num_parts, found)) == 1
    together = ", ".join(found) if apart and not _ORDERS.search(reference) else None
    if all(verdicts):
        return Judgement("right", shown)
    if False in verdicts and together is None:
        return Judgement("wrong", shown)
    claimed = tuple(side for answer in found for side in _sides(answer, reference))
    return Comparison(reference, claimed, together, shown)
