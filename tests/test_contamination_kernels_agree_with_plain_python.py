"""The kernels that look for benchmark items find what a few lines of plain Python find."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.kernels.hits import snippets
from curation.kernels.ngrams import (
    BITMAP_WORDS,
    PREFIX,
    gram_bits,
    group_grams,
    hash_stretches,
    prefix_bits,
    reference_grams,
    scan,
    sort_by_bucket,
)
from curation.kernels.words import PLAIN_LETTERS, character_tables, word_hashes, words_of

TEXTS = st.text(st.sampled_from("aB9 .\n-éœ\u0301中文ไＡﬁß\U00020000\U0001f600"), max_size=40)
WORDS = st.lists(st.sampled_from(["one", "two", "three", "four", "five", "six"]), max_size=30)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_hashes_without_places_are_those_with_places(text):
    data = np.frombuffer(text.encode(), np.uint8)
    out = np.zeros(len(data) // 2 + 3, np.uint64)
    count = word_hashes(data, 0, len(data), *character_tables(), out, 2)
    assert out[2:count].tolist() == words_of(text)[0].tolist()


def test_the_letters_of_ascii_are_folded_as_all_characters_are():
    kind, fold = character_tables()
    assert PLAIN_LETTERS[:128].tolist() == [fold[code] if kind[code] else 0 for code in range(128)]
    assert (PLAIN_LETTERS[128:] == 128).all()


def stretches(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = np.frombuffer(" ".join(" ".join(words) for words in texts).encode() + b" ", np.uint8)
    ends = np.cumsum([len(" ".join(words)) + 1 for words in texts])
    return data, np.concatenate([[0], ends[:-1]]), ends, np.arange(len(texts) + 1)


@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(WORDS, min_size=1, max_size=8), st.integers(1, 4),
       st.integers(4, 9))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_grams_of_few_items_are_found_in_rows_at_every_place(items, rows, item_cap, num_bits):
    size, tables = 4, character_tables()
    words_W, _, _, first_R1 = hash_stretches(*stretches(items), *tables, 1000)
    size_R, item_R = np.full(len(items), size, np.int32), np.arange(len(items), dtype=np.int32) // 2
    grouped = group_grams(*sort_by_bucket(*reference_grams(words_W, first_R1, size_R), num_bits), item_R, item_cap,
                          num_bits)  # fmt: skip
    keys_G, items_G, post_first_G1, ref_P, at_P, first_C1 = grouped
    first_place: dict[tuple[str, ...], dict[int, int]] = defaultdict(dict)
    for number, words in enumerate(items):
        for place in range(len(words) - size + 1):
            first_place[tuple(words[place : place + size])].setdefault(number, place)
    known = {gram: found for gram, found in first_place.items() if len({ref // 2 for ref in found}) <= item_cap}
    postings = [dict(zip(ref_P[first:end].tolist(), at_P[first:end].tolist(), strict=True))
                for first, end in pairwise(post_first_G1)]  # fmt: skip
    assert sorted(map(list, (found.items() for found in postings))) == sorted(
        map(list, (found.items() for found in known.values()))
    )
    assert items_G.tolist() == [len({ref // 2 for ref in found}) for found in postings]

    bits, whole_bits = np.zeros(BITMAP_WORDS, np.uint64), np.zeros(BITMAP_WORDS, np.uint64)
    prefix_bits(words_W, first_R1, size_R, bits)
    gram_bits(keys_G, whole_bits)
    wanted, tally_G = np.arange(PREFIX + 3) == size, np.zeros(len(keys_G), np.int64)
    row_F, gram_F, at_F = scan(*stretches(rows), *tables, wanted, keys_G, first_C1, bits, whole_bits, tally_G, 7)
    expected = [(row + 7, place, known[gram]) for row, words in enumerate(rows)
                for place in range(len(words) - size + 1)
                if (gram := tuple(words[place : place + size])) in known]  # fmt: skip
    assert [(row, at, postings[gram]) for row, gram, at in zip(row_F, gram_F, at_F, strict=True)] == expected
    held = Counter(gram for _, gram in set(zip(row_F.tolist(), gram_F.tolist(), strict=True)))
    assert (tally_G & 0xFFFFFFFF).tolist() == [held[gram] for gram in range(len(keys_G))]


@given(st.lists(TEXTS, max_size=5), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_snippets_are_cut_between_characters(texts, most):
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    ends = np.cumsum([0, *(len(text.encode()) for text in texts)])
    offsets, cut = snippets(data, ends[:-1], ends[1:], most)
    found = [bytes(cut[first:end]).decode() for first, end in pairwise(offsets)]
    assert found == [text[:most] for text in texts]
