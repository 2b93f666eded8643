"""Alignment of a reference text with a window of a row: bit-parallel over characters, dynamic programming over words.

Characters are symbols of one byte: the folded code point where it is ASCII, else one of 128 values by its hash. Words
are joined by one space; characters that stand alone (Chinese, Japanese, Thai) by nothing, or spaces would fill half of
such a text and always agree.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from curation.kernels.words import PLAIN_LETTERS, code_point, mix

SPACE = 32


@njit(cache=True)
def symbols_of(data_B, at_W, chosen_K, kind, fold, out_M, word_M):  # type: ignore[no-untyped-def]
    """Write the symbols of the words `chosen_K` (indices into at_W) to out_M, and for each symbol the index in
    `chosen_K` of its word to word_M; returns how many. A space belongs to the word after it."""
    count = 0
    after_letters = False
    for index in range(len(chosen_K)):
        place, end = at_W[chosen_K[index], 0], at_W[chosen_K[index], 1]
        first = count
        while place < end:
            letter = PLAIN_LETTERS[data_B[place]]
            if letter < 128 and (count > first or not after_letters):
                after_letters = True
                out_M[count], word_M[count] = letter, index
                count, place = count + 1, place + 1
                continue
            code, size = code_point(data_B, place)
            place += size
            what = kind[code] if code < 65536 else 2
            if what == 3:
                continue
            if count == first and what == 1 and after_letters:
                out_M[count], word_M[count] = SPACE, index
                count += 1
            after_letters = what == 1
            folded = np.int64(fold[code]) if code < 65536 else code
            symbol = folded if folded < 128 else 128 + np.int64(mix(np.uint64(folded)) & np.uint64(127))
            out_M[count], word_M[count] = symbol, index
            count += 1
    return count


@njit(cache=True)
def reference_symbols(data_B, at_W, first_R1, kind, fold):  # type: ignore[no-untyped-def]
    """The symbols of every reference, one after the other, and where each reference's begin (R + 1)."""
    out_M, word_M = np.empty(len(data_B) + len(at_W) + 1, np.uint8), np.empty(len(data_B) + len(at_W) + 1, np.int32)
    first_symbol_R1 = np.zeros(len(first_R1), np.int64)
    count = 0
    for reference in range(len(first_R1) - 1):
        chosen = np.arange(first_R1[reference], first_R1[reference + 1])
        count += symbols_of(data_B, at_W, chosen, kind, fold, out_M[count:], word_M)
        first_symbol_R1[reference + 1] = count
    return out_M[:count].copy(), first_symbol_R1


@njit(cache=True)
def character_masks(pattern_M, masks):  # type: ignore[no-untyped-def]
    """Set bit i of masks[symbol, i // 64] where pattern_M[i] is the symbol. `masks` must be zero."""
    for index in range(len(pattern_M)):
        masks[pattern_M[index], index >> 6] |= np.uint64(1) << np.uint64(index & 63)


@njit(cache=True)
def distances(masks, size, text_T, free, plus_B, minus_B, out_T):  # type: ignore[no-untyped-def]
    """Edit distance of the whole pattern (`size` symbols) to the best stretch of the text that ends at each symbol, in
    out_T; the stretch may begin anywhere where `free`, else at the text's first symbol.

    Myers' bit-vector algorithm in blocks of 64 (Myers 1999; Hyyrö 2003, figure 8). plus_B and minus_B are scratch, one
    word a block.
    """
    blocks = (size + 63) >> 6
    one, high = np.uint64(1), np.uint64(63)
    last = np.uint64((size - 1) & 63)
    for block in range(blocks):
        plus_B[block], minus_B[block] = ~np.uint64(0), np.uint64(0)
    distance = size
    first_up = np.uint64(0 if free else 1)
    for place in range(len(text_T)):
        symbol = text_T[place]
        carry_up, carry_down = first_up, np.uint64(0)  # no branches: they would be mispredicted half of the time
        for block in range(blocks):
            plus, minus, equal = plus_B[block], minus_B[block], masks[symbol, block]
            vertical = equal | minus
            equal |= carry_down
            horizontal = (((equal & plus) + plus) ^ plus) | equal
            up = minus | ~(horizontal | plus)
            down = plus & horizontal
            top = last if block == blocks - 1 else high
            next_up, next_down = (up >> top) & one, (down >> top) & one
            up = (up << one) | carry_up
            down = (down << one) | carry_down
            plus_B[block] = down | ~(vertical | up)
            minus_B[block] = up & vertical
            carry_up, carry_down = next_up, next_down
        distance += np.int64(carry_up) - np.int64(carry_down)
        out_T[place] = distance


@njit(cache=True)
def align(pattern_M, text_T, most):  # type: ignore[no-untyped-def]
    """(distance, first, end) of the stretch of the text that is nearest to the whole pattern: text_T[first:end]. Of
    equally near ones the one that ends last, and of those the longest. (size, 0, 0) for an empty text, and where the
    distance is more than `most`."""
    size = len(pattern_M)
    if size == 0 or len(text_T) == 0:
        return size, 0, 0
    blocks = (size + 63) >> 6
    masks = np.zeros((256, blocks), np.uint64)
    plus_B, minus_B = np.empty(blocks, np.uint64), np.empty(blocks, np.uint64)
    out_T = np.empty(len(text_T), np.int32)
    character_masks(pattern_M, masks)
    distances(masks, size, text_T, True, plus_B, minus_B, out_T)
    end = 0
    for place in range(len(text_T)):
        if out_T[place] <= out_T[end]:
            end = place
    best = out_T[end]
    if best >= size or best > most:
        return size, 0, 0
    masks[:] = 0
    character_masks(pattern_M[::-1], masks)
    reach = min(end + 1, size + best)  # a longer stretch would need more than `best` insertions
    backwards = text_T[end + 1 - reach : end + 1][::-1]
    distances(masks, size, backwards, False, plus_B, minus_B, out_T)
    first = 0
    for place in range(reach):
        if out_T[place] == best:
            first = place
    return best, end - first, end + 1


@njit(cache=True)
def align_onwards(pattern_M, text_T):  # type: ignore[no-untyped-def]
    """(distance, end) of the nearest stretch text_T[:end], which begins where the text begins; of equally near ones the
    longest."""
    size = len(pattern_M)
    if size == 0 or len(text_T) == 0:
        return size, 0
    blocks = (size + 63) >> 6
    masks = np.zeros((256, blocks), np.uint64)
    out_T = np.empty(len(text_T), np.int32)
    character_masks(pattern_M, masks)
    distances(masks, size, text_T, False, np.empty(blocks, np.uint64), np.empty(blocks, np.uint64), out_T)
    best, end = size, 0
    for place in range(len(text_T)):
        if out_T[place] <= best:
            best, end = out_T[place], place + 1
    return best, end


@njit(cache=True)
def word_masks(left_L, right_K):  # type: ignore[no-untyped-def]
    """(row of each word of `right_K` in the masks, masks): bit i of masks[row, i // 64] says that left_L[i] is that
    word; row 0 is of the words that `left_L` has not."""
    slots = 4
    while slots < 2 * len(left_L):
        slots *= 2
    row_S, word_S = np.zeros(slots, np.int32), np.empty(slots, np.uint64)
    masks, rows = np.zeros((len(left_L) + 1, (len(left_L) + 63) >> 6), np.uint64), 0
    for index in range(len(left_L)):
        slot = np.int64(left_L[index] & np.uint64(slots - 1))
        while row_S[slot] and word_S[slot] != left_L[index]:
            slot = (slot + 1) & (slots - 1)
        if row_S[slot] == 0:
            rows += 1
            row_S[slot], word_S[slot] = rows, left_L[index]
        masks[row_S[slot], index >> 6] |= np.uint64(1) << np.uint64(index & 63)
    row_K = np.zeros(len(right_K), np.int32)
    for index in range(len(right_K)):
        slot = np.int64(right_K[index] & np.uint64(slots - 1))
        while row_S[slot] and word_S[slot] != right_K[index]:
            slot = (slot + 1) & (slots - 1)
        row_K[index] = row_S[slot]
    return row_K, masks


@njit(cache=True)
def align_words(left_L, right_K, partner_L):  # type: ignore[no-untyped-def]
    """Unit-cost alignment of two whole word sequences: partner_L[i] is the index in right_K of word i's partner (the
    same word, or the one that stands in its place), -1 where it has none; returns the distance.

    The algorithm of `distances`, which keeps for each pair of words whether the distance up to both is that up to the
    words before them (`level`), and whether it is one more than without the left one (`plus`): that is all a way back
    needs. A same word is preferred to another in its place, that to leaving out the left, that to the right."""
    rows, columns = len(left_L), len(right_K)
    while rows and columns and left_L[rows - 1] == right_K[columns - 1]:  # a common end is always aligned with itself
        rows, columns = rows - 1, columns - 1
        partner_L[rows] = columns
    partner_L[:rows] = -1
    if rows == 0 or columns == 0:
        return rows + columns
    row_K, masks = word_masks(left_L[:rows], right_K[:columns])
    blocks, one, high = masks.shape[1], np.uint64(1), np.uint64(63)
    plus_B, minus_B = np.full(blocks, ~np.uint64(0)), np.zeros(blocks, np.uint64)
    level, plus = np.empty((columns, blocks), np.uint64), np.empty((columns, blocks), np.uint64)
    distance, last = np.int64(rows), np.uint64((rows - 1) & 63)
    for j in range(columns):
        carry_up, carry_down = one, np.uint64(0)
        for block in range(blocks):
            equal = masks[row_K[j], block]
            vertical = equal | minus_B[block]
            equal |= carry_down
            level[j, block] = ((((equal & plus_B[block]) + plus_B[block]) ^ plus_B[block]) | equal) | minus_B[block]
            up = minus_B[block] | ~(level[j, block] | plus_B[block])
            down = plus_B[block] & level[j, block]
            top = last if block == blocks - 1 else high
            next_up, next_down = (up >> top) & one, (down >> top) & one
            up, down = (up << one) | carry_up, (down << one) | carry_down
            plus_B[block], minus_B[block] = down | ~(vertical | up), up & vertical
            plus[j, block], carry_up, carry_down = plus_B[block], next_up, next_down
        distance += np.int64(carry_up) - np.int64(carry_down)
    i, j = rows - 1, columns - 1
    while i >= 0 and j >= 0:
        block, bit = i >> 6, np.uint64(i & 63)
        if left_L[i] == right_K[j] or not (level[j, block] >> bit) & one:
            partner_L[i] = j
            i, j = i - 1, j - 1
        elif (plus[j, block] >> bit) & one:
            i -= 1
        else:
            j -= 1
    return distance
