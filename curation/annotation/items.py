"""Items of a round: which subject stands where (an item, a known verdict, a repetition), and what it shows."""

from __future__ import annotations

import datetime
import decimal
import heapq
import math
import uuid
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import orjson

from curation.annotation.choosing import Offers
from curation.annotation.jobs import Job, JobHeader
from curation.annotation.records import ROLES
from curation.errors import UserError
from curation.fingerprint import fingerprint

ITEM, GOLD, RETEST = ROLES
RETEST_DISTANCE = 10  # items that lie at least between an item and its repetition
Place = tuple[str, str]  # role and key of the subject


def plan(header: JobHeader, offers: Offers, before: Sequence[Place] = (), where: str = "") -> list[Place]:
    """Role and subject of every place of a round: those of `before`, then what follows from them. A longer round begins
    with the shorter one.

    One place of each 1 / gold_share is gold, at a random spot of that stretch; a repetition takes the first place that
    is not gold once one is due and an item lies far enough back. The round ends with the budget, or where no subject is
    left. Raises UserError where a gold item is due and the query has no more of them.
    """
    limit = header.max_items if header.max_items is not None else math.inf
    found: list[Place] = []
    plain, gold = iter(offers.plain), iter(offers.gold)
    waiting: list[tuple[str, str]] = []  # items far enough back, in the order of a hash
    repeated: set[str] = set()
    rest = len(offers.plain)
    while len(found) < max(limit, len(before)):
        position = len(found)
        if position > RETEST_DISTANCE:
            role, key = found[position - RETEST_DISTANCE - 1]
            if role == ITEM:
                heapq.heappush(waiting, (fingerprint([header.seed, RETEST, key]), key))
        while waiting and waiting[0][1] in repeated:
            heapq.heappop(waiting)
        due = math.floor((position + 1) * Fraction(str(header.retest_share))) > len(repeated)
        if position < len(before):
            place = before[position]
        elif is_gold(position, header.gold_share, header.seed):
            known = next(gold, None)
            if known is None and rest:
                what = f"item {position + 1:,} should be gold, and the query gives {len(offers.gold):,} more verdicts"
                raise UserError(what, "give more rows a verdict in the column gold, or lower gold_share", where=where,
                                key="gold_share")  # fmt: skip
            if known is None:
                break
            place = (GOLD, known)
        elif due and waiting:
            place = (RETEST, waiting[0][1])
        elif rest:
            place = (ITEM, next(plain))
            rest -= 1
        else:
            break
        if place[0] == RETEST:
            repeated.add(place[1])
        found.append(place)
    return found


def is_gold(position: int, share: float, seed: int) -> bool:
    """Whether a place is one with a known verdict: one of each stretch of 1 / `share` places, chosen by a hash."""
    if not share:
        return False
    exact = Fraction(str(share))
    stretch = math.floor(position * exact)
    first, after = math.ceil(stretch / exact), math.ceil((stretch + 1) / exact)
    return position == first + int(fingerprint([seed, GOLD, stretch]), 16) % (after - first)


def slots(keys: Sequence[str], identity: Sequence[str], seed: int) -> list[str]:
    """Candidates in slot order, A first: the order of a hash over what the item is, the seed and the key."""
    return sorted(keys, key=lambda key: fingerprint([seed, *identity, key]))


def make_item(job: Job, round_name: str, position: int, place: Place, content: Mapping[str, Any],
              repeats: Mapping[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """A record of ITEMS. `content` is what choosing.fetch gives for the subject; `repeats` the item that a repetition
    shows again, with its candidates in opposite order."""
    role, key = place
    if repeats is not None:
        item = {**repeats, "candidates": list(reversed(repeats["candidates"])), "of_item": repeats["item_id"]}
    else:
        candidates = {one["key"]: one for one in content["candidates"]}
        order = slots(list(candidates), [job.name, round_name, key], job.header.seed)
        item = {name: content[name] for name in ("row_id", "source", "topic", "prompt", "tools", "of_item")}
        item |= {"candidates": [candidates[one] for one in order], "meta": json_text(content["meta"]),
                 "gold": content["gold"] if role == GOLD else None}  # fmt: skip
    item |= {"job": job.name, "round": round_name, "edition": job.edition, "role": role, "position": position}
    shown = [item["prompt"], item["tools"], item["candidates"]]
    row = item["row_id"].hex if item["row_id"] is not None else None
    item["item_id"] = fingerprint([job.name, round_name, role, item["of_item"], row, shown])
    return item


def key_of(item: Mapping[str, Any], adjudication: bool) -> str:
    """The key of the subject that an item was made of, as choosing knows it."""
    generations = [one["generation_id"] for one in item["candidates"] if one["generation_id"]]
    if adjudication:
        return str(item["of_item"])
    return "+".join(sorted(generations)) if generations else str(item["row_id"].hex)


def json_text(meta: Any) -> str | None:
    """What a query gave beside, as JSON text with sorted keys; null for nothing."""
    if not meta:
        return None
    return orjson.dumps(_plain(meta), option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
