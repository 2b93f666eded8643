"""From seeds to candidates: which references a row may hold, and where."""

from __future__ import annotations

import numpy as np
from numba import njit

BIAS = 1 << 31  # diagonals are negative where the reference begins before the row
PIECES = 3  # clusters of seeds kept per candidate: an item may be split over turns
DIAGONALS = 8  # seeds whose diagonals differ by no more belong together
COMMON, RARE = 2, 1  # frequencies of grams: boilerplate; so rare that a single one is a seed
BROKEN = 8  # places: a common gram counts only in an unbroken run of so many, which may become a long agreement
WHOLE_WORDS = 12  # a whole item of so many words is found however frequent it is


@njit(cache=True)
def unbroken(at_F, first, end, run_S):  # type: ignore[no-untyped-def]
    """Write to run_S, for each seed first .. end - 1 of a row, the length of the unbroken run of places with any gram
    around it."""
    begin = first
    while begin < end:
        last = begin
        while last + 1 < end and at_F[last + 1] <= at_F[last] + 1:
            last += 1
        run_S[begin - first : last + 1 - first] = at_F[last] - at_F[begin] + 1
        begin = last + 1


@njit(cache=True)
def spread(gram_F, at_F, first, end, frequency_G, run_S, post_first_G1, post_ref_P, post_at_P):  # type: ignore[no-untyped-def]
    """The seeds of a row with each reference that has them: (reference << 33 | diagonal + BIAS, seed << 32 | word of
    the reference), sorted by the first."""
    room = 0
    for seed in range(first, end):
        if frequency_G[gram_F[seed]] != COMMON or run_S[seed - first] >= BROKEN:
            room += post_first_G1[gram_F[seed] + 1] - post_first_G1[gram_F[seed]]
    keys_K, which_K = np.empty(room, np.int64), np.empty(room, np.int64)
    count = 0
    for seed in range(first, end):
        gram = gram_F[seed]
        if frequency_G[gram] == COMMON and run_S[seed - first] < BROKEN:
            continue
        for post in range(post_first_G1[gram], post_first_G1[gram + 1]):
            keys_K[count] = np.int64(post_ref_P[post]) << 33 | (np.int64(at_F[seed]) - post_at_P[post] + BIAS)
            which_K[count] = np.int64(seed) << 32 | np.int64(post_at_P[post])
            count += 1
    order = np.argsort(keys_K, kind="mergesort")
    return keys_K[order], which_K[order]


@njit(cache=True)
def gather(keys_K, which_K, place, size, gram_F, at_F, frequency_G, idf_G, piece, idf_I, num_I):  # type: ignore[no-untyped-def]
    """Cluster the seeds of one reference from `place` on by diagonal, and write the PIECES clusters of largest idf,
    best first: piece (first and end word in the row, in the reference), idf_I, num_I (seeds). Returns (the place after
    the reference, clusters written, longest exact run in words, whether a gram is rare, seeds and idf of the clusters
    written). Common grams lengthen runs and pieces only."""
    ref = keys_K[place] >> 33
    used, longest, rare = 0, 0, False
    while place < len(keys_K) and keys_K[place] >> 33 == ref:
        idf, num = 0.0, 0
        low, high, ref_low, ref_high = np.int64(1) << 40, np.int64(-1), np.int64(1) << 40, np.int64(-1)
        before, run, run_at, run_key = keys_K[place], 0, np.int64(-2), np.int64(-1)
        while place < len(keys_K) and keys_K[place] >> 33 == ref and keys_K[place] - before <= DIAGONALS:
            before = keys_K[place]
            seed, ref_at = which_K[place] >> 32, which_K[place] & 0xFFFFFFFF
            at = np.int64(at_F[seed])
            run = run + 1 if before == run_key and at == run_at + 1 else 1
            run_at, run_key = at, before
            longest = max(longest, run + size - 1)
            if frequency_G[gram_F[seed]] != COMMON:
                rare |= frequency_G[gram_F[seed]] == RARE
                idf += idf_G[gram_F[seed]]
                num += 1
            low, high = min(low, at), max(high, at + size)
            ref_low, ref_high = min(ref_low, ref_at), max(ref_high, ref_at + size)
            place += 1
        slot = used
        while slot > 0 and idf_I[slot - 1] < idf:
            slot -= 1
        if slot < PIECES:
            used = min(PIECES, used + 1)
            for later in range(used - 1, slot, -1):
                idf_I[later], num_I[later], piece[later] = idf_I[later - 1], num_I[later - 1], piece[later - 1]
            idf_I[slot], num_I[slot] = idf, num
            piece[slot, 0], piece[slot, 1], piece[slot, 2], piece[slot, 3] = low, high, ref_low, ref_high
    seeds, idf = np.int64(0), 0.0
    for slot in range(used):
        seeds += num_I[slot]
        idf += idf_I[slot]
    return place, used, longest, rare, seeds, idf


@njit(cache=True)
def best_per_place(idf_C, piece_C, per_place, place_words):  # type: ignore[no-untyped-def]
    """Which candidates of one row are kept, best first: per `place_words` words of the row the `per_place` best, ties
    in the order given."""
    order = np.argsort(-idf_C, kind="mergesort")
    kept = np.empty(len(order), np.int64)
    count = 0
    for index in order:
        same = 0
        for other in range(count):
            same += piece_C[kept[other], 0, 0] // place_words == piece_C[index, 0, 0] // place_words
        if same < per_place:
            kept[count] = index
            count += 1
    return kept[:count]


@njit(cache=True)
def move_to_front(fact_C, idf_C, piece_C, first, end, kept):  # type: ignore[no-untyped-def]
    """Keep of the candidates first .. end - 1 those of `kept`, in that order; returns the new end."""
    facts, idfs, pieces = fact_C[first:end].copy(), idf_C[first:end].copy(), piece_C[first:end].copy()
    for place in range(len(kept)):
        fact_C[first + place] = facts[kept[place] - first]
        idf_C[first + place] = idfs[kept[place] - first]
        piece_C[first + place] = pieces[kept[place] - first]
    return first + len(kept)


@njit(cache=True)
def rank(row_F, gram_F, at_F, frequency_G, post_first_G1, post_ref_P, post_at_P, idf_G,  # type: ignore[no-untyped-def]
         size_R, words_R, need_R, long_run, per_place, place_words):  # fmt: skip
    """The candidates of every row, by row and rank: (C x 5: row, reference, seeds, longest exact run in words, pieces
    used; rank C; pieces C x PIECES x 4).

    Seeds are those of `scan`. A candidate has need_R seeds that are not common, a single one being rare; or a run of
    `long_run` words, or of the whole reference where it has WHOLE_WORDS. Of those `best_per_place` are kept by summed
    idf / (words + 3).
    """
    fact_C, idf_C = np.empty((1024, 5), np.int32), np.empty(1024, np.float64)
    piece_C = np.empty((1024, PIECES, 4), np.int32)
    piece, idf_I, num_I = np.empty((PIECES, 4), np.int32), np.empty(PIECES), np.empty(PIECES, np.int32)
    found, begin = 0, 0
    while begin < len(row_F):
        end = begin + 1
        while end < len(row_F) and row_F[end] == row_F[begin]:
            end += 1
        run_S = np.empty(end - begin, np.int32)
        unbroken(at_F, begin, end, run_S)
        keys_K, which_K = spread(gram_F, at_F, begin, end, frequency_G, run_S, post_first_G1, post_ref_P, post_at_P)
        first, place = found, 0
        while place < len(keys_K):
            ref = keys_K[place] >> 33
            place, used, run, rare, seeds, idf = gather(
                keys_K, which_K, place, size_R[ref], gram_F, at_F, frequency_G, idf_G, piece, idf_I, num_I
            )
            enough = seeds >= need_R[ref] and (seeds > 1 or rare)
            if not enough and run < min(long_run, max(WHOLE_WORDS, words_R[ref])):
                continue
            if found == len(idf_C):  # concatenate and fancy indices compile slowly
                more_fact, more_idf = np.empty((2 * found, 5), np.int32), np.empty(2 * found, np.float64)
                more_piece = np.empty((2 * found, PIECES, 4), np.int32)
                more_fact[:found], more_idf[:found], more_piece[:found] = fact_C, idf_C, piece_C
                fact_C, idf_C, piece_C = more_fact, more_idf, more_piece
            fact_C[found, 0], fact_C[found, 1], fact_C[found, 2] = row_F[begin], ref, seeds
            fact_C[found, 3], fact_C[found, 4] = run, used
            idf_C[found], piece_C[found] = idf / (words_R[ref] + 3.0), piece
            found += 1
        kept = first + best_per_place(idf_C[first:found], piece_C[first:found], per_place, place_words)
        found = move_to_front(fact_C, idf_C, piece_C, first, found, kept)
        begin = end
    return fact_C[:found], idf_C[:found], piece_C[:found]
