"""A job's questions as Argilla's, and Argilla's answers as votes: there slots are asked about, here keys are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

import orjson

from curation.annotation.jobs import Question
from curation.annotation.records import BOTH_BAD, SUBMITTED, TIE
from curation.annotation.rendering import as_written

NO_FLAG = "none of these"  # the second option that Argilla wants beside a single flag
ORIGINAL = "original"


class Asked(NamedTuple):
    """One of Argilla's questions: its name there, the job's question, and the slot it is about (0 is A), or None."""

    name: str
    question: Question
    slot: int | None


def letter(slot: int) -> str:
    """A for slot 0."""
    return ascii_uppercase[slot]


def asked(questions: Sequence[Question], num_slots: int) -> list[Asked]:
    """Argilla's questions for a dataset whose items have up to `num_slots` candidates, in the order shown. Those about
    a candidate are asked once a slot; the names hold a `-`, which no name of a job's question does."""
    found = []
    for question in questions:
        if question.kind == "rating" and question.of == "candidate":
            found += [Asked(f"{question.name}-{letter(slot).lower()}", question, slot) for slot in range(num_slots)]
        else:
            found.append(Asked(question.name, question, None))
    return found


def as_created(one: Asked, num_slots: int, fewest_slots: int) -> dict[str, Any]:
    """The body that makes a question. `fewest_slots`: what every item has; what only some items have is not
    required."""
    question, about = one.question, one.slot
    title = question.shown_title if about is None else f"{question.shown_title}: answer {letter(about)}"
    required = question.required and (about is None or about < fewest_slots)
    hint = question.description
    if question.kind == "ranking" and fewest_slots < num_slots:
        hint = f"{hint} An answer that an item does not have may stand anywhere.".strip()
    body = {"name": one.name, "title": title, "required": required, "settings": _settings(question, num_slots)}
    return body | ({"description": hint} if hint else {})


def _settings(question: Question, num_slots: int) -> dict[str, Any]:
    slots = [letter(slot) for slot in range(num_slots)]
    if question.kind == "preference":
        options = [{"value": slot, "text": f"{slot} is better"} for slot in slots]
        options += [{"value": TIE, "text": "Tie"}] if question.tie else []
        options += [{"value": BOTH_BAD, "text": "Both bad"}] if question.both_bad else []
        return {"type": "label_selection", "options": options}
    if question.kind == "ranking":
        return {"type": "ranking", "options": [{"value": slot, "text": f"Answer {slot}"} for slot in slots]}
    if question.kind == "rating":
        return {"type": "rating", "options": [{"value": value} for value in question.values]}
    if question.kind == "flags":
        labels = [*question.labels, *([NO_FLAG] if len(question.labels) == 1 else [])]
        return {"type": "multi_label_selection", "options": [{"value": label, "text": label} for label in labels]}
    return {"type": "text", "use_markdown": False}


def vote_values(questions: Sequence[Asked], keys: Sequence[str], status: str, values: Any
                ) -> tuple[dict[str, Any], int]:  # fmt: skip
    """The columns of VOTES that hold answers, and how many answers could not be read. `keys` are the item's, in slot
    order. Verdict, ranking and ratings come of submitted responses alone; texts and flags say something in discarded
    ones and drafts too. A response may hold nothing, null, a part of the answers, or questions that are not asked."""
    given = values if isinstance(values, Mapping) else {}
    vote: dict[str, Any] = {"verdict": None, "ranking": None, "ratings": [], "texts": [], "flags": None}
    unread = len([name for name in given if name not in {one.name for one in questions}])
    for one in questions:
        entry = given.get(one.name)
        value = entry.get("value") if isinstance(entry, Mapping) else None
        if value is not None:
            unread += not _take(vote, one, keys, status, value)
    return vote | {"ratings": vote["ratings"] or None, "texts": vote["texts"] or None}, unread


def _take(vote: dict[str, Any], one: Asked, keys: Sequence[str], status: str, value: Any) -> bool:
    """Put one answer into a vote; whether it could be read."""
    question = one.question
    if question.kind in ("text", "write", "edit"):
        if not isinstance(value, str):
            return False
        key = ORIGINAL if question.kind == "edit" else None
        vote["texts"].append({"question": question.name, "key": key, "text": as_written(value)})
        return True
    if question.kind == "flags":
        if not isinstance(value, list) or not set(map(str, value)) <= {*question.labels, NO_FLAG}:
            return False
        chosen = {str(label) for label in value if label in question.labels}
        vote["flags"] = sorted({*(vote["flags"] or ()), *chosen})
        return True
    if status != SUBMITTED:
        return True
    if question.kind == "rating":
        if type(value) is not int or value not in question.values or (one.slot or 0) >= max(len(keys), 1):
            return False
        key = None if one.slot is None else keys[one.slot]
        vote["ratings"].append({"question": question.name, "key": key, "value": value})
        return True
    verdict, ranking = (_preferred if question.kind == "preference" else _ranked)(keys, value)
    vote |= {"verdict": verdict, "ranking": ranking}
    return verdict is not None


def _preferred(keys: Sequence[str], value: Any) -> tuple[str | None, list[dict[str, Any]] | None]:
    """Verdict and ranking of a choice between two."""
    if value == BOTH_BAD:
        return BOTH_BAD, None
    if value == TIE:
        return TIE, [{"key": key, "rank": 1} for key in sorted(keys)]
    slots = {letter(slot): key for slot, key in enumerate(keys)}
    if not isinstance(value, str) or value not in slots:
        return None, None
    return slots[value], [{"key": key, "rank": 1 if key == slots[value] else 2} for key in sorted(keys)]


def _ranked(keys: Sequence[str], value: Any) -> tuple[str | None, list[dict[str, Any]] | None]:
    """Verdict and ranking of an order of slots. Ranks are closed up: 1 is best, those of slots that the item does not
    have are left out."""
    slots = {letter(slot): key for slot, key in enumerate(keys)}
    entries = [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
    ranks = {slots[str(one["value"])]: one["rank"] for one in entries
             if str(one.get("value")) in slots and type(one.get("rank")) is int}  # fmt: skip
    if len(ranks) < len(slots) or not ranks:
        return None, None
    closed = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), 1)}
    first = [key for key in keys if closed[ranks[key]] == 1]
    return first[0] if len(first) == 1 else TIE, [{"key": key, "rank": closed[ranks[key]]} for key in sorted(ranks)]


def as_came(values: Any) -> str:
    """JSON of what came, keys sorted."""
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
