"""What kind of answer a gold answer is, how likely a blind guess hits it, and whether a prompt gives it away."""

from __future__ import annotations

import json
import re

from curation.verifiers import logic, math
from curation.verifiers.reading import plain

KINDS = ("number", "expression", "choice", "boolean", "text", "structure")
# Answers whose prompts ask for one of a few words, with how many there are.
SMALL_SETS = (
    ("yes", "no"), ("true", "false"), ("odd", "even"), ("left", "right"), ("increasing", "decreasing"),
    ("positive", "negative", "zero"), ("always", "sometimes", "never"), ("north", "south", "east", "west"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
)  # fmt: skip
BOOLEANS = ("yes", "no", "true", "false")
CHOICES = 4  # of a question that lists no options
LEAK_DIGITS = 4  # a number of fewer digits stands in many a prompt by chance
LEAK_CHARS = 8  # likewise an expression or a text of fewer characters
_NUMBER = re.compile(
    r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:\s*/\s*\d+|[eE][-+]?\d+)?\s*(?:\\?%|\^?\\?\{?\\circ\}?)?"
)
_FRACTION = re.compile(r"-?\\[dt]?frac\s*\{?\d+\}?\s*\{?\d+\}?")
_LETTER = re.compile(r"(?:\\text\s*\{)?\s*\(?([A-Ja-j])\)?[.)]?\s*\}?")
_STYLE = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_MARK = re.compile(r"(?i:\\boxed\{|####|answer(?:is|are|:|=)+(?:\\?\(|\*\*)?|solution(?:is|:))")
_GOES_ON = re.compile(r"[\w.,^/]\w|\w")
_LEADS, _FOLLOWS = re.compile(r"[\w.\\]"), re.compile(r"[\w^]|[.,]\d")
_OPTION = re.compile(r"(?:^|[\s(])\(?([A-J])[).:](?=\s|\S)", re.MULTILINE)


def kind_of(verifier: str | None, gold: str) -> str:
    """One of KINDS. A letter is a choice; for `math`, where it stands in brackets or in a text."""
    if verifier in ("logic", "code", "instructions") or (gold.lstrip()[:1] in ("{", "[") and _is_json(gold)):
        return "structure"
    text = gold.rpartition("####")[2].strip().strip("$").strip()
    word = _STYLE.sub(r"\1", text).strip(" .").casefold()
    if word in BOOLEANS:
        return "boolean"
    letter = _LETTER.fullmatch(text)
    if verifier == "choice" or (letter and (verifier != "math" or len(text) > 1)):
        return "choice"
    if re.search(r"\d", text) and (_NUMBER.fullmatch(text) or _FRACTION.fullmatch(text)):
        return "number"
    if verifier == "math":
        return "text" if math.is_word(text) else "expression"
    return "expression" if re.search(r"\\[A-Za-z]+|[\^_=]", text) else "text"


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def guess_chance(kind: str, gold: str, prompt: str) -> float | None:
    """The share (0..1) of blind guesses that hit: 1/2 for yes or no, 1 / the options that the prompt lists (4 where it
    lists none), 1 / the size of a small set of words, 2^-n for n knights and knaves; None for an open answer."""
    if kind == "boolean":
        return 0.5
    if kind == "choice":
        listed = len(set(_OPTION.findall(prompt)))
        return 1 / (listed if listed > 1 else CHOICES)
    if kind == "structure":
        try:
            return float(2.0 ** -len(logic.read_gold(gold)))
        except ValueError:
            return None
    word = _STYLE.sub(r"\1", gold).strip(" .$").casefold()
    return next((1 / len(group) for group in SMALL_SETS if word in group), None)


def stated_in(gold: str, prompt: str) -> bool:
    r"""Whether a prompt states the answer as one: in a box, after "####", "answer is" or "answer:", whatever its
    length."""
    value = math.squash(gold.rpartition("####")[2].strip().strip("$"))
    if not value or len(value) > math.MAX_CHARS:
        return False
    text = math.squash(prompt)
    places = (mark.end() for mark in _MARK.finditer(text))
    return any(text.startswith(value, place) and not _GOES_ON.match(text, place + len(value)) for place in places)


def stands_in(kind: str, gold: str, prompt: str) -> bool | None:
    """Whether the whole answer stands in a prompt, as a number or words of its own and not as a part of a longer one.
    None where that would tell nothing: choices, yes or no, numbers of fewer than 4 digits, expressions and texts of
    fewer than 8 characters."""
    text = " ".join(plain(gold.rpartition("####")[2]).replace("$", "").split())
    if kind == "structure":
        try:
            text = logic_text = " ".join(_assignments(gold))
        except ValueError:
            return None
        return logic_text.casefold() in " ".join(prompt.split()).casefold()
    if kind in ("choice", "boolean"):
        return None
    if sum(map(str.isdigit, text)) < LEAK_DIGITS if kind == "number" else len(text.replace(" ", "")) < LEAK_CHARS:
        return None
    folded = " ".join(plain(prompt).replace("$", "").split())
    if kind == "number":
        folded, text = folded.replace(",", ""), text.replace(",", "")
    folded, text = folded.lower(), text.lower()
    place = folded.find(text)
    while place >= 0:
        if not _LEADS.match(folded[max(0, place - 1) : place]) and not _FOLLOWS.match(folded, place + len(text)):
            return True
        place = folded.find(text, place + 1)
    return False


def _assignments(gold: str) -> list[str]:
    return [f"({place}) {name} is a {role}" for place, (name, role) in enumerate(logic.read_gold(gold).items(), 1)]
