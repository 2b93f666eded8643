"""What the lines of a vote file say -> ITEMS and VOTES: which lines are about one item, which candidate a label names,
and who answered twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from curation.annotation.records import BOTH_BAD, DISCARDED, ITEMS, JUDGE, PERSON, SUBMITTED, TIE, VOTES
from curation.annotation.vote_files import Given, Read, Reject, Shown
from curation.annotation.vote_shapes import NONE, A, B
from curation.fingerprint import fingerprint

RESERVED = (TIE, BOTH_BAD)
Item = dict[str, Any]


class Place(NamedTuple):
    """Job, round and edition of items that a file makes."""

    job: str
    round: str
    edition: str


@dataclass
class Made:
    """New items (in the order of their lines), new votes by round, and what was refused. `num_repeated` votes are there
    already, in the lake or further up in the file."""

    items: list[Item] = field(default_factory=list)
    votes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    num_repeated: int = 0
    seen: dict[tuple[str, str, str], tuple[Any, ...]] = field(default_factory=dict)
    nameless: Counter[str] = field(default_factory=Counter)


def make(read: Read, place: Place, known: Iterable[Item], votes: Iterable[Mapping[str, Any]],
         name_of: Callable[[str], str]) -> Made:  # fmt: skip
    """Items and votes of a file of its own items. `known` are the items that the job has, `votes` its votes, `name_of`
    the name under which an annotator stands in the lake.

    An item is a name with what is shown under it: two answers to a prompt, or two models. Lines that show the same
    answers in the other order are about the same item; the first line decides which answer stands in A. A line that
    shows nothing is about the one item of that name.
    """
    made = Made(seen=_seen(votes))
    items = {item["item_id"]: item for item in known}
    named = _named(read, items.values())
    lines: Counter[str] = Counter()
    for given in read.given:
        try:
            item_id, meta = _identity(given, place, named, lines)
        except ValueError as error:
            made.rejects.append(_reject(given, str(error)))
            continue
        if item_id not in items:
            items[item_id] = _item(item_id, meta, given.shown, place, len(items))
            made.items.append(items[item_id])
        _vote(given, items[item_id], read, made, name_of)
    return made


def attach(read: Read, known: Iterable[Item], votes: Iterable[Mapping[str, Any]], name_of: Callable[[str], str]
           ) -> Made:  # fmt: skip
    """Votes of a file on items that a job has shown: the file names them by their item_id."""
    made = Made(seen=_seen(votes))
    items = {item["item_id"]: item for item in known}
    for given in read.given:
        item = items.get((given.shown.item or "").replace("-", ""))
        if item is None:
            made.rejects.append(_reject(given, f"'{given.shown.item}' is the item_id of no item of the job"))
            continue
        _vote(given, item, read, made, name_of)
    return made


def _reject(given: Given, reason: str) -> Reject:
    return Reject(given.line, reason, orjson.dumps(given.values, option=orjson.OPT_SORT_KEYS, default=str).decode())


def _dense(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _dense(item) for key, item in value.items() if item is not None}
    return [_dense(item) for item in value] if isinstance(value, list | tuple) else value


def _sides(shown: Shown) -> list[str]:
    """What each of the two answers is: its model and its turns."""
    return [fingerprint([model, _dense(turns)]) for model, turns in zip(shown.models, shown.answers, strict=True)]


def _signature(shown: Shown) -> str | None:
    """What is shown, whichever answer stands first; None where nothing is."""
    if not shown.answers[0] and shown.models == (None, None):
        return None
    return fingerprint([_dense(shown.prompt), sorted(_sides(shown))])


def _named(read: Read, known: Iterable[Item]) -> dict[str, set[str]]:
    """name -> what is shown under it, anywhere."""
    found: dict[str, set[str]] = {}
    for given in read.given:
        if given.shown.item is not None and (signature := _signature(given.shown)) is not None:
            found.setdefault(given.shown.item, set()).add(signature)
    for item in known:
        meta = json.loads(item["meta"] or "{}")
        if meta.get("item") is not None and meta.get("shows") is not None:
            found.setdefault(meta["item"], set()).add(meta["shows"])
    return found


def _identity(given: Given, place: Place, named: Mapping[str, set[str]], lines: Counter[str]
              ) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """(item_id, the name and what else of it must be known again). Raises ValueError."""
    shown, signature = given.shown, _signature(given.shown)
    number = None
    if signature is None:
        if shown.item is None:
            raise ValueError("names no item and shows no answers")
        under = named.get(shown.item, set())
        if len(under) > 1:
            raise ValueError(f"shows nothing, and {len(under)} comparisons stand under the name '{shown.item}'")
        signature = next(iter(under), None)
    elif shown.item is None and not shown.answers[0]:  # two models met, nothing else is known: each line is a meeting
        line = fingerprint([signature, orjson.dumps(given.values, option=orjson.OPT_SORT_KEYS, default=str)])
        number = [line, lines[line]]
        lines[line] += 1
    meta = {"item": shown.item, "shows": signature, "line": number}
    return fingerprint(["votes", place.job, place.round, meta]), _dense(meta)


def _item(item_id: str, meta: dict[str, Any], shown: Shown, place: Place, position: int) -> Item:
    one, other = shown.models
    keys = (A, B) if one is None or other is None or one == other or {one, other} & set(RESERVED) else (one, other)
    candidates = [{"key": key, "messages": turns, "model": model, "generation_id": None}
                  for key, turns, model in zip(keys, shown.answers, shown.models, strict=True)]  # fmt: skip
    more = meta | ({"turn": shown.turn} if shown.turn is not None else {})
    values = {"item_id": item_id, "job": place.job, "round": place.round, "edition": place.edition, "role": "item",
              "position": position, "topic": shown.topic, "prompt": shown.prompt, "candidates": candidates,
              "meta": orjson.dumps(more, option=orjson.OPT_SORT_KEYS).decode()}  # fmt: skip
    return {name: values.get(name) for name in ITEMS.names}


def _slots(shown: Shown, item: Item) -> list[str]:
    """The item's keys in the order in which the line shows them."""
    keys = [candidate["key"] for candidate in item["candidates"]]
    if _signature(shown) is None or len(keys) != 2:
        return keys
    held = [fingerprint([candidate["model"], _dense(candidate["messages"] or [])]) for candidate in item["candidates"]]
    return keys[::-1] if _sides(shown) == held[::-1] != held else keys


def _vote(given: Given, item: Item, read: Read, made: Made, name_of: Callable[[str], str]) -> None:
    """Put one vote into `made`, or the reason why it is none."""
    slots = _slots(given.shown, item)
    letters = {chr(ord(A) + place): key for place, key in enumerate(slots)}
    special = {TIE: TIE, BOTH_BAD: BOTH_BAD, NONE: None}
    said = given.verdict
    if said is not None and said not in {*letters, *special, *slots}:
        made.rejects.append(_reject(given, f"'{said}' is no candidate of its item, which has {', '.join(slots)}"))
        return
    verdict = None if said is None else special[said] if said in special else letters.get(said, said)
    login = given.annotator
    if login is None:  # the n-th of the item whom the file does not name
        made.nameless[item["item_id"]] += 1
        login = f"unknown {made.nameless[item['item_id']]}"
    annotator = f"judge-{login}" if read.file.kind == "judge" else name_of(login)
    ratings = [{"question": question, "key": letters[side] if side is not None else None, "value": value}
               for question, side, value in given.ratings]  # fmt: skip
    asked = {"item_id": item["item_id"], "annotator": annotator, "answered_at": given.answered_at}
    key = (item["item_id"], annotator, given.answered_at or "")
    status = DISCARDED if said == NONE and not ratings else SUBMITTED
    answer = (status, verdict, tuple(sorted((rating["key"] or "", rating["value"]) for rating in ratings)))
    if key in made.seen:
        if made.seen[key] == answer:
            made.num_repeated += 1
        else:
            made.rejects.append(_reject(given, "the same annotator answers the same item in two ways, and no time says "
                                        "which came last"))  # fmt: skip
        return
    made.seen[key] = answer
    values: dict[str, Any] = asked | {
        "job": item["job"], "round": item["round"], "edition": item["edition"], "row_id": item["row_id"],
        "kind": JUDGE if read.file.kind == "judge" else PERSON, "status": status, "verdict": verdict,
        "ranking": ranking(verdict, slots), "ratings": ratings or None,
        "texts": [{"question": "rationale", "key": None, "text": given.rationale}] if given.rationale else None,
        "slots": slots, "seconds": given.seconds,
        "values": orjson.dumps(given.values, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS,
                               default=str).decode()}  # fmt: skip
    made.votes.setdefault(item["round"], []).append({name: values.get(name) for name in VOTES.names})


def ranking(verdict: str | None, keys: Iterable[str]) -> list[dict[str, Any]] | None:
    """The ranks that a verdict on two candidates gives: winner 1, loser 2; a tie 1 and 1; otherwise None."""
    if verdict is None or verdict == BOTH_BAD:
        return None
    return [{"key": key, "rank": 1 if verdict in (TIE, key) else 2} for key in keys]


def _seen(votes: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], tuple[Any, ...]]:
    return {(vote["item_id"], vote["annotator"], vote["answered_at"] or ""):
            (vote["status"], vote["verdict"],
             tuple(sorted((rating["key"] or "", rating["value"]) for rating in vote["ratings"] or ())))
            for vote in votes}  # fmt: skip
