"""Simulated annotators: tables of items and votes in which it is known who answers how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from curation.annotation.records import ITEMS, VOTES
from curation.voting.vote_arrays import NOMINAL, ORDINAL, Answers

HABITS = ("good", "random", "position", "adversarial", "constant", "hasty", "long")


@dataclass(frozen=True)
class Simulated:
    """ITEMS and VOTES, the right key of every item by its id, and every annotator's habit by name."""

    items: pa.Table
    votes: pa.Table
    truth: dict[str, str]
    habits: dict[str, str]


def said(text: str) -> list[dict[str, Any]]:
    """One answer as messages."""
    return [{"role": "assistant", "content": text}]


def item(item_id: str, keys: tuple[str, ...] = ("a", "b"), **more: Any) -> dict[str, Any]:
    """A row of ITEMS whose candidates stand in the order of `keys`."""
    lengths = more.pop("lengths", (40,) * len(keys))
    row = {name: None for name in ITEMS.names} | {
        "item_id": item_id, "job": "job", "round": "main-1", "edition": "e" * 12, "role": "item", "position": 0,
        "source": "source", "topic": "topic", "prompt": [{"role": "user", "content": "Which one?"}],
        "candidates": [{"key": key, "messages": said("x" * length)} for key, length in zip(keys, lengths, strict=True)],
    }  # fmt: skip
    return row | more


def vote(item_id: str, annotator: str, verdict: str | None, **more: Any) -> dict[str, Any]:
    """A row of VOTES, submitted by a person."""
    row = {name: None for name in VOTES.names} | {
        "item_id": item_id, "job": "job", "round": "main-1", "edition": "e" * 12, "annotator": annotator,
        "kind": "person", "status": "submitted", "verdict": verdict, "values": "{}",
    }  # fmt: skip
    return row | more


def tables(items: list[dict[str, Any]], votes: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    """(ITEMS, VOTES) of rows."""
    return pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(votes, schema=VOTES)


def answer(habit: str, right: int, slots: tuple[int, int], lengths: tuple[int, int], skill: float, ties: float,
           rng: np.random.Generator) -> str:  # fmt: skip
    """The verdict of one annotator on an item with the keys a (0) and b (1), shown in the order `slots`."""

    def key(code: int) -> str:
        return "ab"[code]

    if habit == "constant":
        return key(slots[0])
    if habit == "random":
        return key(int(rng.integers(2)))
    if habit == "position" and rng.random() < 0.75:
        return key(slots[0])
    if habit == "long" and rng.random() < 0.75:
        return key(int(np.argmax(lengths)))
    if rng.random() < ties:
        return "tie" if rng.random() < 0.7 else "both_bad"
    correct = rng.random() < skill
    return key(right if correct != (habit == "adversarial") else 1 - right)


def simulate(habits: tuple[str, ...] = ("good",) * 5 + ("random", "position", "adversarial"), num_items: int = 300,
             per_item: int = 3, *, seed: int = 0, skill: float = 0.85, ties: float = 0.0, gold_share: float = 0.0,
             retest_share: float = 0.0, round_name: str = "main-1", sources: int = 2, topics: int = 3,
             job: str = "job") -> Simulated:  # fmt: skip
    """Votes of annotators with these habits on two-candidate items with the keys a and b, `per_item` annotators each
    (never more than there are), by turns. Slots are drawn per item and kept for everybody; a retest shows the other
    order to those who answered its item, later. A good annotator is right with the probability `skill`."""
    rng = np.random.default_rng(seed)
    names = [f"annotator-{number:08x}" for number in range(len(habits))]
    start = datetime(2026, 3, 2, 9, tzinfo=UTC)
    clock = dict.fromkeys(names, start)
    items: list[dict[str, Any]] = []
    votes: list[dict[str, Any]] = []
    truth: dict[str, str] = {}
    plan = [("item", place, None) for place in range(num_items)]
    plan += [("retest", num_items + number, place) for number, place in
             enumerate(rng.choice(num_items, int(retest_share * num_items), replace=False).tolist())]  # fmt: skip
    known: dict[int, tuple[int, tuple[int, int], tuple[int, int], list[int]]] = {}
    for role, place, of in plan:
        if of is None:
            right, first = int(rng.integers(2)), int(rng.integers(2))
            lengths = (int(rng.integers(40, 400)), int(rng.integers(40, 400)))
            who = rng.permutation(len(habits))[: min(per_item, len(habits))].tolist()
            known[place] = (right, (first, 1 - first), lengths, who)
        else:
            right, slots, lengths, who = known[of]
            known[place] = (right, (slots[1], slots[0]), lengths, who)
        right, slots, lengths, who = known[place]
        item_id, gold = f"{job}{round_name}{place:06d}", role == "item" and rng.random() < gold_share
        truth[item_id] = "ab"[right]
        keys = tuple("ab"[code] for code in slots)
        items.append(item(item_id, keys, lengths=tuple(lengths[code] for code in slots), position=place, job=job,
                          role="gold" if gold else role, gold="ab"[right] if gold else None, round=round_name,
                          of_item=None if of is None else f"{job}{round_name}{of:06d}",
                          source=f"source{place % sources}", topic=f"topic{place % topics}"))  # fmt: skip
        for number in who:
            habit, name = habits[number], names[number]
            seconds = float(rng.uniform(1, 2) if habit == "hasty" else rng.uniform(20, 60))
            clock[name] += timedelta(seconds=seconds + 30)
            verdict = answer(habit, right, slots, lengths, skill, ties, rng)
            votes.append(vote(item_id, name, verdict, slots=list(keys), seconds=seconds, round=round_name, job=job,
                              answered_at=clock[name].isoformat()))  # fmt: skip
    return Simulated(*tables(items, votes), truth, dict(zip(names, habits, strict=True)))


def answers_of(answers_AU: list[list[Any]], ordinal: bool = False) -> Answers:
    """Answers to one question by annotators (rows) about units (columns), each an item of its own; None is missing."""
    values = sorted({value for row in answers_AU for value in row if value is not None})
    given = [(unit, annotator, values.index(value)) for annotator, row in enumerate(answers_AU)
             for unit, value in enumerate(row) if value is not None]  # fmt: skip
    units, annotators, codes = np.array(given, dtype=np.int64).reshape(-1, 3).T
    return Answers("question", ORDINAL if ordinal else NOMINAL, units, annotators, codes,
                   np.arange(len(answers_AU[0]), dtype=np.int64), tuple(values))  # fmt: skip
