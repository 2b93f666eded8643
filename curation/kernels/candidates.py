"""From seeds to candidates: which references a row may hold, and where."""

from __future__ import annotations

import numpy as np
from numba import njit

BIAS = 1 << 31  # diagonals are negative where the reference begins before the row
PIECES = 3  # clusters of seeds kept per candidate: an item may be split over turns
FEW = 48  # seeds that are sorted by insertion
DIAGONALS = 8  # seeds whose diagonals differ by no more belong together
COMMON, RARE = 2, 1  # frequencies of grams: boilerplate; so rare that a single one is a seed
BROKEN = 8  # places: a common gram counts only in an unbroken run of so many, which may become a long agreement
MOST = (1 << 28) - 1  # seeds of one reference in a row that are counted
USEFUL, ONE_RARE = 1 << 28, 1 << 56  # of a tally, which counts all seeds in its lowest bits
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
def sort_by_key(keys_K, which_K):  # type: ignore[no-untyped-def]
    """Sort both by the first; equal keys keep their order."""
    if len(keys_K) > FEW:
        order = np.argsort(keys_K, kind="mergesort")
        keys_K[:], which_K[:] = keys_K[order], which_K[order]
        return
    for place in range(1, len(keys_K)):
        key, which, slot = keys_K[place], which_K[place], place
        while slot and keys_K[slot - 1] > key:
            keys_K[slot], which_K[slot] = keys_K[slot - 1], which_K[slot - 1]
            slot -= 1
        keys_K[slot], which_K[slot] = key, which


@njit(cache=True)
def spread(gram_F, at_F, first, end, frequency_G, run_S, post_first_G1, post_ref_P, post_at_P,  # type: ignore[no-untyped-def]
           tally_R, need_R, run_R):  # fmt: skip
    """The seeds of a row with each reference that has enough of them: (reference << 33 | diagonal + BIAS, seed << 32 |
    word of the reference), sorted by the first. Enough are need_R that are not common, a single one being rare, or
    run_R of any kind: most references share a phrase or two with a row, and are left out before anything is sorted.
    `tally_R` is scratch, zero before and after."""
    room = 0
    for seed in range(first, end):
        if frequency_G[gram_F[seed]] != COMMON or run_S[seed - first] >= BROKEN:
            room += post_first_G1[gram_F[seed] + 1] - post_first_G1[gram_F[seed]]
    ref_K, keys_K, which_K = np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.int64)
    seen = 0
    for seed in range(first, end):
        gram = gram_F[seed]
        frequency = frequency_G[gram]
        if frequency == COMMON and run_S[seed - first] < BROKEN:
            continue
        add = np.int64(1) if frequency == COMMON else np.int64(1 + USEFUL)
        rare = np.int64(ONE_RARE if frequency == RARE else 0)
        for post in range(post_first_G1[gram], post_first_G1[gram + 1]):
            ref = post_ref_P[post]
            tally_R[ref] = (tally_R[ref] + add) | rare
            ref_K[seen], which_K[seen] = ref, np.int64(seed) << 32 | np.int64(post_at_P[post])
            keys_K[seen] = np.int64(ref) << 33 | (np.int64(at_F[seed]) - post_at_P[post] + BIAS)
            seen += 1
    count = 0
    for place in range(seen):
        ref = ref_K[place]
        seeds, useful, rare = tally_R[ref] & MOST, (tally_R[ref] >> 28) & MOST, tally_R[ref] >= ONE_RARE
        if seeds >= run_R[ref] or (useful >= need_R[ref] and (useful > 1 or rare)):
            keys_K[count], which_K[count] = keys_K[place], which_K[place]
            count += 1
    for ref in ref_K[:seen]:
        tally_R[ref] = 0
    sort_by_key(keys_K[:count], which_K[:count])
    return keys_K[:count], which_K[:count]


@njit(cache=True)
def gather(keys_K, which_K, place, size, gram_F, at_F, frequency_G, items_G, idf_I,  # type: ignore[no-untyped-def]
           piece, idf_P, num_P):  # fmt: skip
    """Cluster the seeds of one reference from `place` on by diagonal, and write the PIECES clusters of largest idf,
    best first: piece (first and end word in the row, in the reference), idf_P, num_P (seeds). Returns (the place after
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
                idf += idf_I[items_G[gram_F[seed]]]
                num += 1
            low, high = min(low, at), max(high, at + size)
            ref_low, ref_high = min(ref_low, ref_at), max(ref_high, ref_at + size)
            place += 1
        slot = used
        while slot > 0 and idf_P[slot - 1] < idf:
            slot -= 1
        if slot < PIECES:
            used = min(PIECES, used + 1)
            for later in range(used - 1, slot, -1):
                idf_P[later], num_P[later], piece[later] = idf_P[later - 1], num_P[later - 1], piece[later - 1]
            idf_P[slot], num_P[slot] = idf, num
            piece[slot, 0], piece[slot, 1], piece[slot, 2], piece[slot, 3] = low, high, ref_low, ref_high
    seeds, idf = np.int64(0), 0.0
    for slot in range(used):
        seeds += num_P[slot]
        idf += idf_P[slot]
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
def rank(row_F, gram_F, at_F, frequency_G, post_first_G1, post_ref_P, post_at_P, items_G,  # type: ignore[no-untyped-def]
         idf_I, size_R, words_R, need_R, long_run, per_place, place_words):  # fmt: skip
    """The candidates of every row, by row and rank: (C x 5: row, reference, seeds, longest exact run in words, pieces
    used; rank C; pieces C x PIECES x 4).

    Seeds are those of `scan`; idf_I is the inverse item frequency by number of items. A candidate has need_R seeds that
    are not common, a single one being rare; or a run of `long_run` words, or of the whole reference where it has
    WHOLE_WORDS. Of those `best_per_place` are kept by summed idf / (words + 3).
    """
    fact_C, idf_C = np.empty((1024, 5), np.int32), np.empty(1024, np.float64)
    piece_C = np.empty((1024, PIECES, 4), np.int32)
    piece, idf_P, num_P = np.empty((PIECES, 4), np.int32), np.empty(PIECES), np.empty(PIECES, np.int32)
    least_R = np.minimum(long_run, np.maximum(WHOLE_WORDS, words_R))
    tally_R, run_R = np.zeros(len(size_R), np.int64), least_R - size_R + 1
    found, begin = 0, 0
    while begin < len(row_F):
        end = begin + 1
        while end < len(row_F) and row_F[end] == row_F[begin]:
            end += 1
        run_S = np.empty(end - begin, np.int32)
        unbroken(at_F, begin, end, run_S)
        keys_K, which_K = spread(gram_F, at_F, begin, end, frequency_G, run_S, post_first_G1, post_ref_P, post_at_P,
                                 tally_R, need_R, run_R)  # fmt: skip
        first, place = found, 0
        while place < len(keys_K):
            ref = keys_K[place] >> 33
            place, used, run, rare, seeds, idf = gather(
                keys_K, which_K, place, size_R[ref], gram_F, at_F, frequency_G, items_G, idf_I, piece, idf_P, num_P
            )
            enough = seeds >= need_R[ref] and (seeds > 1 or rare)
            if not enough and run < least_R[ref]:
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
