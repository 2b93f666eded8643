"""The items that people disagree on most, as a reader sees them: the prompt, the candidates side by side, who voted
what and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.annotation.records import DISCARDED, PERSON, SUBMITTED
from curation.annotation.report_counts import first_items
from curation.measures._secrets import without_secrets

NUM_WORST = 12
OPEN_CHARS = 900  # of a text that are shown at once
MOST_CHARS = 20_000  # of a conversation that are in the page at all
SECRET_CHARS = 4_000  # beyond what is shown that are searched for a secret of which it would show a piece
FIELDS = ("reasoning", "content", "tool_calls")


def worst(items: pa.Table, votes: pa.Table, resolved: pa.Table, count: int = NUM_WORST) -> list[dict[str, Any]]:
    """At most `count` items on which people disagree, the least agreement first, then the most votes: an item's
    identity, outcome, `agreement` (share of pairs of voters with the same verdict, 0..1), `prompt` and `candidates`
    (in the order of their keys, whatever slot they stood in) and every vote with its slot and reasons."""
    first = first_items(items)
    about: dict[str, list[dict[str, Any]]] = {}
    names = [name for name in votes.column_names if name not in ("row_id", "edition", "values")]
    for vote in votes.select(names).to_pylist():
        if vote["status"] in (SUBMITTED, DISCARDED) and vote["item_id"] in first:
            about.setdefault(first[vote["item_id"]], []).append(vote)
    ranked = sorted((share, -num_votes, item) for item, given in about.items()
                    for share, num_votes in [agreed_share(given)] if share is not None and share < 1)  # fmt: skip
    shown = [item for _, _, item in ranked[:count]]
    places = pc.filter(pa.array(range(items.num_rows)), pc.is_in(items["item_id"], pa.array(shown, pa.string())))
    rows = {row["item_id"]: row for row in items.take(places).to_pylist()}
    of = {row["item_id"]: row for row in resolved.to_pylist() if row["item_id"] in rows}
    return [_told(rows[item], about[item], of.get(item), share) for share, _, item in ranked[:count]]


def agreed_share(votes: Iterable[Mapping[str, Any]]) -> tuple[float | None, int]:
    """(share of pairs of different people whose submitted verdicts are the same, number of such votes); no share
    under two. Of a person's answers to an item and its retest each pair with another's counts."""
    given = [(vote["annotator"], vote["verdict"]) for vote in votes
             if vote["kind"] == PERSON and vote["status"] == SUBMITTED and vote["verdict"] is not None]  # fmt: skip
    pairs = _pairs(Counter(name for name, _ in given), len(given))
    same = sum(_pairs(Counter(name for name, said in given if said == verdict), count)
               for verdict, count in Counter(said for _, said in given).items())  # fmt: skip
    return (same / pairs if pairs else None), len(given)


def _pairs(by_person: Mapping[str, int], count: int) -> int:
    """Pairs of votes of different people among `count` votes."""
    return (count**2 - sum(number**2 for number in by_person.values())) // 2


def _told(item: Mapping[str, Any], votes: list[dict[str, Any]], outcome: Mapping[str, Any] | None, share: float
          ) -> dict[str, Any]:  # fmt: skip
    votes = sorted(votes, key=lambda vote: (vote["kind"] != PERSON, vote["annotator"], vote["answered_at"] or "",
                                            vote["item_id"]))  # fmt: skip
    candidates = sorted(item["candidates"] or [], key=lambda candidate: candidate["key"])
    said = Counter(vote["verdict"] for vote in votes
                   if (vote["kind"], vote["status"]) == (PERSON, SUBMITTED) and vote["verdict"])  # fmt: skip
    return {
        "item_id": item["item_id"], "round": item["round"], "role": item["role"], "source": item["source"],
        "topic": item["topic"], "row_id": item["row_id"].hex if item["row_id"] else None,
        "gold": item["gold"], "outcome": outcome["outcome"] if outcome else None,
        "verdict": outcome["chosen"] if outcome else None, "agreement": share, "said": dict(sorted(said.items())),
        "prompt": turns(item["prompt"]),
        "candidates": [{"key": one["key"], "model": one["model"], "votes": said[one["key"]],
                        "turns": turns(one["messages"])} for one in candidates],
        "votes": [_vote(vote, item["item_id"]) for vote in votes],
    }  # fmt: skip


def _vote(vote: Mapping[str, Any], item_id: str) -> dict[str, Any]:
    slots = vote["slots"] or []
    place = slots.index(vote["verdict"]) if vote["verdict"] in slots else None
    return {
        "annotator": vote["annotator"], "kind": vote["kind"], "status": vote["status"], "verdict": vote["verdict"],
        "slot": None if place is None else letter(place), "again": vote["item_id"] != item_id, "round": vote["round"],
        "ranking": ranked(vote["ranking"] or []) if len(vote["ranking"] or []) > 2 else None,
        "ratings": [[rating["question"], rating["key"], rating["value"]] for rating in vote["ratings"] or []],
        "texts": [[text["question"], text["key"], *_split(text["text"] or "")] for text in vote["texts"] or []],
        "flags": list(vote["flags"] or []), "seconds": vote["seconds"],
    }  # fmt: skip


def letter(place: int) -> str:
    """The slot's letter: 0 is A."""
    return chr(ord("A") + place) if place < 26 else f"slot {place + 1}"


def ranked(ranking: Sequence[Mapping[str, Any]]) -> str:
    """`b > a = c`: keys by rank, equal ranks in the order of their keys."""
    by_rank: dict[int, list[str]] = {}
    for place in ranking:
        by_rank.setdefault(place["rank"], []).append(place["key"])
    return " > ".join(" = ".join(sorted(by_rank[rank])) for rank in sorted(by_rank))


def turns(messages: Sequence[Mapping[str, Any]] | None) -> list[dict[str, str]]:
    """The texts of a conversation in reading order: place, `text` that is shown at once and `more` that is folded."""
    found, room = [], MOST_CHARS
    for message in messages or ():
        for field in FIELDS:
            if message.get(field):
                place = message["role"] if field == "content" else f"{message['role']} ({field.replace('_', ' ')})"
                text, more = _split(message[field], room)
                room = max(0, room - len(message[field]))
                found.append({"place": place, "text": text, "more": more})
    return found


def _split(text: str, room: int = MOST_CHARS) -> tuple[str, str]:
    """(what is shown at once, what is folded); keys and passwords are named by their kind, and what would swell the
    page, beyond `room` characters, is counted in place of being shown."""
    left = len(text) - room
    shown = without_secrets(text[: room + SECRET_CHARS])[:room]
    if left > 0:
        shown = f"{shown} [... {left:,} characters more ...]".lstrip(" ")
    if len(shown) <= OPEN_CHARS * 4 // 3:
        return shown, ""
    cut = max(shown.rfind(" ", OPEN_CHARS // 2, OPEN_CHARS), shown.rfind("\n", OPEN_CHARS // 2, OPEN_CHARS))
    cut = cut if cut > 0 else OPEN_CHARS
    return shown[:cut], shown[cut:]
