"""Items and votes as arrays: what every figure over annotators is computed from.

Axes: V submitted votes that count, I items, A annotators, L labels, K candidates of the item that has most, N answers
to one question, U units of it. Items stand in the order of their ids, annotators of their names, votes of both, so that
the same votes give the same arrays however the tables were ordered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.annotation.records import BOTH_BAD, DISCARDED, DRAFT, JUDGE, SUBMITTED, TIE
from curation.annotation.store import current
from curation.errors import UserError

VERDICT, RANKING, FLAGS = "verdict", "ranking", "flags"
NOMINAL, ORDINAL = "nominal", "ordinal"


@dataclass(frozen=True)
class Answers:
    """N answers to one question about U units: an item, or a candidate of an item, or a flag at an item. `values` is
    what the codes in `values_N` mean, ascending; numbers where the level is ordinal."""

    question: str
    level: str
    units_N: NDArray[np.int64]
    annotators_N: NDArray[np.int64]
    values_N: NDArray[np.int64]
    items_U: NDArray[np.int64]
    values: tuple[Any, ...]

    def of(self, keep_N: NDArray[np.bool_]) -> Answers:
        """These answers alone; units without one stay, and count nowhere."""
        return Answers(self.question, self.level, self.units_N[keep_N], self.annotators_N[keep_N],
                       self.values_N[keep_N], self.items_U, self.values)  # fmt: skip


@dataclass(frozen=True)
class VoteArrays:
    """The last submitted vote of every annotator on every item, as arrays.

    A label is the place of the verdict's key among the item's keys in ascending order; `tie` and `both_bad` are the two
    labels after the candidates of the item that has most (2 and 3 where every item has two). -1 stands for what is
    unknown or was not answered: labels, slots, gold. `first_V` is the label of the candidate that stood in slot A.
    `lengths_IK` are characters per candidate by label, NaN beyond the item's own."""

    item_ids: tuple[str, ...]
    annotators: tuple[str, ...]
    label_names: tuple[str, ...]
    items_V: NDArray[np.int64]
    annotators_V: NDArray[np.int64]
    labels_V: NDArray[np.int64]
    slots_V: NDArray[np.int64]
    first_V: NDArray[np.int64]
    seconds_V: NDArray[np.float64]
    times_V: NDArray[np.datetime64]
    candidates_I: NDArray[np.int64]
    lengths_IK: NDArray[np.float64]
    shown_chars_I: NDArray[np.int64]
    position_I: NDArray[np.int64]
    source_I: NDArray[np.object_]
    topic_I: NDArray[np.object_]
    round_I: NDArray[np.object_]
    edition_I: NDArray[np.object_]
    role_I: NDArray[np.object_]
    gold_I: NDArray[np.int64]
    of_item_I: NDArray[np.int64]
    judge_A: NDArray[np.bool_]
    discarded_A: NDArray[np.int64]
    drafts_A: NDArray[np.int64]
    answers: dict[str, Answers]

    @property
    def tie(self) -> int:
        return len(self.label_names) - 2

    @property
    def both_bad(self) -> int:
        return len(self.label_names) - 1

    @property
    def counted_I(self) -> NDArray[np.bool_]:
        """Items that count for agreement: no retests, whose votes repeat the same annotators', and no adjudications,
        which decide what others left open."""
        settling = np.array([name.startswith("adjudication") for name in self.round_I], dtype=bool)
        return (self.role_I != "retest") & ~settling

    def answered_order(self) -> NDArray[np.int64]:
        """The places of all votes in the order in which they were answered; those of unknown time in the order of the
        items' positions, last."""
        return np.lexsort((self.items_V, self.position_I[self.items_V], self.times_V))


def arrays(items: pa.Table, votes: pa.Table) -> VoteArrays:
    """The arrays of ITEMS and VOTES (annotation.records). Of every annotator's answers to an item the last counts, and
    only where it is submitted; discards and drafts are counted per annotator. Votes on other items count nowhere.
    Raises UserError where a vote names a candidate that its item does not have."""
    items = items.take(pa.array(np.argsort(np.array(items["item_id"].to_pylist(), dtype=str), kind="stable")))
    ids = np.array(items["item_id"].to_pylist(), dtype=str)
    last = current(votes)
    places = _places(ids, last["item_id"])
    last = last.filter(pa.array(places >= 0, pa.bool_()))
    annotators, of_last = np.unique(_text(last["annotator"]), return_inverse=True)
    judge, status = _text(last["kind"]) == JUDGE, _text(last["status"])
    submitted = last.filter(pa.array(status == SUBMITTED, pa.bool_()))
    order = np.lexsort((of_last[status == SUBMITTED], _places(ids, submitted["item_id"])))
    submitted = submitted.take(pa.array(order))
    items_V, annotators_V = _places(ids, submitted["item_id"]), of_last[status == SUBMITTED][order].astype(np.int64)
    keys = _keys(items)
    labels_V = _labels(keys, items_V, submitted["verdict"])
    slots_V, first_V = _slots(keys, submitted, items_V, labels_V)
    names = _label_names(keys)
    return VoteArrays(
        tuple(ids.tolist()), tuple(annotators.tolist()), names, items_V, annotators_V, labels_V, slots_V, first_V,
        submitted["seconds"].combine_chunks().to_numpy(zero_copy_only=False).astype(float),
        _times(submitted["answered_at"]), keys.counts_I, keys.lengths_IK,
        (np.nansum(keys.lengths_IK, axis=1) + _chars(items["prompt"].combine_chunks(), len(ids))).astype(np.int64),
        items["position"].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64),
        _objects(items["source"]), _objects(items["topic"]), _objects(items["round"]), _objects(items["edition"]),
        _objects(items["role"]), _labels(keys, np.arange(len(ids)), items["gold"]), _places(ids, items["of_item"]),
        np.bincount(of_last, weights=judge, minlength=len(annotators)) > 0,
        np.bincount(of_last[status == DISCARDED], minlength=len(annotators)),
        np.bincount(of_last[status == DRAFT], minlength=len(annotators)),
        _answers(keys, submitted, items_V, annotators_V, labels_V, names),
    )  # fmt: skip


def _text(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array(pc.fill_null(column, "").to_pylist(), dtype=str)


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.array(pc.fill_null(column, "").to_pylist(), dtype=object)


def _places(sorted_S: NDArray[np.str_], column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each name stands among the sorted ones; -1 for null and for one that is not there."""
    names = _text(column)
    if not len(sorted_S) or not len(names):
        return np.full(len(names), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(sorted_S, names), len(sorted_S) - 1)
    return np.where(sorted_S[at] == names, at, -1).astype(np.int64)


def _times(column: pa.ChunkedArray) -> NDArray[np.datetime64]:
    """Whole seconds, UTC; NaT where there is no ISO 8601 time."""
    text = pc.utf8_slice_codeunits(column, 0, 19)
    well = pc.match_substring_regex(text, r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d$")
    kept = [value if good else None for value, good in zip(text.to_pylist(), well.to_pylist(), strict=True)]
    return np.array([value or "NaT" for value in kept], dtype="datetime64[s]")


def _chars(messages: pa.Array, size: int) -> NDArray[np.float64]:
    """Characters of content and reasoning of `size` lists of messages."""
    flat = pc.list_flatten(messages)
    total = np.zeros(len(flat))
    for name in ("content", "reasoning"):
        total += pc.fill_null(pc.utf8_length(pc.struct_field(flat, name)), 0).to_numpy(zero_copy_only=False)
    return np.asarray(np.bincount(pc.list_parent_indices(messages).to_numpy(), total, minlength=size), dtype=float)


class _Keys(NamedTuple):
    """The candidates' keys of all items. `pairs_C` are (item, key) of every candidate as one ascending number,
    `ranks_C` their labels in the item."""

    keys: NDArray[np.str_]
    pairs_C: NDArray[np.int64]
    ranks_C: NDArray[np.int64]
    counts_I: NDArray[np.int64]
    lengths_IK: NDArray[np.float64]


def _keys(items: pa.Table) -> _Keys:
    candidates = items["candidates"].combine_chunks()
    flat = pc.list_flatten(candidates)
    of_item = pc.list_parent_indices(candidates).to_numpy().astype(np.int64)
    keys, number = np.unique(np.array(pc.struct_field(flat, "key").to_pylist(), dtype=str), return_inverse=True)
    counts = np.bincount(of_item, minlength=items.num_rows).astype(np.int64)
    order = np.lexsort((number, of_item))
    ranks = np.arange(len(order)) - (np.cumsum(counts) - counts)[of_item[order]]
    lengths = np.full((items.num_rows, max(2, int(counts.max(initial=0)))), np.nan)
    lengths[of_item[order], ranks] = _chars(pc.struct_field(flat, "messages"), len(flat))[order]
    return _Keys(keys, of_item[order] * max(1, len(keys)) + number[order], ranks, counts, lengths)


def _ranks(of: _Keys, items_N: NDArray[np.int64], names: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Labels of keys; -1 where the item has no such candidate."""
    number = _places(of.keys, names)
    wanted = items_N * max(1, len(of.keys)) + number
    if not len(of.pairs_C) or not len(wanted):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(of.pairs_C, wanted), len(of.pairs_C) - 1)
    return np.where((of.pairs_C[at] == wanted) & (number >= 0), of.ranks_C[at], -1).astype(np.int64)


def _labels(of: _Keys, items_N: NDArray[np.int64], names: pa.ChunkedArray) -> NDArray[np.int64]:
    """Labels of verdicts; -1 for null. Raises UserError for a key that the item does not have."""
    text, found, width = _text(names), _ranks(of, items_N, names), of.lengths_IK.shape[1]
    unknown = (found < 0) & (text != "") & (text != TIE) & (text != BOTH_BAD)
    if unknown.any():
        raise UserError(f"{int(unknown.sum())} verdicts name a candidate that their item does not have, for example "
                        f"'{text[unknown][0]}'", "name one of the item's candidates, 'tie' or 'both_bad'")  # fmt: skip
    return np.where(text == TIE, width, np.where(text == BOTH_BAD, width + 1, found))


def _label_names(of: _Keys) -> tuple[str, ...]:
    """What the labels are called: the keys where all items have the same ones."""
    width = of.lengths_IK.shape[1]
    same = len(of.keys) == width and bool((of.counts_I == width).all())
    return (*(of.keys.tolist() if same else [f"candidate {number + 1}" for number in range(width)]), TIE, BOTH_BAD)


def _slots(keys: _Keys, votes: pa.Table, items_V: NDArray[np.int64], labels_V: NDArray[np.int64]
           ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """(the slot in which the verdict's candidate stood, the label of the candidate in slot A); -1 where unknown."""
    shown = votes["slots"].combine_chunks()
    of_vote = pc.list_parent_indices(shown).to_numpy().astype(np.int64)
    labels = _ranks(keys, items_V[of_vote], pc.list_flatten(shown))
    begins = np.searchsorted(of_vote, np.arange(len(items_V)))
    slot = np.arange(len(of_vote)) - begins[of_vote]
    slots_V, first_V = np.full(len(items_V), -1, dtype=np.int64), np.full(len(items_V), -1, dtype=np.int64)
    chosen = (labels == labels_V[of_vote]) & (labels >= 0)
    slots_V[of_vote[chosen]] = slot[chosen]
    first_V[of_vote[slot == 0]] = labels[slot == 0]
    return slots_V, first_V


def _answers(keys: _Keys, votes: pa.Table, items_V: NDArray[np.int64], annotators_V: NDArray[np.int64],
             labels_V: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Answers]:  # fmt: skip
    """Answers by question: the verdict, the ranking (a unit is a candidate), every rating, the flags (a unit is a flag
    at an item, 0 or 1). Questions that nobody answered are not there."""
    found: dict[str, Answers] = {}
    if (given := labels_V >= 0).any():
        every = np.arange(len(keys.counts_I), dtype=np.int64)
        found[VERDICT] = Answers(VERDICT, NOMINAL, items_V[given], annotators_V[given], labels_V[given], every, names)
    for column, question in (("ranking", RANKING), ("ratings", None)):
        lists = votes[column].combine_chunks()
        of, flat = pc.list_parent_indices(lists).to_numpy().astype(np.int64), pc.list_flatten(lists)
        values = pc.struct_field(flat, "rank" if question else "value")
        asked = np.full(len(of), question) if question else _text(pc.struct_field(flat, "question"))
        there = np.array(pc.is_valid(values).to_pylist(), dtype=bool)
        for name in np.unique(asked[there]).tolist():
            at = there & (asked == name)
            found[name] = _numbers(name, items_V[of[at]], annotators_V[of[at]],
                                   _text(pc.struct_field(flat, "key"))[at],
                                   np.array(values.filter(pa.array(at)).to_pylist(), dtype=np.int64))  # fmt: skip
    if flagged := _flags(votes, items_V, annotators_V):
        found[FLAGS] = flagged
    return found


def _numbers(question: str, items_N: NDArray[np.int64], annotators_N: NDArray[np.int64], keys_N: NDArray[np.str_],
             values_N: NDArray[np.int64]) -> Answers:  # fmt: skip
    """An ordinal question about candidates, or about items where there is no key."""
    _, key = np.unique(keys_N, return_inverse=True)
    units, of_unit = np.unique(items_N * (key.max() + 1) + key, return_inverse=True)
    values, codes = np.unique(values_N, return_inverse=True)
    return Answers(question, ORDINAL, of_unit.astype(np.int64), annotators_N, codes.astype(np.int64),
                   units // (key.max() + 1), tuple(values.tolist()))  # fmt: skip


def _flags(votes: pa.Table, items_V: NDArray[np.int64], annotators_V: NDArray[np.int64]) -> Answers | None:
    """Every vote that was asked for flags says 0 or 1 to each flag that anyone raised."""
    lists = votes["flags"].combine_chunks()
    names, number = np.unique(_text(pc.list_flatten(lists)), return_inverse=True)
    asked = np.flatnonzero(np.array(pc.is_valid(lists).to_pylist(), dtype=bool))
    if not len(names):
        return None
    raised_VF = np.zeros((len(items_V), len(names)), dtype=np.int64)
    raised_VF[pc.list_parent_indices(lists).to_numpy(), number] = 1
    units, of_unit = np.unique(items_V[asked][:, None] * len(names) + np.arange(len(names)), return_inverse=True)
    return Answers(FLAGS, NOMINAL, of_unit.ravel().astype(np.int64), np.repeat(annotators_V[asked], len(names)),
                   raised_VF[asked].ravel(), units // len(names), (0, 1))  # fmt: skip
