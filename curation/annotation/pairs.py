"""Resolved votes and written answers -> records that become rows: pairs with their lineage, and answers for SFT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curation.annotation.comparing import round_order
from curation.annotation.records import JUDGE, SUBMITTED
from curation.annotation.rendering import plain
from curation.annotation.resolution_files import Resolution
from curation.annotation.resolving import Decision, Resolved, wanted

ORIGINAL, EDITED, WRITTEN = "original", "edited", "written"
Record = dict[str, Any]


class Written(NamedTuple):
    """What annotators wrote: `answers` (records for SFT), `pairs` of an edited answer with the original, and how many
    answers were written, edited, and left as they were."""

    answers: list[Record]
    pairs: list[Record]
    num_written: int
    num_edited: int
    num_unchanged: int


def pair_records(items: pa.Table, votes: pa.Table, resolved: Resolved, resolution: Resolution
                 ) -> tuple[list[Record], int]:  # fmt: skip
    """(a record for every decided pair that `resolution.pairs` asks for, in the order of the items; how many have no
    texts, being votes on answers that were not imported). `margin` is that of the votes where it is above zero: where a
    better informed method or an adjudicator went against the majority, the votes are no measure of the difference."""
    extras = opinions(votes, resolved.places.keys(), resolution)
    order = [item for item, decisions in resolved.pairs.items() if decisions]
    rows = items.take(pa.array([resolved.places[item] for item in order], pa.int64())).to_pylist()
    outcomes = dict(zip(resolved.table["item_id"].to_pylist(), resolved.table["outcome"].to_pylist(), strict=True))
    records, silent = [], 0
    for item in rows:
        candidates = {one["key"]: one for one in item["candidates"]}
        for decision in _asked(resolved.pairs[item["item_id"]], outcomes[item["item_id"]], resolution.pairs):
            sides = [candidates[key] for key in (decision.chosen, decision.rejected)]
            if not item["prompt"] or not all(side["messages"] for side in sides):
                silent += 1
                continue
            records.append(_pair(item, sides, _facts(decision, resolution.method)
                                 | _of_sides(extras.get(item["item_id"], {}), sides)))  # fmt: skip
    return records, silent


def _asked(decisions: Sequence[Decision], outcome: str, pairs: str) -> Sequence[Decision]:
    """Those of an item's decided pairs that are wanted; the first is the best with the worst, where that is decided."""
    if pairs == "all":
        return decisions
    if outcome != "pair":
        return ()
    best = decisions[0].chosen
    return [one for one in decisions if one.chosen == best] if pairs == "best_rest" else decisions[:1]


def _facts(decision: Decision, method: str) -> Record:
    return {"method": method, "votes": decision.num_votes, "votes_for_chosen": decision.for_chosen,
            "votes_for_rejected": decision.for_rejected, "agreement": decision.agreement,
            "confidence": decision.confidence, "vote_margin": decision.margin,
            "adjudicated": decision.adjudicated,
            "margin": decision.margin if (decision.margin or 0) > 0 else None}  # fmt: skip


def _pair(item: Mapping[str, Any], sides: Sequence[Mapping[str, Any]], facts: Record) -> Record:
    """A record of the shape `preference`: the messages as they are, and where everything came from."""
    told: Record = {"prompt": messages_of(item["prompt"]), "tools": item["tools"]} | _origin(item) | facts
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        told |= {name: messages_of(side["messages"]), f"{name}_key": side["key"], f"{name}_model": side["model"],
                 f"{name}_generation": side["generation_id"]}  # fmt: skip
    return {key: value for key, value in told.items() if value is not None}


def _origin(item: Mapping[str, Any]) -> Record:
    return {"item_id": item["item_id"], "job": item["job"], "round": item["round"], "edition": item["edition"],
            "row_id": None if item["row_id"] is None else item["row_id"].hex, "source": item["source"],
            "topic": item["topic"]}  # fmt: skip


def messages_of(turns: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Messages as a JSON Lines file has them: without nulls, tool calls as objects. Read again they are the same."""
    return [{key: orjson.loads(value) if key == "tool_calls" else value for key, value in turn.items()
             if value is not None} for turn in turns]  # fmt: skip


def opinions(votes: pa.Table, item_ids: Iterable[str], resolution: Resolution) -> dict[str, Record]:
    """By item: the mean `ratings` (by question and key) and how many voters set each of the `flags`."""
    sums: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    flags: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for vote in _votes_on(votes, item_ids, resolution, ["ratings", "flags"]):
        for rating in vote["ratings"] or ():
            if rating["value"] is not None:
                sums[vote["item_id"]][rating["question"], rating["key"] or ""].append(rating["value"])
        for flag in vote["flags"] or ():
            flags[vote["item_id"]][flag] += 1
    found: dict[str, Record] = {}
    for item, by_key in sums.items():
        means = {key: round(sum(values) / len(values), 4) for key, values in by_key.items()}
        found[item] = {"ratings": means}
    for item, counts in flags.items():
        found.setdefault(item, {})["flags"] = dict(sorted(counts.items()))
    return found


def _of_sides(found: Mapping[str, Any], sides: Sequence[Mapping[str, Any]]) -> Record:
    """Ratings and flags of an item, told of the two sides of a pair (and of the item, where no side was rated)."""
    names = {side["key"]: name for name, side in zip(("chosen", "rejected"), sides, strict=True)} | {"": "item"}
    ratings: dict[str, dict[str, float]] = {}
    for (question, key), mean in sorted(found.get("ratings", {}).items()):
        if key in names:
            ratings.setdefault(question, {})[names[key]] = mean
    return {"ratings": ratings or None, "flags": found.get("flags")}


def _votes_on(votes: pa.Table, item_ids: Iterable[str], resolution: Resolution, columns: list[str]) -> list[Record]:
    """The submitted votes on some items that count under a resolution, with `columns`, in their order."""
    wanted_ids = pc.is_in(votes["item_id"], pa.array(sorted(item_ids), pa.string()))
    rows = votes.filter(pc.and_(wanted_ids, pc.equal(votes["status"], SUBMITTED)))
    found: list[Record] = rows.select(["item_id", "annotator", "kind", *columns]).to_pylist()
    return [row for row in found if (resolution.judges or row["kind"] != JUDGE)
            and row["annotator"] not in resolution.without]  # fmt: skip


def written_records(items: pa.Table, votes: pa.Table, asked: Mapping[str, Sequence[str]], resolution: Resolution
                    ) -> Written:  # fmt: skip
    """What annotators wrote in the rounds of a resolution: every answer is a record for SFT, and an edited one a pair
    with the original besides. `asked` names the questions that ask for an answer, by round. An answer that was left as
    it is stays an SFT record, and is no pair. The reasoning of an original of one message stays with its edited
    version, since annotators edit the words alone."""
    rows = items.filter(pc.equal(items["job"], resolution.job)).to_pylist()
    mine = {row["item_id"]: row for row in rows if wanted(row["round"], resolution.rounds) and row["prompt"]
            and row["role"] == "item" and row["of_item"] is None and asked.get(row["round"])}  # fmt: skip
    places = {item: (round_order(row["round"]), row["position"], item) for item, row in mine.items()}
    found = Written([], [], 0, 0, 0)
    counts = {WRITTEN: 0, EDITED: 0, "unchanged": 0}
    cast = _votes_on(votes, mine.keys(), resolution, ["texts"])
    for vote in sorted(cast, key=lambda vote: (*places[vote["item_id"]], vote["annotator"])):
        item = mine[vote["item_id"]]
        text = next((one["text"] for one in vote["texts"] or () if one["question"] in asked[item["round"]]
                     and (one["text"] or "").strip()), None)  # fmt: skip
        if text is None:
            continue
        original = item["candidates"][0] if len(item["candidates"]) == 1 else None
        answer, how = _answer(text, original)
        counts[how] += 1
        facts = _origin(item) | {"annotator": vote["annotator"], "answer_is": how}
        whole = [*messages_of(item["prompt"]), *answer]
        record = {"messages": whole, "tools": item["tools"]} | facts
        found.answers.append({key: value for key, value in record.items() if value is not None})
        if how == EDITED and original is not None:
            new = {"key": EDITED, "messages": answer, "model": None, "generation_id": None}
            found.pairs.append(_pair(item, [new, original], facts | {"method": EDITED}))
    return found._replace(num_written=counts[WRITTEN], num_edited=counts[EDITED], num_unchanged=counts["unchanged"])


def _answer(text: str, original: Mapping[str, Any] | None) -> tuple[list[Record], str]:
    """(messages of an answer, how it came to be)."""
    if original is None:
        return [{"role": "assistant", "content": text}], WRITTEN
    turns = messages_of(original["messages"])
    if text == plain(original["messages"]):
        return turns, "unchanged"
    kept = turns[0] if len(turns) == 1 and turns[0]["role"] == "assistant" else {"role": "assistant"}
    return [kept | {"content": text}], EDITED


def as_lines(records: Iterable[Record]) -> bytes:
    """Records as JSON Lines, keys sorted: the same records are the same bytes."""
    return b"".join(orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE) for record in records)
