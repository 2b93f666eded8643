"""Items and votes of a job -> comparisons of two candidates each, as arrays that every method of aggregation takes.

An item of two candidates is one comparison, one of k candidates k(k-1)/2. What a comparison's label means depends on no
slot: 0 the first key (in the order of keys) is better, 1 the second, 2 a tie, 3 both bad.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation import schema
from curation.annotation.records import BOTH_BAD, JUDGE, ROUNDS, SUBMITTED, TIE

FIRST, SECOND, EQUAL, BAD = range(4)
NUM_LABELS = 4
FRAMES = np.array([[FIRST, SECOND, EQUAL, BAD], [SECOND, FIRST, EQUAL, BAD]])  # frame 1: the second key is in slot A
VOTE_COLUMNS = ["item_id", "annotator", "kind", "status", "verdict", "ranking", "slots"]


class Shown(NamedTuple):
    """An item without its texts. `keys` are its candidates' in order, `nodes` who they are (16-byte hashes of their
    texts) and `context` the prompt they answer; `place` is its row in the table of items."""

    item_id: str
    round: str
    role: str
    of_item: str | None
    keys: tuple[str, ...]
    nodes: tuple[bytes, ...]
    context: bytes
    gold: str | None
    place: int


@dataclass(frozen=True)
class Comparisons:
    """C comparisons of I items, and V votes on them. `offsets_I1`: where the comparisons of an item begin.
    `first_C`, `second_C`: places among the item's keys. `labels_V`: as the comparison has them; `seen_V`: as the slots
    had them; `frames_V`: 1 where the second key stood before the first. `people`: names of the annotators."""

    items: Sequence[Shown]
    offsets_I1: NDArray[np.int64]
    item_C: NDArray[np.int64]
    first_C: NDArray[np.int64]
    second_C: NDArray[np.int64]
    comparison_V: NDArray[np.int64]
    annotators_V: NDArray[np.int64]
    labels_V: NDArray[np.int64]
    frames_V: NDArray[np.int64]
    people: Sequence[str]
    num_voters_I: NDArray[np.int64]

    @property
    def seen_V(self) -> NDArray[np.int64]:
        return FRAMES[self.frames_V, self.labels_V]

    @property
    def num_comparisons(self) -> int:
        return len(self.item_C)


def round_order(name: str) -> tuple[int, int]:
    """Rounds in the order in which they came to be: calibrations, then main rounds, each by number."""
    kind, _, number = name.partition("-")
    return ROUNDS.index(kind) if kind in ROUNDS else len(ROUNDS), int(number) if number.isdigit() else 0


def shown(items: pa.Table) -> list[Shown]:
    """Every item of a table (ITEMS), in its order."""
    items = items.combine_chunks()
    candidates = items["candidates"].combine_chunks() if items.num_rows else pa.array([], items["candidates"].type)
    counts = pc.list_value_length(candidates).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = candidates.flatten()
    keys = pc.struct_field(flat, "key").to_pylist()
    contexts, nodes = _hashes(items, flat, counts)
    names = ("item_id", "round", "role", "of_item", "gold")
    known = list(zip(*(items[name].to_pylist() for name in names), strict=True))
    ends = np.cumsum(counts)
    found = []
    for place in range(items.num_rows):
        mine = sorted(zip(keys[ends[place] - counts[place] : ends[place]],
                          nodes[ends[place] - counts[place] : ends[place]], strict=True))  # fmt: skip
        item_id, round_name, role, of_item, gold = known[place]
        found.append(Shown(item_id, round_name, role, of_item, tuple(key for key, _ in mine),
                           tuple(node for _, node in mine), contexts[place], gold, place))  # fmt: skip
    return found


def _hashes(items: pa.Table, flat: pa.Array, counts: NDArray[np.int64]) -> tuple[list[bytes], list[bytes]]:
    """(prompt and tools of every item, messages of every candidate) as 16 bytes each, equal as the measure
    pair_conflicts takes them to be equal: NFKC, white space folded."""
    from curation.measures.pair_conflicts import keys_of

    def hashed(prompt: Any, tools: Any, chosen: Any) -> pa.Table:
        size = len(chosen)
        ids = pa.ExtensionArray.from_storage(schema.UUID, pa.array([bytes(16)] * size, pa.binary(16)))
        absent = pa.nulls(size, schema.MESSAGES)
        return keys_of(pa.table({"row_id": ids, "prompt": prompt, "tools": tools, "chosen": chosen,
                                 "rejected": absent}))  # fmt: skip

    if not items.num_rows:
        return [], []
    blank = pa.array([[]] * items.num_rows, schema.MESSAGES)
    contexts = hashed(items["prompt"], items["tools"], blank)["context"]
    messages = pc.struct_field(flat, "messages")
    empty = pa.array([[]] * len(flat), schema.MESSAGES)
    told = hashed(empty, pa.nulls(len(flat), pa.string()), messages)["chosen"] if len(flat) else []
    nodes = [item.as_py().bytes if item.is_valid else bytes(16) for item in told]
    return [item.as_py().bytes for item in contexts], nodes


def counting(votes: pa.Table, item_ids: Collection[str], *, judges: bool, without: Collection[str] = ()
             ) -> list[dict[str, Any]]:  # fmt: skip
    """The submitted votes with a verdict on some items, of people (and judges), in their order; `votes` are VOTES, the
    current ones of each annotator (see `store.current`)."""
    wanted = pc.is_in(votes["item_id"], pa.array(sorted(item_ids), pa.string()))
    submitted = pc.equal(votes["status"], SUBMITTED)
    rows = votes.filter(pc.and_(wanted, submitted)).select(VOTE_COLUMNS).to_pylist()
    return [row for row in rows if (judges or row["kind"] != JUDGE) and row["annotator"] not in without
            and (row["verdict"] is not None or row["ranking"])]  # fmt: skip


def compare(items: Sequence[Shown], votes: Iterable[Mapping[str, Any]], of_item: Mapping[str, str], *,
            ignored: Collection[int] = ()) -> Comparisons:  # fmt: skip
    """The comparisons of `items`, with the votes on them. `of_item` gives the item that another one repeats or decides;
    of an annotator's votes on an item and its repetitions the last of `votes` counts, so that nobody votes twice. Votes
    whose label is `ignored` are left out; so are keys that an item does not have."""
    places = {item.item_id: place for place, item in enumerate(items)}
    sizes = np.array([len(item.keys) * (len(item.keys) - 1) // 2 for item in items], np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    pairs = [pair for item in items for pair in itertools.combinations(range(len(item.keys)), 2)]
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    chosen: dict[tuple[int, str], Mapping[str, Any]] = {}
    for vote in votes:
        place = places.get(of_item.get(vote["item_id"], vote["item_id"]))
        if place is not None:
            chosen[place, vote["annotator"]] = vote
    people = sorted({name for _, name in chosen})
    numbers = {name: number for number, name in enumerate(people)}
    found: list[tuple[int, int, int, int]] = []
    voters = np.zeros(len(items), np.int64)
    for (place, name), vote in sorted(chosen.items(), key=lambda entry: entry[0]):
        told = [(int(offsets[place]) + number, numbers[name], label, frame)
                for number, label, frame in _labels(items[place].keys, vote) if label not in ignored]  # fmt: skip
        voters[place] += bool(told)
        found += told
    table = np.array(found, np.int64).reshape(-1, 4)
    return Comparisons(items, offsets, np.repeat(np.arange(len(items)), sizes), ends[:, 0], ends[:, 1], table[:, 0],
                       table[:, 1], table[:, 2], table[:, 3], people, voters)  # fmt: skip


def _labels(keys: Sequence[str], vote: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(number of the comparison inside the item, label, frame) of one vote. A ranking tells about all pairs, a verdict
    about those of the key that it names; of two candidates the verdict alone counts."""
    slots = {key: place for place, key in enumerate(vote["slots"] or ())}
    verdict = vote["verdict"]
    ranks = {item["key"]: item["rank"] for item in vote["ranking"] or () if item["rank"] is not None}
    found = []
    for number, (first, second) in enumerate(itertools.combinations(keys, 2)):
        label = None
        if verdict == BOTH_BAD:
            label = BAD
        elif len(keys) > 2 and first in ranks and second in ranks:
            label = int(np.sign(ranks[first] - ranks[second]))
            label = (FIRST, EQUAL, SECOND)[label + 1]
        elif verdict in (first, second):
            label = FIRST if verdict == first else SECOND
        elif verdict == TIE:
            label = EQUAL
        if label is not None:
            found.append((number, label, int(slots.get(first, 0) > slots.get(second, 1))))
    return found
