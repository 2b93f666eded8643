"""Two sides of a pair compared word by word: what they begin with, and how much of them is the same in order."""

from __future__ import annotations

import numpy as np
from numba import njit

from curation.kernels.words import hash_words


@njit(cache=True)
def common_subsequence(a_W, b_V):  # type: ignore[no-untyped-def]
    """Length of the longest common subsequence of two arrays of hashes, bit-parallel over the first (Hyyrö 2004, as in
    rapidfuzz's Indel): O(W * V / 64)."""
    if len(a_W) == 0 or len(b_V) == 0:
        return 0
    size = 16
    while size < 2 * len(a_W):
        size *= 2
    mask = np.uint64(size - 1)
    slots = np.full(size, -1, np.int64)  # open addressing: index in a_W of the first of equal words
    blocks = (len(a_W) + 63) >> 6
    masks = np.zeros((len(a_W), blocks), np.uint64)
    for index in range(len(a_W)):
        slot = np.int64(a_W[index] & mask)
        while slots[slot] >= 0 and a_W[slots[slot]] != a_W[index]:
            slot = (slot + 1) & (size - 1)
        if slots[slot] < 0:
            slots[slot] = index
        masks[slots[slot], index >> 6] |= np.uint64(1) << np.uint64(index & 63)
    open_B = np.full(blocks, ~np.uint64(0), np.uint64)
    for index in range(len(b_V)):
        slot = np.int64(b_V[index] & mask)
        while slots[slot] >= 0 and a_W[slots[slot]] != b_V[index]:
            slot = (slot + 1) & (size - 1)
        place = slots[slot]
        if place < 0:
            continue
        carry = np.uint64(0)
        for block in range(blocks):
            held = open_B[block]
            hit = held & masks[place, block]
            part = held + hit
            total = part + carry
            carry = np.uint64(1) if part < held or total < part else np.uint64(0)
            open_B[block] = total | (held & ~masks[place, block])
    count = 0
    for index in range(len(a_W)):
        if (open_B[index >> 6] >> np.uint64(index & 63)) & np.uint64(1) == 0:
            count += 1
    return count


@njit(cache=True)
def _common_chars(a_B, a_start, a_end, b_B, b_start, b_end):  # type: ignore[no-untyped-def]
    """Code points with which both stretches begin."""
    size = min(a_end - a_start, b_end - b_start)
    place = 0
    while place < size and a_B[a_start + place] == b_B[b_start + place]:
        place += 1
    if place < size or a_end - a_start != b_end - b_start:  # a character that is cut in two is not shared
        while place > 0 and (
            (a_start + place < a_end and a_B[a_start + place] & 0xC0 == 0x80)
            or (b_start + place < b_end and b_B[b_start + place] & 0xC0 == 0x80)
        ):
            place -= 1
    count = 0
    for index in range(place):
        count += a_B[a_start + index] & 0xC0 != 0x80
    return count


@njit(cache=True)
def compare_sides(a_B, a_N1, b_B, b_N1, kind, fold, cap, prefix_chars_N, words_N2, prefix_words_N, similarity_N):  # type: ignore[no-untyped-def]
    """Of N pairs of stretches a_B[a_N1[n] : a_N1[n + 1]] and b_B[...]: code points and words with which both begin,
    words of each, and 2 * LCS / (words of both), 1 where neither has a word. After the common begin and end at most
    `cap` words of each are aligned; those beyond count as different, so the similarity is a lower bound then."""
    longest_a, longest_b = 0, 0
    for row in range(len(prefix_chars_N)):
        longest_a = max(longest_a, a_N1[row + 1] - a_N1[row])
        longest_b = max(longest_b, b_N1[row + 1] - b_N1[row])
    a_W, a_at = np.empty(longest_a + 1, np.uint64), np.empty((longest_a + 1, 2), np.int64)
    b_W, b_at = np.empty(longest_b + 1, np.uint64), np.empty((longest_b + 1, 2), np.int64)
    for row in range(len(prefix_chars_N)):
        a_start, a_end, b_start, b_end = a_N1[row], a_N1[row + 1], b_N1[row], b_N1[row + 1]
        prefix_chars_N[row] = _common_chars(a_B, a_start, a_end, b_B, b_start, b_end)
        a_count = hash_words(a_B, a_start, a_end, kind, fold, a_W, a_at, 0)
        b_count = hash_words(b_B, b_start, b_end, kind, fold, b_W, b_at, 0)
        words_N2[row, 0], words_N2[row, 1] = a_count, b_count
        shorter = min(a_count, b_count)
        first = 0
        while first < shorter and a_W[first] == b_W[first]:
            first += 1
        last = 0
        while last < shorter - first and a_W[a_count - 1 - last] == b_W[b_count - 1 - last]:
            last += 1
        prefix_words_N[row] = first
        a_middle = a_W[first : min(a_count - last, first + cap)]
        b_middle = b_W[first : min(b_count - last, first + cap)]
        shared = first + last + common_subsequence(a_middle, b_middle)
        similarity_N[row] = 2.0 * shared / (a_count + b_count) if a_count + b_count else 1.0
