"""Verifier `logic`: who is a knight and who is a knave (Logic-RL's puzzles).

The gold answer is the text "(1) Ann is a knight\\n(2) Bob is a knave", or the JSON of a row's ground truth that holds
it as `solution_text_format`. Roles are read in what `<answer>` encloses, else in the text itself: its last paragraphs
that name a role, back to the first that names one of everybody. "Ann is a knight", "Ann: knight", "Ann and Bob are
knaves", "Knights: Ann, Bob" and "Ann is not a knave" are read. Everybody needs one role: a second, another one makes
the answer wrong, and so does "knight or knave". A sentence that supposes ("if Ann is a knight") or reports what
somebody says assigns nothing.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left

from curation.verifiers import ANYWHERE, Finder, Judgement
from curation.verifiers.reading import plain

_ENCLOSED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL | re.IGNORECASE)
_GOLD = re.compile(r"\(\d+\)\s*([^\n()]+?)\s+is\s+an?\s+(\w+)\s*\.?\s*(?=\n|\(|,|$)")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_NUMBERED = re.compile(r"(?=\(\d+\))")
_SUPPOSES = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|would|could|might|may|claims?|says?|said|states?|"
    r"tells?|told|because|since|unless|whether|either|maybe|perhaps|possibly|according|remark\w*|noted|express\w*|"
    r"assert\w*|declare\w*|comment\w*|mention\w*)\b|[\"\u201c\u201d]",
    re.IGNORECASE,
)
_NOT = re.compile(r"(?:\b(?:not|never|neither|no)|n['’]t)\b[\s\w]{0,12}$", re.IGNORECASE)
ROLES = ("knight", "knave")
_ROLE = re.compile(r"\b(knight|knave)(s?)\b", re.IGNORECASE)


def read_gold(gold: str) -> dict[str, str]:
    """Person -> role, lower case. Raises ValueError where the text or JSON holds none, or names somebody twice."""
    text = gold
    if gold.lstrip().startswith("{"):
        try:
            text = json.loads(gold)["solution_text_format"]
        except (ValueError, KeyError, TypeError):
            text = ""
    pairs = _GOLD.findall(text) if isinstance(text, str) else []
    roles = {name.lower(): role.lower() for name, role in pairs}
    if not roles or len(roles) != len(pairs) or not set(roles.values()) <= set(ROLES):
        raise ValueError(f"the gold answer {gold!r:.60} assigns no roles")
    return roles


def read_roles(text: str, names: list[str]) -> dict[str, set[str]]:
    """Person -> the roles that `text` assigns (none for a person that it leaves out)."""
    found: dict[str, set[str]] = {name: set() for name in names}
    pattern = re.compile(r"\b(" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + r")\b",
                         re.IGNORECASE)  # fmt: skip
    for sentence in _SENTENCE.split(text):
        for clause in () if _SUPPOSES.search(sentence) else _NUMBERED.split(sentence):
            people, roles = list(pattern.finditer(clause)), list(_ROLE.finditer(clause))
            if people and roles:
                _assign(clause, people, roles, found)
    return found


def _assign(sentence: str, people: list[re.Match[str]], roles: list[re.Match[str]],
            found: dict[str, set[str]]) -> None:  # fmt: skip
    """Roles of one sentence: a role belongs to the people named since the role before it, and a heading ("Knights: Ann,
    Bob") to the people after it."""
    heading = roles[0].start() < people[0].start()
    places = [person.start() for person in people]
    for index, role in enumerate(roles):
        start = roles[index - 1].end() if index else 0
        end = roles[index + 1].start() if index + 1 < len(roles) else len(sentence)
        low, high = (role.end(), end) if heading else (start, role.start())
        said = role[1].lower()
        if not heading and _NOT.search(sentence[start : role.start()]):
            said = ROLES[1 - ROLES.index(said)]
        group = people[bisect_left(places, low) : bisect_left(places, high)]
        if not group and not heading:  # "Ann is a knight or a knave"
            group = people[max(0, bisect_left(places, high) - 1) : bisect_left(places, high)]
        for person in group:
            found[person[1].lower()].add(said)


def _answers(text: str, names: list[str]) -> list[dict[str, set[str]]]:
    """What each `<answer>` assigns; without one, what the end of the text assigns."""
    enclosed = _ENCLOSED.findall(text)
    if enclosed:
        return [read_roles(plain(part), names) for part in dict.fromkeys(enclosed) if part.strip()]
    if "<answer>" in text:
        text = text.rpartition("<answer>")[2]
    together: dict[str, set[str]] = {name: set() for name in names}
    for paragraph in reversed(re.split(r"\n\s*\n", plain(text))):
        for name, roles in read_roles(paragraph, names).items():
            together[name] |= roles
        if all(together.values()):
            break
    return [together]


def judge(text: str, gold: str, finder: Finder = ANYWHERE) -> Judgement:
    """Right where everybody of `gold` has the right role and nobody two; unparsed where nobody has one. Raises
    ValueError where `gold` assigns no roles."""
    expected = read_gold(gold)
    found = finder.find(text)
    answers = [] if found is None else _answers(found, list(expected))
    if not any(roles for answer in answers for roles in answer.values()):
        return Judgement("unparsed", None)
    said = ", ".join(f"{name} {' and '.join(sorted(roles))}" for name, roles in answers[-1].items() if roles)
    right = all(answer == {name: {role} for name, role in expected.items()} for answer in answers)
    return Judgement("right" if right else "wrong", said)
