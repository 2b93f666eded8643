"""What kind of word each word is (number, name, pronoun), and by which kinds two aligned texts differ.

Kinds are guesses from the letters: a number has a digit or is a number word; a name begins with a capital letter where
no sentence begins, or is a capitalised word that nobody wrote in lower case.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from curation.kernels.alignment import align_words
from curation.kernels.hits import hit_words

NUMBER, NAME, PRONOUN, TEMPLATE = 1, 2, 4, 8
SLOTS = 4096  # of a table that holds some 80 words


@njit(cache=True, inline="always")
def contains(sorted_V, value):  # type: ignore[no-untyped-def]
    """Whether a sorted array has a value."""
    place = np.searchsorted(sorted_V, value)
    return place < len(sorted_V) and sorted_V[place] == value


@njit(cache=True)
def plain_words(data_B, at_W, words_W):  # type: ignore[no-untyped-def]
    """The sorted distinct hashes of the words that begin with a lower-case ASCII letter."""
    found = set()
    for word in range(len(words_W)):
        byte = data_B[at_W[word, 0]]
        if 97 <= byte <= 122:
            found.add(words_W[word])
    out = np.empty(len(found), np.uint64)
    for index, value in enumerate(found):
        out[index] = value
    return np.sort(out)


@njit(cache=True)
def kind_of(data_B, begin, end, floor, value, plain_V, number_V, pronoun_V):  # type: ignore[no-untyped-def]
    """The flags of the word data_B[begin:end] with the hash `value`; its text begins at `floor`."""
    for place in range(begin, end):
        if 48 <= data_B[place] <= 57:
            return NUMBER
    if contains(number_V, value):
        return NUMBER
    if contains(pronoun_V, value):
        return PRONOUN
    first = data_B[begin]
    if not (65 <= first <= 90 or (first == 0xC3 and end > begin + 1 and 0x80 <= data_B[begin + 1] <= 0x9E)):
        return 0
    if not contains(plain_V, value):
        return NAME
    if end - begin < 2 or 65 <= data_B[begin + 1] <= 90:
        return 0  # a word in capitals, or a single letter
    place = begin - 1
    while place >= floor and (data_B[place] == 32 or data_B[place] == 34 or data_B[place] == 39 or data_B[place] == 40):
        place -= 1
    if place < floor:
        return 0
    before = data_B[place]
    inside = 97 <= before <= 122 or 48 <= before <= 57 or 65 <= before <= 90 or before == 44 or before >= 128
    return NAME if inside else 0


@njit(cache=True)
def word_kinds(data_B, at_W, words_W, of_W, start_S, plain_V, number_V, pronoun_V):  # type: ignore[no-untyped-def]
    """The flags of every word. Most begin with a small letter and are neither number words nor pronouns, which a small
    table of their hashes says sooner than two searches."""
    out, listed = np.zeros(len(words_W), np.uint8), np.zeros(SLOTS, np.bool_)
    for values_V in (number_V, pronoun_V):
        for value in values_V:
            listed[value & np.uint64(SLOTS - 1)] = True
    for word in range(len(words_W)):
        begin, end = at_W[word, 0], at_W[word, 1]
        if 97 <= data_B[begin] <= 122 and not listed[words_W[word] & np.uint64(SLOTS - 1)]:
            for place in range(begin, end):
                if 48 <= data_B[place] <= 57:
                    out[word] = NUMBER
        else:
            out[word] = kind_of(data_B, begin, end, start_S[of_W[word]], words_W[word], plain_V, number_V, pronoun_V)
    return out


@njit(cache=True)
def same_words(left, right):  # type: ignore[no-untyped-def]
    """Whether two word sequences are equal."""
    if len(left) != len(right):
        return False
    agreeing = 0
    while agreeing < len(left) and left[agreeing] == right[agreeing]:
        agreeing += 1
    return agreeing == len(left)


@njit(cache=True)
def differences(ref_H, first_H, end_H, chain_H, chained, words_W, data_B, at_W,  # type: ignore[no-untyped-def]
                of_W, start_S, ref_words_W, ref_kind_W, first_word_R1, plain_V, number_V, pronoun_V):  # fmt: skip
    """How the words of each hit differ, H x 10: plain words of the item, those that agree, numbers and names of the
    item, those of them for which the row has another number or name, those that agree, words that the row has besides,
    first and end word of the item that have a word facing them (0, 0 where none has), plain words of no template, those
    that agree."""
    out = np.zeros((len(ref_H), 10), np.int64)
    for hit in range(len(ref_H)):
        first_R, end_R = first_word_R1[ref_H[hit]], first_word_R1[ref_H[hit] + 1]
        span = hit_words(hit, first_H, end_H, chain_H, chained)
        left, right = ref_words_W[first_R:end_R], words_W[span]
        partner = np.arange(len(left))
        if not same_words(left, right):
            align_words(left, right, partner)
        partners = 0
        for index in range(len(left)):
            flags, other = ref_kind_W[first_R + index], partner[index]
            same = other >= 0 and left[index] == right[other]
            partners += other >= 0
            if other >= 0:
                if out[hit, 7] == 0:
                    out[hit, 6] = index
                out[hit, 7] = index + 1
            facing = 0
            if other >= 0 and not same:
                word = span[other]
                facing = kind_of(data_B, at_W[word, 0], at_W[word, 1], start_S[of_W[word]], right[other], plain_V,
                                 number_V, pronoun_V)  # fmt: skip
            if flags & (NUMBER | NAME) and (same or facing & flags or (flags & NAME and facing & PRONOUN)):
                out[hit, 2] += 1
                out[hit, 3] += not same and facing & flags != 0
                out[hit, 4] += same
            elif flags & PRONOUN and facing & (PRONOUN | NAME):
                continue
            else:
                out[hit, 0] += 1
                out[hit, 1] += same
                out[hit, 8] += flags & TEMPLATE == 0
                out[hit, 9] += same and flags & TEMPLATE == 0
        out[hit, 5] = len(right) - partners
    return out
