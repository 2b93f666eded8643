"""Hits as evidence: where an item stands in a row and which part of it, with both texts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation import schema
from curation.contamination.classes import classes
from curation.contamination.facts import EVIDENCE, PLACE
from curation.contamination.index import Index
from curation.contamination.items import COMPONENTS
from curation.kernels.hits import answers_near, places
from curation.texts import FIELDS, PLAIN, Segments

SNIPPET_CHARS = 300


@dataclass(frozen=True)
class Batch:
    """The texts of candidate rows with their words."""

    texts: Segments
    words_W: npt.NDArray[np.uint64]
    at_W: npt.NDArray[np.int64]
    of_W: npt.NDArray[np.int32]
    first_word_N1: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hits:
    """H hits: candidates whose reference stands in the row. `chain_H` is -1, or where the number and the words of the
    hit begin in `chained`, for items in several places; `difference_H` is H x 10, see `differences`."""

    row_H: npt.NDArray[np.int32]
    ref_H: npt.NDArray[np.int32]
    score_H: npt.NDArray[np.float64]
    idf_H: npt.NDArray[np.float64]
    seeds_H: npt.NDArray[np.int32]
    first_H: npt.NDArray[np.int64]
    end_H: npt.NDArray[np.int64]
    chain_H: npt.NDArray[np.int64]
    chained: npt.NDArray[np.int64]
    difference_H: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Of which rows and benchmarks hits are: `row_ids` are those of the batch, `benchmarks` in the order of the
    index."""

    source: str
    stage: str
    benchmarks: tuple[str, ...]
    row_ids: pa.ChunkedArray


def evidence_of(hits: Hits, batch: Batch, index: Index, of: Places) -> pa.Table:
    """The evidence of the hits of a batch."""
    texts = batch.texts
    where = places(hits.first_H, hits.end_H, hits.chain_H, hits.chained, batch.at_W, batch.of_W, texts.data_B,
                   texts.start_S)  # fmt: skip
    bounds = np.searchsorted(where[:, 0], np.arange(len(hits.ref_H) + 1)).tolist()
    is_answer = index.component_R[hits.ref_H] == COMPONENTS.index("answer")
    answer_H = np.where(is_answer, -1, index.answer_R[hits.ref_H])
    near = answers_near(hits.row_H, hits.first_H, hits.end_H, answer_H, batch.words_W, batch.first_word_N1,
                        index.words_W, index.first_word_R1)  # fmt: skip
    longest = [max(range(first, end), key=lambda place: where[place, 3] - where[place, 2])
               for first, end in pairwise(bounds)]  # fmt: skip
    listed = [_place(place, texts) for place in where.tolist()]
    columns: dict[str, Any] = {
        "row_id": of.row_ids.take(pa.array(hits.row_H)), "source": [of.source] * len(bounds[1:]),
        "stage": [of.stage] * len(bounds[1:]), "class": classes(hits.score_H, hits.difference_H),
        "score": np.round(hits.score_H, 6), "method": ["alignment"] * len(bounds[1:]),
        "snippet": [_snippet(texts.data_B, *where[place, 2:4].tolist()) for place in longest],
        "further": [[listed[place] for place in range(first, end) if place != chief]
                    for (first, end), chief in zip(pairwise(bounds), longest, strict=True)],
        "seeds": hits.seeds_H, "seed_idf": np.round(hits.idf_H, 6), "answer_nearby": pa.array(near == 1, mask=near < 0),
    }  # fmt: skip
    columns |= {name: [listed[place][name] for place in longest] for name, _ in PLACE}
    columns |= _items(hits, index, of.benchmarks)
    return pa.table([_array(columns[field.name], field.type) for field in EVIDENCE], schema=EVIDENCE)


def _array(values: Any, of: pa.DataType) -> Any:
    return values.cast(of) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, of)


def _place(place: list[int], texts: Segments) -> dict[str, Any]:
    _, stretch, _, _, start, end = place
    turn, role = int(texts.turn_S[stretch]), int(texts.role_S[stretch])
    return {"text_column": texts.columns[texts.column_S[stretch]], "turn": None if turn == PLAIN else turn,
            "role": None if role == PLAIN else schema.ROLES[role], "field": FIELDS[texts.field_S[stretch]],
            "start_char": start, "end_char": end}  # fmt: skip


def _items(hits: Hits, index: Index, benchmarks: tuple[str, ...]) -> dict[str, Any]:
    """The columns that say which part of which item a hit is."""
    ref_H = hits.ref_H
    first_H = index.first_word_R1[ref_H]
    low_H = index.at_W[first_H + hits.difference_H[:, 6], 0]
    high_H = index.at_W[first_H + np.maximum(1, hits.difference_H[:, 7]) - 1, 1]
    before, inside = _decoded(index, index.text_R1[ref_H], low_H), _decoded(index, low_H, high_H)
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ref_H), [None, pa.py_buffer(index.row_id_R[ref_H])])
    return {"benchmark": [benchmarks[number] for number in index.benchmark_R[ref_H].tolist()],
            "item": pa.ExtensionArray.from_storage(schema.UUID, ids),
            "component": [COMPONENTS[number] for number in index.component_R[ref_H].tolist()],
            "item_start": [len(text) for text in before],
            "item_end": [len(one) + len(two) for one, two in zip(before, inside, strict=True)],
            "item_words": index.words_R[ref_H], "item_snippet": [text[:SNIPPET_CHARS] for text in inside]}  # fmt: skip


def _decoded(index: Index, start_H: npt.NDArray[np.int64], end_H: npt.NDArray[np.int64]) -> list[str]:
    return [bytes(index.data_B[start:end]).decode()
            for start, end in zip(start_H.tolist(), end_H.tolist(), strict=True)]  # fmt: skip


def _snippet(data_B: Any, begin: int, end: int) -> str:
    return bytes(data_B[begin : min(end, begin + 4 * SNIPPET_CHARS)]).decode(errors="ignore")[:SNIPPET_CHARS]
