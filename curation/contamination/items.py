"""Benchmark items as reference texts: one per component, with its words, symbols and the kind of each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.join_work import RowPart
from curation.kernels.alignment import reference_symbols
from curation.kernels.ngrams import hash_stretches
from curation.kernels.word_kinds import plain_words, word_kinds
from curation.kernels.words import character_tables, words_of

COMPONENTS = ("question", "passage", "answer", "choices")
LEAST_WORDS = {"question": 4, "passage": 8, "answer": 10, "choices": 8}  # fewer say nothing by themselves
TEXTS = pa.schema([("benchmark", pa.string()), ("row_id", pa.binary(16)), ("component", pa.int8()),
                   ("text", pa.large_string())])  # fmt: skip
FUNCTION_WORDS = """
    a about after again all also although always an and another any are as at be because been before being between both
    but by can could did do does during each either every few find first five for four from get give given had has have
    how however i if in into is it its last let many may me more most much must my no not now of often on once one only
    or other our out over same several should since so some such suppose ten than that the their then there these this
    those three through to today two under until up use using was we were what when where whether which while who why
    will with within without would write you your yesterday tomorrow
"""
NUMBER_WORDS = """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third quarter
    once twice thrice double triple first second fourth fifth sixth seventh eighth ninth tenth dozen dozens halves
    thirds quarters
"""
PRONOUNS = "he she they him her them his hers their theirs himself herself themselves it its"


@dataclass(frozen=True)
class References:
    """R reference texts, sorted by benchmark, item and component. `text_R` are their texts, whose UTF-8 bytes `data_B`
    holds one after the other; words, their byte offsets in data_B and kinds run over all references, those of r at
    first_word_R1[r] : first_word_R1[r + 1]; symbols likewise."""

    benchmark_R: npt.NDArray[np.int32]  # in the order of their names
    row_id_R: npt.NDArray[np.uint8]  # R x 16
    component_R: npt.NDArray[np.int8]
    item_R: npt.NDArray[np.int32]
    text_R: pa.LargeStringArray
    data_B: npt.NDArray[np.uint8]
    words_W: npt.NDArray[np.uint64]
    at_W: npt.NDArray[np.int64]
    kind_W: npt.NDArray[np.uint8]
    first_word_R1: npt.NDArray[np.int64]
    symbols_M: npt.NDArray[np.uint8]
    first_symbol_R1: npt.NDArray[np.int64]
    plain_V: npt.NDArray[np.uint64]  # sorted hashes of words seen in lower case: these are no names
    number_V: npt.NDArray[np.uint64]
    pronoun_V: npt.NDArray[np.uint64]


def component_texts(parts: Sequence[RowPart]) -> pa.Table:
    """One row per component that an item has: benchmark, row_id (16 bytes), component (index into COMPONENTS), text;
    in a total order. Choices are joined by line breaks; an answer that is a letter among choices is that choice."""
    tables = []
    for part in parts:
        table = pq.read_table(part.path, columns=["row_id", *COMPONENTS])
        ids = table["row_id"].combine_chunks()
        ids = ids.storage if isinstance(ids, pa.ExtensionArray) else pa.array([], pa.binary(16))
        for component, name in enumerate(COMPONENTS):
            texts = table[name] if name != "choices" else pc.binary_join(table[name], "\n")
            texts = _chosen(table) if name == "answer" else texts
            keep = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
            kept = texts.filter(keep).cast(pa.large_string())
            columns = [pa.repeat(part.source, len(kept)), ids.filter(keep),
                       pa.repeat(pa.scalar(component, pa.int8()), len(kept)), kept]  # fmt: skip
            tables.append(pa.table(columns, TEXTS))
    whole = pa.concat_tables([TEXTS.empty_table(), *tables]).combine_chunks()
    order = pc.sort_indices(whole.drop_columns("row_id").append_column("row_id", whole["row_id"].cast(pa.binary())),
                            [(name, "ascending") for name in ("benchmark", "row_id", "component", "text")])  # fmt: skip
    return whole.take(order)


def _chosen(table: pa.Table) -> pa.ChunkedArray:
    answers = table["answer"]
    letters = pc.fill_null(pc.match_substring_regex(answers, r"^\s*[A-J]\s*$"), False)
    if not pc.any(pc.and_(letters, pc.is_valid(table["choices"]))).as_py():
        return answers
    found = np.array(answers.to_pylist(), object)
    rows = np.flatnonzero(letters.to_numpy())
    for row, choices in zip(rows.tolist(), table["choices"].take(pa.array(rows)).to_pylist(), strict=True):
        place = ord(found[row].strip()) - ord("A")
        if choices and place < len(choices):
            found[row] = choices[place]
    return pa.chunked_array([pa.array(found, pa.string())])


def hashes_of(text: str) -> npt.NDArray[np.uint64]:
    """The sorted distinct hashes of the words of a text."""
    return np.unique(words_of(text)[0])


def references(table: pa.Table) -> References:
    """The references of `component_texts`."""
    kind, fold = character_tables()
    text = table["text"].combine_chunks()
    text = text if isinstance(text, pa.LargeStringArray) else pa.array([], pa.large_string())
    count = len(text)
    _, offsets, data = text.buffers() if count else (None, None, None)
    ends = np.frombuffer(offsets, np.int64)[: count + 1] if offsets is not None else np.zeros(1, np.int64)
    data_B = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    words_W, at_W, of_W, first_R1 = hash_stretches(data_B, ends[:-1], ends[1:], np.arange(count + 1), kind, fold,
                                                   len(data_B) // 2 + count + 1)  # fmt: skip
    number_V, pronoun_V = hashes_of(NUMBER_WORDS), hashes_of(PRONOUNS)
    plain_V = np.union1d(plain_words(data_B, at_W, words_W), hashes_of(FUNCTION_WORDS))
    kind_W = word_kinds(data_B, at_W, words_W, of_W, ends[:-1], plain_V, number_V, pronoun_V)
    symbols_M, first_symbol_R1 = reference_symbols(data_B, at_W, first_R1, kind, fold)
    names = table["benchmark"].combine_chunks().dictionary_encode() if count else None
    benchmark_R = names.indices.to_numpy() if names is not None else np.zeros(0, np.int32)
    row_id_R = np.frombuffer(b"".join(table["row_id"].to_pylist()), np.uint8).reshape(-1, 16)
    other = np.ones(count, bool)
    other[1:] = (benchmark_R[1:] != benchmark_R[:-1]) | (row_id_R[1:] != row_id_R[:-1]).any(axis=1)
    item_R = (np.cumsum(other) - 1).astype(np.int32)
    component_R = table["component"].to_numpy().astype(np.int8)
    return References(benchmark_R, row_id_R, component_R, item_R, text, data_B, words_W, at_W, kind_W,
                      first_R1, symbols_M, first_symbol_R1, plain_V, number_V, pronoun_V)  # fmt: skip
