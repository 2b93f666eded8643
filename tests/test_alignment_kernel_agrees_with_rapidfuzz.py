"""The bit-parallel alignment finds the distances that rapidfuzz finds, and stretches that have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Indel, Levenshtein

from curation.kernels.alignment import align, align_words, symbols_of
from curation.kernels.words import character_tables, words_of


def symbols(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def nearest(pattern: str, text: str) -> int:
    """The distance of the pattern to its nearest stretch, by rapidfuzz over every stretch."""
    return min(Levenshtein.distance(pattern, text[first:end])
               for first in range(len(text) + 1) for end in range(first, len(text) + 1))  # fmt: skip


@given(st.text("ab c", min_size=1, max_size=12), st.text("ab c", max_size=18))
@settings(max_examples=150, deadline=None)
def test_the_distance_is_that_of_the_nearest_stretch_of_the_text(pattern, text):
    distance, first, end = align(symbols(pattern), symbols(text), len(pattern))
    assert distance == nearest(pattern, text)
    assert Levenshtein.distance(pattern, text[first:end]) == distance


@given(st.integers(50, 400), st.integers(0, 60), st.integers(0, 60), st.integers(0, 40), st.randoms())
@settings(max_examples=120, deadline=None)
def test_patterns_over_several_blocks_of_64_are_found_with_their_place(size, before, after, edits, random):
    pattern = "".join(random.choices("abcdefgh ", k=size))
    edited = list(pattern)
    for _ in range(edits):
        place = random.randrange(len(edited))
        edited[place] = random.choice(["", "x", "yz", edited[place]])
    text = "".join(random.choices("stuvw", k=before)) + "".join(edited) + "".join(random.choices("stuvw", k=after))
    distance, first, end = align(symbols(pattern), symbols(text), len(pattern))
    assert Levenshtein.distance(pattern, text[first:end]) == distance
    assert distance <= Levenshtein.distance(pattern, "".join(edited))


def test_of_equally_near_stretches_the_last_and_longest_is_taken_and_nothing_is_found_in_nothing():
    assert align(symbols("abc"), symbols("abc--abc"), 3) == (0, 5, 8)
    assert align(symbols("abc"), symbols(""), 3) == (3, 0, 0)
    assert align(symbols("abc"), symbols("xyz"), 3) == (3, 0, 0)


def test_a_distance_beyond_the_most_that_is_asked_for_is_not_looked_for_further():
    assert align(symbols("abcd"), symbols("--abxd--"), 1) == (1, 2, 6)
    assert align(symbols("abcd"), symbols("--axyd--"), 1) == (4, 0, 0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.lists(st.integers(0, 4), max_size=12))
@settings(max_examples=150, deadline=None)
def test_word_alignment_has_the_distance_of_rapidfuzz_and_partners_in_order(left, right):
    partner = np.empty(len(left), np.int64)
    distance = align_words(np.array(left, np.uint64), np.array(right, np.uint64), partner)
    assert distance == Levenshtein.distance(left, right)
    found = [place for place in partner if place >= 0]
    assert found == sorted(set(found))
    same = sum(left[index] == right[place] for index, place in enumerate(partner) if place >= 0)
    assert same <= Indel.similarity(left, right) / 2


def partners(left: list[int], right: list[int]) -> list[int]:
    """By the whole table of distances: on the way back the same word first, then another in its place, then leaving out
    the left, then the right."""
    table = np.zeros((len(left) + 1, len(right) + 1), int)
    table[:, 0], table[0] = range(len(left) + 1), range(len(right) + 1)
    for i, one in enumerate(left, 1):
        for j, other in enumerate(right, 1):
            table[i, j] = min(table[i - 1, j - 1] + (one != other), table[i - 1, j] + 1, table[i, j - 1] + 1)
    i, j, found = len(left), len(right), [-1] * len(left)
    while i and j:
        if table[i, j] == table[i - 1, j - 1] + (left[i - 1] != right[j - 1]):
            i, j = i - 1, j - 1
            found[i] = j
        elif table[i, j] == table[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return found


@given(st.integers(2, 60), st.integers(0, 150), st.integers(0, 40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_partners_of_long_texts_are_those_of_the_whole_table(words, size, edits, random):
    left = [random.randrange(words) for _ in range(size)]
    right = list(left)
    for _ in range(edits):
        place = random.randint(0, len(right))
        right[place : place + random.choice((0, 1, 1, 9))] = [random.randrange(words)] * random.choice((0, 1, 4))
    partner = np.empty(size, np.int64)
    align_words(np.array(left, np.uint64), np.array(right, np.uint64), partner)
    assert partner.tolist() == partners(left, right)


@pytest.mark.parametrize(("text", "written"), [("The cat,\n SAT!", "the cat sat"), ("Ｎo． ５ déjà", "no 5 deja")])
def test_symbols_are_folded_words_joined_by_one_space(text, written):
    words, at = words_of(text)
    out, word = np.zeros(64, np.uint8), np.zeros(64, np.int32)
    count = symbols_of(symbols(text), at, np.arange(len(words)), *character_tables(), out, word)
    assert bytes(out[:count]).decode() == written
    assert [int((word[:count] == index).sum()) for index in range(len(words))] == [
        len(piece) + (index > 0) for index, piece in enumerate(written.split())
    ]


def test_chinese_characters_are_one_symbol_each_without_spaces():
    words, at = words_of("小明有5个苹果")
    out, word = np.zeros(64, np.uint8), np.zeros(64, np.int32)
    assert symbols_of(symbols("小明有5个苹果"), at, np.arange(len(words)), *character_tables(), out, word) == 7
