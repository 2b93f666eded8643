"""Shingles of texts and their MinHash: distinct sets of word n-grams, hashed, and the keys of their bands.

A text whose set has Jaccard similarity J to another's shares at least one of b band keys with probability
1 - (1 - J^r)^b, r values to a band (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, ch. 3).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.kernels.words import hash_ngram, hash_words, mix

BANDS, ROWS, SHINGLE_WORDS = 14, 8, 5
UNROLLED = 4  # shingles that one pass over the minima takes: the minima are loaded and stored once for them


@functools.cache
def permutations(bands: int = BANDS, rows: int = ROWS) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """(odd factors, addends) of bands x rows permutations x -> x * factor + addend modulo 2^32; the same for ever."""
    drawn = np.zeros((2, bands * rows), np.uint32)
    state = 0x9E3779B97F4A7C15
    for row in range(2):
        for index in range(bands * rows):  # splitmix64 (Steele, Lea, Flood 2014)
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            value = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
            drawn[row, index] = (value ^ value >> 31) >> 32
    return drawn[0] | np.uint32(1), drawn[1]


@njit(cache=True)
def most_words(start_S, end_S, first_U1):  # type: ignore[no-untyped-def]
    """More words than any of U texts can have."""
    most = 1
    for unit in range(len(first_U1) - 1):
        room = 1
        for segment in range(first_U1[unit], first_U1[unit + 1]):
            room += (end_S[segment] - start_S[segment]) // 2 + 1
        most = max(most, room)
    return most


@njit(cache=True)
def distinct_shingles(data_B, start_S, end_S, salt_S, first, last, kind, fold, size,  # type: ignore[no-untyped-def]
                      words_W, at_W, table_T, out_H):  # fmt: skip
    """Write the hashes of the distinct shingles (`size` words) of the stretches first:last, read as one text, to out_H
    in the order of their first appearance; returns how many. A text of fewer than `size` words has none. The words of
    a stretch are marked with its salt, where that is not 0: they equal no word of stretches with another salt."""
    count = 0
    for segment in range(first, last):
        before = count
        count = hash_words(data_B, start_S[segment], end_S[segment], kind, fold, words_W, at_W, count)
        if salt_S[segment]:
            for index in range(before, count):
                words_W[index] = mix(words_W[index] ^ salt_S[segment])
    room = 4
    while room < 2 * (count - size + 1):
        room *= 2
    table_T[:room] = np.uint64(0)
    mask = np.uint64(room - 1)
    found = 0
    for index in range(count - size + 1):
        value = hash_ngram(words_W, index, size)
        if value == 0:
            value = np.uint64(1)
        place = value & mask
        while table_T[place] != 0 and table_T[place] != value:
            place = (place + np.uint64(1)) & mask
        if table_T[place] == 0:
            table_T[place] = value
            out_H[found] = value
            found += 1
    return found


@njit(cache=True)
def minima_of(shingles_H, count, factors_P, addends_P, minima_P):  # type: ignore[no-untyped-def]
    """Fill minima_P with the smallest value of each permutation over the low halves of shingles_H[:count]. One 32-bit
    multiplication and addition each: the shingles are mixed already, and the loop becomes vector instructions."""
    minima_P[:] = np.uint32(0xFFFFFFFF)
    whole = count - count % UNROLLED
    for index in range(0, whole, UNROLLED):
        a, b = np.uint32(shingles_H[index]), np.uint32(shingles_H[index + 1])
        c, d = np.uint32(shingles_H[index + 2]), np.uint32(shingles_H[index + 3])
        for p in range(len(minima_P)):
            factor, addend = factors_P[p], addends_P[p]
            one = min(np.uint32(a * factor + addend), np.uint32(b * factor + addend))
            two = min(np.uint32(c * factor + addend), np.uint32(d * factor + addend))
            minima_P[p] = min(minima_P[p], min(one, two))
    for index in range(whole, count):
        a = np.uint32(shingles_H[index])
        for p in range(len(minima_P)):
            minima_P[p] = min(minima_P[p], np.uint32(a * factors_P[p] + addends_P[p]))


@njit(cache=True)
def signatures(data_B, start_S, end_S, salt_S, first_U1, kind, fold, size, num_bands,  # type: ignore[no-untyped-def]
               factors_P, addends_P, keys_UB, count_U, set_U):  # fmt: skip
    """For U texts (stretches first_U1[u] : first_U1[u + 1]): the keys of their bands (U x B), the number of their
    distinct shingles, and a hash of the set of shingles, the same whatever their order. A text without shingles has
    the count 0 and its keys are left as they are."""
    longest = most_words(start_S, end_S, first_U1)
    words_W, at_W = np.empty(longest, np.uint64), np.empty((longest, 2), np.int64)
    table_T, shingles_H = np.empty(4 * longest + 4, np.uint64), np.empty(longest, np.uint64)
    minima_P = np.empty(len(factors_P), np.uint32)
    rows = len(factors_P) // num_bands
    for unit in range(len(first_U1) - 1):
        count = distinct_shingles(data_B, start_S, end_S, salt_S, first_U1[unit], first_U1[unit + 1], kind, fold, size,
                                  words_W, at_W, table_T, shingles_H)  # fmt: skip
        count_U[unit] = count
        if count == 0:
            set_U[unit] = 0
            continue
        total = np.uint64(count)
        for index in range(count):
            total += mix(shingles_H[index] * np.uint64(0x9E3779B97F4A7C15))
        set_U[unit] = np.int64(mix(total))
        minima_of(shingles_H, count, factors_P, addends_P, minima_P)
        for band in range(num_bands):
            value = np.uint64(band + 1)
            for row in range(rows):
                value = mix(value * np.uint64(0x9E3779B97F4A7C15) + np.uint64(minima_P[band * rows + row]))
            keys_UB[unit, band] = np.int64(value)


@njit(cache=True)
def sorted_shingles(data_B, start_S, end_S, salt_S, first_U1, kind, fold, size, out_H, first_H1):  # type: ignore[no-untyped-def]
    """Write the distinct shingles of U texts to out_H, ascending within a text, and where each text's begin to
    first_H1 (U + 1). `out_H` needs room for the counts that `signatures` gives."""
    longest = most_words(start_S, end_S, first_U1)
    words_W, at_W = np.empty(longest, np.uint64), np.empty((longest, 2), np.int64)
    table_T, shingles_H = np.empty(4 * longest + 4, np.uint64), np.empty(longest, np.uint64)
    first_H1[0] = 0
    for unit in range(len(first_U1) - 1):
        count = distinct_shingles(data_B, start_S, end_S, salt_S, first_U1[unit], first_U1[unit + 1], kind, fold, size,
                                  words_W, at_W, table_T, shingles_H)  # fmt: skip
        at = first_H1[unit]
        shingles_H[:count].sort()
        out_H[at : at + count] = shingles_H[:count]
        first_H1[unit + 1] = at + count
