"""N-grams of words: which ones a set of reference texts has, and where rows have the same.

Grams of several sizes stand in one table, because their hashes differ: they are sorted by 2^k buckets, with an average
of one or two grams each, so that a look-up reads one range. A bitmap of 2 MiB over their first three words
answers most misses from the cache, for all sizes at once; another over whole grams saves most of the other look-ups.
All functions are single-threaded and take and return plain arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.kernels.words import hash_ngram, hash_words, mix, word_hashes

BITMAP_WORDS = 1 << 18  # 64-bit words: 16.7 M bits
PREFIX = 3  # words: no gram is shorter
DIGIT = 10  # bits a pass of the radix sort
DIGITS = (1 << DIGIT) - 1
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
    """The n-grams of each reference, n = size_R (0: none): (hash, reference << 32 | word position), in the order of
    references and positions."""
    room = 0
    for reference in range(len(size_R)):
        if size_R[reference]:
            room += max(0, first_R1[reference + 1] - first_R1[reference] - size_R[reference] + 1)
    hash_P, post_P = np.empty(room, np.uint64), np.empty(room, np.int64)
    count = 0
    for reference in range(len(size_R)):
        size, first = size_R[reference], first_R1[reference]
        if size:
            for place in range(first_R1[reference + 1] - first - size + 1):
                hash_P[count], post_P[count] = hash_ngram(words_W, first + place, size), reference << 32 | place
                count += 1
    return hash_P, post_P


@njit(cache=True, inline="always")
def bucket_of(key, mask):  # type: ignore[no-untyped-def]
    """The bucket of a gram: bits that neither bitmap takes first."""
    return np.int64((key >> np.uint64(24)) & np.uint64(mask))


@njit(cache=True)
def sort_by_bucket(hash_P, post_P, num_bits):  # type: ignore[no-untyped-def]
    """Both arrays in the order of 2 ** num_bits buckets, those of a bucket in their old order: a radix sort, which
    overwrites them."""
    mask = (1 << num_bits) - 1
    other_hash_P, other_post_P = np.empty_like(hash_P), np.empty_like(post_P)
    for shift in range(0, num_bits, DIGIT):
        first_D = np.zeros(DIGITS + 2, np.int64)
        for key in hash_P:
            first_D[(bucket_of(key, mask) >> shift & DIGITS) + 1] += 1
        first_D = np.cumsum(first_D)
        for index in range(len(hash_P)):
            digit = bucket_of(hash_P[index], mask) >> shift & DIGITS
            place = first_D[digit]
            other_hash_P[place], other_post_P[place] = hash_P[index], post_P[index]
            first_D[digit] = place + 1
        hash_P, other_hash_P = other_hash_P, hash_P
        post_P, other_post_P = other_post_P, post_P
    return hash_P, post_P


@njit(cache=True)
def group_grams(hash_P, post_P, item_R, item_cap, num_bits):  # type: ignore[no-untyped-def]
    """The distinct grams of `sort_by_bucket` that stand in no more than `item_cap` items: (hash G, items G, index of
    the first posting G + 1, reference P, word position P, index of each bucket's first gram C + 1). A gram's postings
    are in the order of references, each reference once, with its first place. `post_P` is overwritten."""
    mask, room = (1 << num_bits) - 1, len(hash_P)
    keys_G, items_G = np.empty(room, np.uint64), np.empty(room, np.int32)
    post_first_G1, first_C1 = np.zeros(room + 1, np.int32), np.zeros((1 << num_bits) + 1, np.int32)
    ref_P, at_P = np.empty(room, np.int32), np.empty(room, np.int32)
    grams, begin, bucket = 0, 0, 0
    while begin < room:
        bucket = bucket_of(hash_P[begin], mask)
        end = begin + 1
        while end < room and bucket_of(hash_P[end], mask) == bucket:
            end += 1
        for index in range(begin, end):
            if post_P[index] < 0:
                continue
            key, post, items = hash_P[index], post_first_G1[grams], 0
            ref, item = np.int64(-1), np.int64(-1)
            for other in range(index, end):
                if hash_P[other] == key:
                    mine = post_P[other] >> 32
                    if mine != ref:
                        ref, items, item = mine, items + (item_R[mine] != item), item_R[mine]
                        ref_P[post], at_P[post] = ref, post_P[other] & 0xFFFFFFFF
                        post += 1
                    post_P[other] = -1
            if items <= item_cap:
                keys_G[grams], items_G[grams], post_first_G1[grams + 1] = key, items, post
                grams += 1
        first_C1[bucket + 1] = grams
        begin = end
    for bucket in range(1 << num_bits):
        first_C1[bucket + 1] = max(first_C1[bucket], first_C1[bucket + 1])
    posts = post_first_G1[grams]
    return keys_G[:grams], items_G[:grams], post_first_G1[: grams + 1], ref_P[:posts], at_P[:posts], first_C1


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
def words_of_rare_grams(num_words, first_R1, size_R, post_first_G1, ref_P, at_P, items_G, less):  # type: ignore[no-untyped-def]
    """Which words (W) a gram covers that stands in less than `less` items."""
    out_W = np.zeros(num_words, np.bool_)
    for gram in range(len(items_G)):
        if items_G[gram] < less:
            for post in range(post_first_G1[gram], post_first_G1[gram + 1]):
                first = first_R1[ref_P[post]] + at_P[post]
                out_W[first : first + size_R[ref_P[post]]] = True
    return out_W


@njit(cache=True, inline="always")
def has_bit(bits, key):  # type: ignore[no-untyped-def]
    """1 where the bit of a key is set, else 0; unsigned."""
    bit = key & np.uint64(len(bits) * 64 - 1)
    return (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1)


@njit(cache=True)
def seeds_of_row(words_W, count, wanted, bits, whole_bits, at_S, key_S):  # type: ignore[no-untyped-def]
    """Write the word positions and hashes of the grams of a row that both bitmaps know to at_S and key_S, in the order
    of positions and sizes; returns how many. Both need room for one per word and size. No step branches on what a
    bitmap says, and hashes are made before bitmaps are asked: the processor then waits for many answers at once."""
    for place in range(count - PREFIX + 1):
        key_S[place] = mix((words_W[place] * PHI + words_W[place + 1]) * PHI + words_W[place + 2])
    passed = np.uint64(0)
    for place in range(count - PREFIX + 1):
        at_S[passed] = place
        passed += has_bit(bits, key_S[place])
    num_keys, most = np.uint64(0), len(wanted) - 1
    passed_S = at_S[: np.int64(passed)].copy()
    for place in passed_S:
        value = (words_W[place] * PHI + words_W[place + 1]) * PHI
        for size in range(PREFIX, min(most, count - place) + 1):
            value = (value if size == PREFIX else value * PHI) + words_W[place + size - 1]
            at_S[num_keys], key_S[num_keys] = place, mix(value)
            num_keys += np.uint64(wanted[size])
    found = np.uint64(0)
    for index in range(np.int64(num_keys)):
        at_S[found], key_S[found] = at_S[index], key_S[index]
        found += has_bit(whole_bits, key_S[found])
    return np.int64(found)


@njit(cache=True)
def scan(data_B, start_S, end_S, first_N1, kind, fold, wanted, keys_G, first_C1,  # type: ignore[no-untyped-def]
         bits, whole_bits, tally_G, first_row):  # fmt: skip
    """Where rows have grams of the table: (row, gram, word position), in that order of rows and positions.

    `wanted[n]` says whether grams of n words exist, n >= PREFIX. tally_G, zero at first, must be kept between calls of
    one part: the last row that has a gram, counted from 1, << 32 | the number of rows that have it. Rows are numbered
    from `first_row` on.
    """
    longest = 0
    for row in range(len(first_N1) - 1):
        size = 0
        for stretch in range(first_N1[row], first_N1[row + 1]):
            size += (end_S[stretch] - start_S[stretch]) // 2 + 1
        longest = max(longest, size)
    room = longest * (len(wanted) - PREFIX) + 1
    words_W, at_S, key_S = np.empty(longest + 1, np.uint64), np.empty(room, np.int32), np.empty(room, np.uint64)
    row_F, gram_F, at_F = np.empty(1024, np.int32), np.empty(1024, np.int32), np.empty(1024, np.int32)
    found, mask = np.int64(0), len(first_C1) - 2
    for row in range(len(first_N1) - 1):
        count, first, number = 0, found, first_row + row
        for stretch in range(first_N1[row], first_N1[row + 1]):
            count = word_hashes(data_B, start_S[stretch], end_S[stretch], kind, fold, words_W, count)
        seeds = seeds_of_row(words_W, count, wanted, bits, whole_bits, at_S, key_S)
        if found + seeds > len(row_F):
            more = np.empty(seeds + len(row_F), np.int32)
            row_F = np.concatenate((row_F[:found], more))
            gram_F, at_F = np.concatenate((gram_F[:found], more)), np.concatenate((at_F[:found], more))
        for seed in range(seeds):
            bucket = bucket_of(key_S[seed], mask)
            gram, end = first_C1[bucket], first_C1[bucket + 1]
            while gram < end and keys_G[gram] != key_S[seed]:
                gram += 1
            row_F[found], gram_F[found], at_F[found] = number, gram, at_S[seed]
            found += np.int64(gram < end)
        for gram in gram_F[first:found]:
            if tally_G[gram] >> 32 != number + 1:
                tally_G[gram] = (number + 1) << 32 | ((tally_G[gram] & 0xFFFFFFFF) + 1)
    return row_F[:found], gram_F[:found], at_F[:found]
