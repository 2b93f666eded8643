"""The index of benchmark items: built once, kept as plain arrays, memory-mapped by the processes that use it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curation.contamination.items import COMPONENTS, LEAST_WORDS, References, references
from curation.fingerprint import fingerprint
from curation.kernels.ngrams import (
    BITMAP_WORDS,
    gram_bits,
    group_grams,
    prefix_bits,
    reference_grams,
    sort_by_bucket,
    words_of_rare_grams,
)
from curation.kernels.word_kinds import NUMBER, TEMPLATE

LAYOUT = 2  # of the arrays in a folder: raised where they change, so that older folders are not read
LONGEST_GRAM = 5
TEMPLATE_ITEMS = 5  # a word whose every n-gram stands in so many items belongs to a template
SHORT, LONG = 12, 40  # words: references of up to SHORT have grams of 3 words, up to LONG of 4, longer ones of 5
TOO_SHORT, COMMON_ITEMS, COMMON_ROWS = "too short", "every n-gram common among items", "every n-gram common in rows"


@dataclass(frozen=True)
class Index:
    """R references and the G grams that find them; the references of gram g and the word where each has it are at
    post_first_G1[g] : post_first_G1[g + 1] of post_ref_P and post_at_P. size_R is the length of a reference's grams, 0
    where it is not checkable (`reason_R`: index into REASONS, 0 for checkable)."""

    row_id_R: npt.NDArray[np.uint8]
    component_R: npt.NDArray[np.int8]
    item_R: npt.NDArray[np.int32]
    benchmark_R: npt.NDArray[np.int32]
    answer_R: npt.NDArray[np.int32]  # the reference that is the answer of the same item, -1 where there is none
    data_B: npt.NDArray[np.uint8]
    words_W: npt.NDArray[np.uint64]
    at_W: npt.NDArray[np.int32]
    kind_W: npt.NDArray[np.uint8]
    first_word_R1: npt.NDArray[np.int64]
    text_R1: npt.NDArray[np.int64]  # byte offsets of each text in data_B
    symbols_M: npt.NDArray[np.uint8]
    first_symbol_R1: npt.NDArray[np.int64]
    plain_V: npt.NDArray[np.uint64]
    number_V: npt.NDArray[np.uint64]
    pronoun_V: npt.NDArray[np.uint64]
    size_R: npt.NDArray[np.int32]
    reason_R: npt.NDArray[np.int8]
    active_R: npt.NDArray[np.int32]  # grams of the reference that are not common among items
    keys_G: npt.NDArray[np.uint64]  # hashes of the grams, sorted by bucket
    first_C1: npt.NDArray[np.int32]  # the first gram of each bucket
    bits: npt.NDArray[np.uint64]  # of the first words of grams
    whole_bits: npt.NDArray[np.uint64]  # of whole grams
    wanted: npt.NDArray[np.bool_]
    items_G: npt.NDArray[np.unsignedinteger[Any]]  # items that have the gram, in as few bytes as item_cap needs
    post_first_G1: npt.NDArray[np.int32]
    post_ref_P: npt.NDArray[np.int32]
    post_at_P: npt.NDArray[np.int32]
    idf_I: npt.NDArray[np.float64]  # inverse item frequency of a gram by its items, from 0 on

    @property
    def words_R(self) -> npt.NDArray[np.int64]:
        """Words of each reference."""
        return np.diff(self.first_word_R1)

    def text(self, reference: int) -> str:
        """The text of a reference."""
        return bytes(self.data_B[self.text_R1[reference] : self.text_R1[reference + 1]]).decode()


REASONS = ("", TOO_SHORT, COMMON_ITEMS)


def gram_sizes(component_R: npt.NDArray[np.int8], words_R: npt.NDArray[np.int64], telling_R: npt.NDArray[np.int64]
               ) -> npt.NDArray[np.int32]:  # fmt: skip
    """Words per gram of each reference: 3, 4 or 5 by its length, 0 where it is too short to be checked. Of the words
    `telling_R` are no numbers and have two letters; but for one they must be as many as the least."""
    least = np.array([LEAST_WORDS[name] for name in COMPONENTS])[component_R]
    size = np.where(words_R <= SHORT, 3, np.where(words_R <= LONG, 4, 5))
    return np.where((words_R < least) | (telling_R < least - 1), 0, size).astype(np.int32)


def build_index(table: pa.Table, item_cap: int) -> Index:
    """The index over `component_texts`. Grams in more than `item_cap` items are left out: they are templates."""
    refs = references(table)
    words_R = np.diff(refs.first_word_R1)
    telling_W = (refs.kind_W & NUMBER == 0) & (np.diff(refs.at_W, axis=1)[:, 0] > 1)
    told = np.concatenate([[0], np.cumsum(telling_W)])
    size_R = gram_sizes(refs.component_R, words_R, np.diff(told[refs.first_word_R1]))
    hash_P, post_P = reference_grams(refs.words_W, refs.first_word_R1, size_R)
    num_bits = max(4, (len(hash_P) // 2).bit_length())
    hash_P, post_P = sort_by_bucket(hash_P, post_P, num_bits)
    keys_G, items_G, post_first_G1, ref_P, at_P, first_C1 = group_grams(hash_P, post_P, refs.item_R, item_cap, num_bits)
    bits, whole_bits = np.zeros(BITMAP_WORDS, np.uint64), np.zeros(BITMAP_WORDS, np.uint64)
    gram_bits(keys_G, whole_bits)
    if item_cap + 1 >= TEMPLATE_ITEMS:
        own_W = words_of_rare_grams(len(refs.words_W), refs.first_word_R1, size_R, post_first_G1, ref_P, at_P, items_G,
                                    TEMPLATE_ITEMS)  # fmt: skip
        refs.kind_W[~own_W] |= TEMPLATE
    num_items = int(refs.item_R.max(initial=-1)) + 1
    idf_I = np.log((num_items + 1) / np.maximum(1, np.arange(min(item_cap, num_items) + 1)))
    active_R = np.bincount(ref_P, minlength=len(size_R)).astype(np.int32)
    reason_R = np.where(size_R == 0, 1, np.where(active_R == 0, 2, 0)).astype(np.int8)
    prefix_bits(refs.words_W, refs.first_word_R1, np.where(reason_R == 0, size_R, 0), bits)
    ends = np.frombuffer(refs.text_R.buffers()[1], np.int64)[: len(size_R) + 1] if len(size_R) else np.zeros(1, int)
    return Index(
        refs.row_id_R, refs.component_R, refs.item_R, refs.benchmark_R, _answers(refs), refs.data_B, refs.words_W,
        refs.at_W.astype(np.int32), refs.kind_W, refs.first_word_R1, ends, refs.symbols_M,
        refs.first_symbol_R1, refs.plain_V, refs.number_V, refs.pronoun_V, size_R, reason_R, active_R, keys_G,
        first_C1, bits, whole_bits, np.array([size in size_R[reason_R == 0] for size in range(LONGEST_GRAM + 1)]),
        items_G.astype(np.min_scalar_type(item_cap)), post_first_G1, ref_P, at_P, idf_I,
    )  # fmt: skip


def _answers(refs: References) -> npt.NDArray[np.int32]:
    is_answer = refs.component_R == COMPONENTS.index("answer")
    by_item = np.full(int(refs.item_R.max(initial=-1)) + 1, -1, np.int32)
    by_item[refs.item_R[is_answer]] = np.flatnonzero(is_answer)
    return by_item[refs.item_R]


def index_name(table: pa.Table, item_cap: int, version: int) -> str:
    """16 hex characters: what the index is made of, whatever the files it was read from. `table` must be as
    `component_texts` gives it, with buffers of its own."""
    buffers = [buffer for name in table.column_names for chunk in table[name].chunks for buffer in chunk.buffers()]
    digest = [xxhash.xxh3_128_hexdigest(buffer) for buffer in buffers if buffer is not None]
    made_by = [version, LAYOUT, item_cap, SHORT, LONG, TEMPLATE_ITEMS, LEAST_WORDS]
    return fingerprint([*made_by, table.num_rows, digest])[:16]


def save_index(index: Index, folder: Path) -> None:
    """Write the arrays; the folder appears whole or not at all."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for field in fields(index):
        np.save(draft / f"{field.name}.npy", getattr(index, field.name))
    draft.rename(folder)


def load_index(folder: Path) -> Index:
    """The index in a folder, memory-mapped (copy on write, so that kernels see one array type)."""
    return Index(**{field.name: _load(folder / f"{field.name}.npy") for field in fields(Index)})


def _load(path: Path) -> Any:
    small = path.stat().st_size < 4096  # an empty array cannot be mapped
    return np.asarray(np.load(path, mmap_mode=None if small else "c"))
