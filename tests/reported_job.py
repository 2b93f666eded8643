"""A whole annotation job, simulated: 200 items in a calibration round and a main round, five annotators of whom one
answers at random and one chooses slot A, gold items, retests, ties, both bad, two sources, three topics, a judge."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import numpy as np
import pyarrow as pa

from curation.annotation.records import BOTH_BAD, ITEMS, TIE, VOTES

JOB = "helpful"
PEOPLE = ("annotator-aa01", "annotator-bb02", "annotator-cc03", "annotator-dd04", "annotator-ee05")
RANDOM, FIRST_SLOT = PEOPLE[3], PEOPLE[4]
REASON = "It <i>answers</i> the question & is short."
START = datetime.datetime(2026, 3, 2, 9, tzinfo=datetime.UTC)


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content, "reasoning": None, "tool_calls": None, "tool_call_id": None, "name": None}


def item(number: int, round_name: str, position: int, slots: tuple[str, str], **more: Any) -> dict[str, Any]:
    """One item: a question with a shorter and a longer answer, `slots` in the order shown."""
    answers = {"chosen": f"The answer to {number} is <b>{number * 2}</b>. " + "It is twice as much. " * (number % 5),
               "rejected": f"Perhaps {number * 2 + 1}? " + "One could say much about it. " * (number % 7)}  # fmt: skip
    if number == 3:
        answers["rejected"] += "<script>alert('x')</script>"
    if number == 4:
        answers["chosen"] += " Long. " * 400
    kept = {"item_id": f"{number:04x}{round_name[:4].encode().hex()}".ljust(32, "0"), "job": JOB, "round": round_name,
            "edition": "0123456789ab", "role": "item", "of_item": None, "position": position,
            "row_id": uuid.UUID(int=number + 1).bytes, "source": ("web", "chat")[number % 2],
            "topic": ("maths", "history", "code")[number % 3], "prompt": [message("user", f"What is twice {number}?")],
            "tools": None, "gold": None, "meta": "{}",
            "candidates": [{"key": key, "messages": [message("assistant", answers[key])], "model": f"model-{key[0]}",
                            "generation_id": None} for key in slots]}  # fmt: skip
    return kept | more


def vote(of: dict[str, Any], annotator: str, verdict: str | None, **more: Any) -> dict[str, Any]:
    """One submitted verdict of a person on an item."""
    slots = [candidate["key"] for candidate in of["candidates"]]
    ranks = {key: 1 if verdict in (key, TIE) else 2 for key in slots}
    ranking = None if verdict in (None, BOTH_BAD) else [{"key": key, "rank": rank} for key, rank in ranks.items()]
    kept = {name: of[name] for name in ("item_id", "job", "round", "edition", "row_id")}
    kept |= {"annotator": annotator, "kind": "person", "status": "submitted", "verdict": verdict, "ranking": ranking,
             "ratings": [], "texts": [], "flags": [], "slots": slots, "seconds": None, "answered_at": None,
             "values": json.dumps({"preference": verdict})}  # fmt: skip
    return kept | more


def job(seed: int = 0, num_calibration: int = 30, num_main: int = 170) -> tuple[pa.Table, pa.Table]:
    """(ITEMS, VOTES) of the job; the same for the same seed."""
    rng = np.random.default_rng(seed)
    items = [_made(rng, number, "calibration-1", number) for number in range(num_calibration)]
    items += [_made(rng, num_calibration + number, "main-1", number) for number in range(num_main)]
    retests = [_again(of, position) for position, of in enumerate(items[num_calibration::12], num_main)]
    votes, asked = [], {}
    clock = START
    for of in [*items, *retests]:
        truth = asked.setdefault(of["row_id"], _truth(rng, of))
        for number, person in enumerate(PEOPLE):
            if of["round"] == "main-1" and (of["position"] + number) % 5 > 2 and of["role"] != "retest":
                continue  # three of five answer an item of the main round
            clock += datetime.timedelta(minutes=18)
            seconds = float(np.round(rng.gamma(2.0, 4.0 if person == RANDOM else 30.0) + 1, 1))
            more: dict[str, Any] = {"seconds": seconds, "answered_at": clock.isoformat(timespec="seconds")}
            if rng.random() < 0.02:
                more |= {"status": "discarded", "ranking": None}
            elif rng.random() < 0.15:
                more["texts"] = [{"question": "reason", "key": None, "text": REASON}]
            if rng.random() < 0.03:
                more["flags"] = ["unsafe"]
            said = _answer(rng, person, of, truth, of["round"] == "calibration-1")
            votes.append(vote(of, person, None if more.get("status") else said, **more))
        if of["role"] != "retest" and of["round"] == "main-1":
            votes.append(_judged(rng, of, truth))
    return pa.Table.from_pylist([*items, *retests], schema=ITEMS), pa.Table.from_pylist(votes, schema=VOTES)


def _made(rng: np.random.Generator, number: int, round_name: str, position: int) -> dict[str, Any]:
    slots = ("chosen", "rejected") if rng.random() < 0.5 else ("rejected", "chosen")
    gold = {"role": "gold", "gold": "chosen"} if number % 9 == 0 else {}
    return item(number, round_name, position, slots, **gold)


def _again(of: dict[str, Any], position: int) -> dict[str, Any]:
    """The retest of an item: the slots exchanged."""
    return of | {"item_id": of["item_id"][:-1] + "f", "role": "retest", "of_item": of["item_id"], "gold": None,
                 "position": position, "candidates": of["candidates"][::-1]}  # fmt: skip


def _truth(rng: np.random.Generator, of: dict[str, Any]) -> str:
    if of["gold"]:
        return str(of["gold"])
    return str(rng.choice(["chosen", "rejected", TIE, BOTH_BAD], p=[0.55, 0.27, 0.1, 0.08]))


def _answer(rng: np.random.Generator, person: str, of: dict[str, Any], truth: str, calibrating: bool) -> str:
    slots = [candidate["key"] for candidate in of["candidates"]]
    if person == RANDOM:
        return str(rng.choice(slots))
    if person == FIRST_SLOT and rng.random() < 0.85:
        return str(slots[0])
    right = 0.7 if calibrating else 0.88
    return truth if rng.random() < right else str(rng.choice([*slots, TIE]))


def _judged(rng: np.random.Generator, of: dict[str, Any], truth: str) -> dict[str, Any]:
    """A judge's verdict in both orders; where they differ it is no vote."""
    both = [truth if rng.random() < 0.8 else of["candidates"][order]["key"] for order in (0, 1)]
    same = both[0] == both[1]
    more = {"kind": "judge", "status": "submitted" if same else "discarded", "answered_at": None,
            "values": json.dumps({"outcome": "consistent" if same else "inconsistent", "said": both})}  # fmt: skip
    return vote(of, "judge-tiny", both[0] if same else None, **more)
