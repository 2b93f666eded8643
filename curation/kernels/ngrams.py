"""N-grams of words: which ones a set of reference texts has, and where rows have the same.

Grams of several sizes stand in one table, because their hashes differ. A bitmap of 2 MiB over their first three words
answers most misses from the cache, for all sizes at once; another over whole grams saves most of the other look-ups.
All functions are single-threaded and take and return plain arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.kernels.words import hash_ngram, hash_words, mix

BITMAP_WORDS = 1 << 18  # 64-bit words: 16.7 M bits
PREFIX = 3  # words: no gram is shorter
PHI = np.uint64(0x9E3779B97F4A7C15)

Words = npt.NDArray[np.uint64]


@njit(cache=True)
def hash_stretches(data_B, start_S, end_S, first_N1, kind, fold, room):  # type: ignore[no-untyped-def]
    """The words of every row, run on over its stretches: (hashes W, byte offsets W x 2, stretch of each word W, index
    of the first word of each row N + 1). `room` is an upper bound of the number of words."""
    words_W = np.empty(room, np.uint64)
    at_W = np.empty((room, 2), np.int64)
    of_W = np.empty(room, np.int32)
    first_word_N1 = np.zeros(len(first_N1), np.int64)
    count = 0
    for row in range(len(first_N1) - 1):
        for stretch in range(first_N1[row], first_N1[row + 1]):
            before = count
            count = hash_words(data_B, start_S[stretch], end_S[stretch], kind, fold, words_W, at_W, count)
            of_W[before:count] = stretch
        first_word_N1[row + 1] = count
    return words_W[:count], at_W[:count], of_W[:count], first_word_N1


@njit(cache=True)
def reference_grams(words_W, first_R1, size_R):  # type: ignore[no-untyped-def]
    """The distinct n-grams of each reference, n = size_R (0: none): (hash, reference, word position of its first
    place), in the order of references and positions."""
    room = 0
    for reference in range(len(size_R)):
        if size_R[reference]:
            room += max(0, first_R1[reference + 1] - first_R1[reference] - size_R[reference] + 1)
    hash_G, ref_G, at_G = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.int32)
    count = 0
    for reference in range(len(size_R)):
        size = size_R[reference]
        if size == 0:
            continue
        seen = set()
        for place in range(first_R1[reference], first_R1[reference + 1] - size + 1):
            value = hash_ngram(words_W, place, size)
            if value not in seen:
                seen.add(value)
                hash_G[count], ref_G[count], at_G[count] = value, reference, place - first_R1[reference]
                count += 1
    return hash_G[:count], ref_G[:count], at_G[:count]


@njit(cache=True)
def gram_bits(distinct_G, bits):  # type: ignore[no-untyped-def]
    """Set the bit of every gram."""
    mask = np.uint64(len(bits) * 64 - 1)
    for key in distinct_G:
        bits[(key & mask) >> np.uint64(6)] |= np.uint64(1) << (key & np.uint64(63))


@njit(cache=True)
def prefix_bits(words_W, first_R1, size_R, bits):  # type: ignore[no-untyped-def]
    """Set the bit of the first PREFIX words of every gram: what `scan` asks first."""
    mask = np.uint64(len(bits) * 64 - 1)
    for reference in range(len(size_R)):
        if size_R[reference]:
            for place in range(first_R1[reference], first_R1[reference + 1] - size_R[reference] + 1):
                bit = hash_ngram(words_W, place, PREFIX) & mask
                bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))


@njit(cache=True)
def fill_table(distinct_G, keys_C, values_C):  # type: ignore[no-untyped-def]
    """Put hash -> its index in `distinct_G` into an open-addressing table (capacity a power of two, key 0 is empty)."""
    mask = np.uint64(len(keys_C) - 1)
    for index in range(len(distinct_G)):
        key = distinct_G[index]
        place = (key >> np.uint64(24)) & mask
        while keys_C[place] != 0:
            place = (place + np.uint64(1)) & mask
        keys_C[place], values_C[place] = key, index


@njit(cache=True)
def rarest_grams(num_words, first_R1, size_R, ref_P, at_P, items_P, most):  # type: ignore[no-untyped-def]
    """In how many items the rarest gram over each word stands (W); `most` where no posting covers it. Posting p says
    that the reference ref_P[p] has at its word at_P[p] a gram of items_P[p] items."""
    out = np.full(num_words, most, np.int32)
    for post in range(len(ref_P)):
        first = first_R1[ref_P[post]] + at_P[post]
        for word in range(first, first + size_R[ref_P[post]]):
            out[word] = min(out[word], items_P[post])
    return out


@njit(cache=True, inline="always")
def look_up(key, keys_C, values_C):  # type: ignore[no-untyped-def]
    """The index of a gram, -1 where there is none."""
    mask = np.uint64(len(keys_C) - 1)
    place = (key >> np.uint64(24)) & mask
    while keys_C[place] != 0:
        if keys_C[place] == key:
            return values_C[place]
        place = (place + np.uint64(1)) & mask
    return -1


@njit(cache=True)
def scan(data_B, start_S, end_S, first_N1, kind, fold, wanted, keys_C, values_C,  # type: ignore[no-untyped-def]
         bits, whole_bits, rows_G, last_G, first_row):  # fmt: skip
    """Where rows have grams of the table: (row, gram, word position), in that order of rows and positions.

    `wanted[n]` says whether grams of n words exist, n >= PREFIX. The number of rows that have a gram is added to
    rows_G; last_G (the last row counted, -1 at first) must be kept between calls of one part. Rows are numbered from
    `first_row` on.
    """
    longest = 0
    for row in range(len(first_N1) - 1):
        size = 0
        for stretch in range(first_N1[row], first_N1[row + 1]):
            size += (end_S[stretch] - start_S[stretch]) // 2 + 1
        longest = max(longest, size)
    words_W, at_W = np.empty(longest + 1, np.uint64), np.empty((longest + 1, 2), np.int64)
    prefix_W, passed_W = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.int32)
    row_F, gram_F, at_F = np.empty(1024, np.int32), np.empty(1024, np.int32), np.empty(1024, np.int32)
    found = 0
    most = len(wanted) - 1
    bit_mask, whole_mask = np.uint64(len(bits) * 64 - 1), np.uint64(len(whole_bits) * 64 - 1)
    for row in range(len(first_N1) - 1):
        count = 0
        for stretch in range(first_N1[row], first_N1[row + 1]):
            count = hash_words(data_B, start_S[stretch], end_S[stretch], kind, fold, words_W, at_W, count)
        passed = np.int64(0)
        for place in range(count - PREFIX + 1):
            value = np.uint64(0)
            for step in range(PREFIX):
                value = value * PHI + words_W[place + step]
            prefix_W[place] = value
            bit = mix(value) & bit_mask
            passed_W[passed] = place
            passed += np.int64((bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))
        needed = found + passed * (most - PREFIX + 1)
        if needed > len(row_F):
            room = needed + len(row_F)
            row_F = np.concatenate((row_F[:found], np.empty(room - found, np.int32)))
            gram_F = np.concatenate((gram_F[:found], np.empty(room - found, np.int32)))
            at_F = np.concatenate((at_F[:found], np.empty(room - found, np.int32)))
        for index in range(passed):
            place = passed_W[index]
            value = prefix_W[place]
            for size in range(PREFIX, min(most, count - place) + 1):
                if size > PREFIX:
                    value = value * PHI + words_W[place + size - 1]
                if not wanted[size]:
                    continue
                key = mix(value)
                bit = key & whole_mask
                if not (whole_bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
                    continue
                gram = look_up(key, keys_C, values_C)
                if gram >= 0:
                    row_F[found], gram_F[found], at_F[found] = first_row + row, gram, place
                    found += 1
                    if last_G[gram] != first_row + row:
                        last_G[gram] = first_row + row
                        rows_G[gram] += 1
    return row_F[:found], gram_F[:found], at_F[:found]
