"""Hits as evidence: where an item stands in a row and which part of it, with both texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation import schema
from curation.contamination.classes import classes
from curation.contamination.facts import EVIDENCE, PLACE
from curation.contamination.index import Index
from curation.contamination.items import COMPONENTS
from curation.kernels.hits import answers_near, characters, places, snippets
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
    texts, num_hits = batch.texts, len(hits.ref_H)
    where = places(hits.first_H, hits.end_H, hits.chain_H, hits.chained, batch.at_W, batch.of_W, texts.data_B,
                   texts.start_S)  # fmt: skip
    by_length = np.lexsort((where[:, 2] - where[:, 3], where[:, 0]))  # of equally long ones the first
    chief_H = by_length[np.searchsorted(where[:, 0], np.arange(num_hits))]
    is_answer = index.component_R[hits.ref_H] == COMPONENTS.index("answer")
    answer_H = np.where(is_answer, -1, index.answer_R[hits.ref_H])
    near = answers_near(hits.row_H, hits.first_H, hits.end_H, answer_H, batch.words_W, batch.first_word_N1,
                        index.words_W, index.first_word_R1)  # fmt: skip
    columns: dict[str, Any] = {
        "row_id": of.row_ids.take(pa.array(hits.row_H)), "source": pa.repeat(of.source, num_hits),
        "stage": pa.repeat(of.stage, num_hits), "class": classes(hits.score_H, hits.difference_H),
        "score": np.round(hits.score_H, 6), "method": pa.repeat("alignment", num_hits),
        "snippet": _snippets(texts.data_B, where[chief_H, 2], where[chief_H, 3]),
        "further": _further(where, chief_H, texts), "seeds": hits.seeds_H, "seed_idf": np.round(hits.idf_H, 6),
        "answer_nearby": pa.array(near == 1, mask=near < 0),
    }  # fmt: skip
    columns |= _places(where[chief_H], texts)
    columns |= _items(hits, index, of.benchmarks)
    return pa.table([_array(columns[field.name], field.type) for field in EVIDENCE], schema=EVIDENCE)


def _array(values: Any, of: pa.DataType) -> Any:
    return values.cast(of) if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, of)


def _named(names: Sequence[str], numbers: npt.NDArray[Any]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(numbers))


def _places(where: npt.NDArray[np.int64], texts: Segments) -> dict[str, pa.Array]:
    """The columns PLACE of rows of `places`."""
    stretch = where[:, 1]
    turn, role = texts.turn_S[stretch], texts.role_S[stretch]
    roles = pa.array(role, pa.int8(), mask=role == PLAIN)
    return {"text_column": _named(texts.columns, texts.column_S[stretch]),
            "turn": pa.array(turn, pa.int32(), mask=turn == PLAIN), "role": pa.array(schema.ROLES).take(roles),
            "field": _named(FIELDS, texts.field_S[stretch]), "start_char": pa.array(where[:, 4]),
            "end_char": pa.array(where[:, 5])}  # fmt: skip


def _further(where: npt.NDArray[np.int64], chief_H: npt.NDArray[np.int64], texts: Segments) -> pa.Array:
    """Per hit its places but the chief one."""
    others = np.delete(where, chief_H, axis=0)
    ends = np.searchsorted(others[:, 0], np.arange(len(chief_H) + 1)).astype(np.int32)
    columns = _places(others, texts)
    found = pa.StructArray.from_arrays([columns[name] for name, _ in PLACE], fields=[pa.field(*each) for each in PLACE])
    return pa.ListArray.from_arrays(pa.array(ends), found)


def _items(hits: Hits, index: Index, benchmarks: tuple[str, ...]) -> dict[str, Any]:
    """The columns that say which part of which item a hit is."""
    ref_H = hits.ref_H
    first_H = index.first_word_R1[ref_H]
    text_H = index.text_R1[ref_H]
    low_H = index.at_W[first_H + hits.difference_H[:, 6], 0].astype(np.int64)
    high_H = index.at_W[first_H + np.maximum(1, hits.difference_H[:, 7]) - 1, 1].astype(np.int64)
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ref_H), [None, pa.py_buffer(index.row_id_R[ref_H])])
    return {"benchmark": _named(benchmarks, index.benchmark_R[ref_H]),
            "item": pa.ExtensionArray.from_storage(schema.UUID, ids),
            "component": _named(COMPONENTS, index.component_R[ref_H]),
            "item_start": characters(index.data_B, text_H, low_H), "item_end": characters(index.data_B, text_H, high_H),
            "item_words": index.words_R[ref_H],
            "item_snippet": _snippets(index.data_B, low_H, high_H)}  # fmt: skip


def _snippets(data_B: npt.NDArray[np.uint8], begin_H: npt.NDArray[np.int64], end_H: npt.NDArray[np.int64]) -> pa.Array:
    """The first SNIPPET_CHARS characters of each stretch."""
    offsets, data = snippets(data_B, begin_H, end_H, SNIPPET_CHARS)
    return pa.StringArray.from_buffers(len(begin_H), pa.py_buffer(offsets), pa.py_buffer(data))
