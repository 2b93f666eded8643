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
from curation.kernels.ngrams import BITMAP_WORDS, fill_table, gram_bits, prefix_bits, rarest_grams, reference_grams
from curation.kernels.word_kinds import NUMBER, TEMPLATE

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
    keys_C: npt.NDArray[np.uint64]
    values_C: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint64]  # of the first words of grams
    whole_bits: npt.NDArray[np.uint64]  # of whole grams
    wanted: npt.NDArray[np.bool_]
    post_first_G1: npt.NDArray[np.int64]
    post_ref_P: npt.NDArray[np.int32]
    post_at_P: npt.NDArray[np.int32]
    idf_G: npt.NDArray[np.float64]

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
    hash_P, ref_P, at_P = reference_grams(refs.words_W, refs.first_word_R1, size_R)
    order = np.argsort(hash_P)
    hash_P = hash_P[order]
    new = np.ones(len(hash_P), bool)
    new[1:] = hash_P[1:] != hash_P[:-1]
    gram_P = np.cumsum(new) - 1
    order = np.sort(gram_P << 32 | order) & 0xFFFFFFFF  # postings of a gram by reference: faster than a stable sort
    ref_P, at_P = ref_P[order], at_P[order]
    items = _distinct_items(gram_P, refs.item_R[ref_P], int(new.sum()))
    keep = items <= item_cap
    kept = keep[gram_P]
    distinct, counts, items = hash_P[new][keep], np.bincount(gram_P)[keep] if len(gram_P) else items, items[keep]
    ref_P, at_P = ref_P[kept], at_P[kept]
    num_items = int(refs.item_R.max()) + 1 if len(refs.item_R) else 0
    capacity = 1 << max(4, int(np.ceil(np.log2(max(2.0, len(distinct) * 1.6)))))
    keys, values = np.zeros(capacity, np.uint64), np.full(capacity, -1, np.int32)
    bits, whole_bits = np.zeros(BITMAP_WORDS, np.uint64), np.zeros(BITMAP_WORDS, np.uint64)
    fill_table(distinct, keys, values)
    gram_bits(distinct, whole_bits)
    rarest_W = rarest_grams(len(refs.words_W), refs.first_word_R1, size_R, ref_P, at_P, np.repeat(items, counts),
                            item_cap + 1)  # fmt: skip
    refs.kind_W[rarest_W >= TEMPLATE_ITEMS] |= TEMPLATE
    active_R = np.bincount(ref_P, minlength=len(size_R)).astype(np.int32)
    reason_R = np.where(size_R == 0, 1, np.where(active_R == 0, 2, 0)).astype(np.int8)
    prefix_bits(refs.words_W, refs.first_word_R1, np.where(reason_R == 0, size_R, 0), bits)
    ends = np.frombuffer(refs.text_R.buffers()[1], np.int64)[: len(size_R) + 1] if len(size_R) else np.zeros(1, int)
    return Index(
        refs.row_id_R, refs.component_R, refs.item_R, refs.benchmark_R, _answers(refs), refs.data_B, refs.words_W,
        refs.at_W.astype(np.int32), refs.kind_W, refs.first_word_R1, ends, refs.symbols_M,
        refs.first_symbol_R1, refs.plain_V, refs.number_V, refs.pronoun_V, size_R, reason_R, active_R, keys, values,
        bits, whole_bits, np.array([size in size_R[reason_R == 0] for size in range(LONGEST_GRAM + 1)]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), ref_P, at_P, np.log((num_items + 1) / items),
    )  # fmt: skip


def _distinct_items(gram_P: npt.NDArray[np.int64], item_P: npt.NDArray[np.int32], num_grams: int
                    ) -> npt.NDArray[np.int64]:  # fmt: skip
    """In how many items each gram stands; postings are sorted by gram, then by reference, hence by item."""
    new = np.ones(len(gram_P), bool)
    new[1:] = (gram_P[1:] != gram_P[:-1]) | (item_P[1:] != item_P[:-1])
    return np.bincount(gram_P[new], minlength=num_grams)


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
    return fingerprint([version, item_cap, SHORT, LONG, TEMPLATE_ITEMS, LEAST_WORDS, table.num_rows, digest])[:16]


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
