"""How a text repeats itself: loops over words, novel n-grams per window, a periodic tail, duplicate lines, distinct n.

Everything is linear in the text, in time and in memory. Uniqueness of fixed blocks is never asked: a loop whose counter
changes in each round is unique by blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.kernels.words import character_tables, hash_ngram, hash_words, mix

NUMBER = 0x9D39247E33776D41  # what every run of numbers becomes where they are masked

COLUMNS = (
    "words", "loop_period", "loop_words", "loop_after", "template_period", "template_words",
    "tail_period", "tail_bytes", "text_bytes", "grams", "novelty_min", "novelty_last", "stale_words", "recycled_words",
    "lines", "duplicate_lines", "line_bytes", "duplicate_line_bytes",
    "paragraphs", "duplicate_paragraphs", "duplicate_paragraph_bytes", "distinct_1", "distinct_2", "distinct_3",
)  # fmt: skip


@njit(cache=True, inline="always")
def previous_place(keys, stamps, places, mask, stamp, key, place):  # type: ignore[no-untyped-def]
    """The place that was stored for `key` under `stamp` (-1 for none), after storing `place` for it."""
    slot = np.int64(key & np.uint64(mask))
    while stamps[slot] == stamp:
        if keys[slot] == key:
            before = places[slot]
            places[slot] = place
            return np.int64(before)
        slot = (slot + 1) & mask
    keys[slot], stamps[slot], places[slot] = key, stamp, place
    return np.int64(-1)


@njit(cache=True)
def mask_numbers(data_B, words_W, at_W, count, out_W):  # type: ignore[no-untyped-def]
    """Words with every run of numbers as one symbol; returns their count. A number is made of ASCII digits."""
    size = 0
    inside = False
    for index in range(count):
        number = True
        for place in range(at_W[index, 0], at_W[index, 1]):
            if data_B[place] < 48 or data_B[place] > 57:
                number = False
                break
        if not number:
            out_W[size] = words_W[index]
            size += 1
        elif not inside:
            out_W[size] = np.uint64(NUMBER)
            size += 1
        inside = number
    return size


@njit(cache=True)
def find_loop(words_W, count, size, rounds, keys, stamps, places, mask, stamp, novel_G):  # type: ignore[no-untyped-def]
    """(period, length, end) in words of the longest stretch of at least `rounds` equal rounds; zeros where there is
    none. Sets novel_G[g] for each of the count - size + 1 n-grams: 1 where the n-gram stood nowhere before.

    A candidate period is the distance from an n-gram to its last occurrence; it is held as long as every word equals
    the one a period before. In a loop some n-gram is unique within a round, so that its true period is found."""
    best_period, best_length, best_end = 0, 0, 0
    period, begin = 0, 0
    for index in range(count + 1):
        if period and (index == count or words_W[index] != words_W[index - period]):
            length = index - begin
            if length >= rounds * period and length > best_length:
                best_period, best_length, best_end = period, length, index
            period = 0
        if index < count and index >= size - 1:
            gram = index - size + 1
            before = previous_place(keys, stamps, places, mask, stamp, hash_ngram(words_W, gram, size), index)
            novel_G[gram] = before < 0
            if not period and before >= 0:
                period, begin = index - before, before - size + 1
    return best_period, best_length, best_end


@njit(cache=True)
def novelty(novel_G, grams, words, size, smallest, largest, stale_below):  # type: ignore[no-untyped-def]
    """(lowest share of novel n-grams in a window, share in the last one, words from the end on whose windows are all
    below `stale_below`, words inside n-grams that stood before). A window is an eighth of the text, within the given
    limits; a rest of less than half a window belongs to the last one."""
    window = min(max(words // 8, smallest), largest)
    windows = max((grams + window // 2) // window, 1)
    lowest, last, stale = 1.0, 1.0, 0
    for index in range(windows):
        first = index * window
        end = grams if index == windows - 1 else first + window
        fresh = 0
        for gram in range(first, end):
            fresh += novel_G[gram]
        last = fresh / (end - first)
        lowest = min(lowest, last)
        stale = stale + end - first if last < stale_below else 0
    recycled, covered = 0, 0
    for gram in range(grams):
        if not novel_G[gram]:
            recycled += gram + size - max(gram, covered)
            covered = gram + size
    return lowest, last, min(stale + size - 1, words) if stale else 0, recycled


@njit(cache=True)
def periodic_tail(data_B, start, end, rounds, match_B):  # type: ignore[no-untyped-def]
    """(period, length) in bytes of the longest end of the text that is at least `rounds` equal rounds, with the
    shortest period that covers it; zeros where there is none. The Z-function of the text read backwards."""
    size = end - start
    best_period, best_length = 0, 0
    left, right = 0, 0
    match_B[0] = size
    for shift in range(1, size):
        length = 0
        if shift < right:
            length = min(right - shift, match_B[shift - left])
        while shift + length < size and data_B[end - 1 - length] == data_B[end - 1 - shift - length]:
            length += 1
        match_B[shift] = length
        if shift + length > right:
            left, right = shift, shift + length
        if shift + length > best_length and shift + length >= rounds * shift:
            best_period, best_length = shift, shift + length
    return best_period, best_length


@njit(cache=True)
def distinct(words_W, count, size, keys, stamps, places, mask, stamp):  # type: ignore[no-untyped-def]
    """How many different n-grams of `size` words there are."""
    found = 0
    for gram in range(count - size + 1):
        found += previous_place(keys, stamps, places, mask, stamp, hash_ngram(words_W, gram, size), 0) < 0
    return found


@njit(cache=True)
def duplicate_lines(data_B, start, end, keys, stamps, places, mask, stamp, out):  # type: ignore[no-untyped-def]
    """out = (lines, those that stood before, bytes of lines, bytes of those that stood before, and for paragraphs:
    count, those that stood before, bytes of those). White space around a line is no part of it, empty lines are none
    and end a paragraph."""
    out[:] = 0
    place = start
    paragraph, paragraph_bytes = np.uint64(0), 0
    kept = np.uint64(0)
    while place <= end:
        value = np.uint64(0xCBF29CE484222325)
        first, last = -1, -1
        while place < end and data_B[place] != 10:
            if data_B[place] > 32:
                if first < 0:
                    first = place
                last = place + 1
            if first >= 0:
                value = (value ^ np.uint64(data_B[place])) * np.uint64(0x100000001B3)
                if data_B[place] > 32:
                    kept = value
            place += 1
        place += 1
        if first >= 0:
            key = mix(kept)
            before = previous_place(keys, stamps, places, mask, stamp, key, 0)
            out[0] += 1
            out[2] += last - first
            if before >= 0:
                out[1] += 1
                out[3] += last - first
            paragraph = paragraph * np.uint64(0x9E3779B97F4A7C15) + key
            paragraph_bytes += last - first
        if paragraph_bytes and (first < 0 or place > end):
            out[4] += 1
            if previous_place(keys, stamps, places, mask, stamp, mix(paragraph ^ np.uint64(NUMBER)), 0) >= 0:
                out[5] += 1
                out[6] += paragraph_bytes
            paragraph, paragraph_bytes = np.uint64(0), 0


@njit(cache=True)
def _repetition(data_B, start_S, end_S, kind, fold, size, rounds, smallest, largest, stale_below, out_SC):  # type: ignore[no-untyped-def]
    longest = 0
    for text in range(len(start_S)):
        longest = max(longest, end_S[text] - start_S[text])
    room = longest // 2 + 2
    slots = 16
    while slots < 4 * room:
        slots *= 2
    words, masked = np.empty(room, np.uint64), np.empty(room, np.uint64)
    at = np.empty((room, 2), np.int64)
    keys, stamps, places = np.empty(slots, np.uint64), np.zeros(slots, np.int64), np.empty(slots, np.int32)
    novel, spare = np.empty(room, np.uint8), np.empty(room, np.uint8)
    match, lines = np.empty(longest + 1, np.int32), np.empty(7, np.int64)
    stamp = 0
    for text in range(len(start_S)):
        start, end = start_S[text], end_S[text]
        while end > start and data_B[end - 1] <= 32:
            end -= 1
        out = out_SC[text]
        count = hash_words(data_B, start, end, kind, fold, words, at, 0)
        mask = 15
        while mask < 2 * count:  # at most half full
            mask = 2 * mask + 1
        grams = max(count - size + 1, 0)
        out[0], out[9] = count, grams
        if grams:
            period, length, last = find_loop(words, count, size, rounds, keys, stamps, places, mask, stamp + 1, novel)
            out[1], out[2], out[3] = period, length, count - last
            out[10], out[11], out[12], out[13] = novelty(novel, grams, count, size, smallest, largest, stale_below)
            fewer = mask_numbers(data_B, words, at, count, masked)
            out[4], out[5], last = find_loop(masked, fewer, size, rounds, keys, stamps, places, mask, stamp + 2, spare)
            out[5] = out[5] / max(fewer, 1)
        out[6], out[7] = periodic_tail(data_B, start, end, rounds, match)
        out[8] = end - start
        newlines = 1
        for place in range(start, end):
            newlines += data_B[place] == 10
        wide = 15
        while wide < 3 * min(newlines, (end - start) // 2 + 1):  # lines that are not empty, and as many paragraphs
            wide = 2 * wide + 1
        duplicate_lines(data_B, start, end, keys, stamps, places, wide, stamp + 3, lines)
        for index in range(7):
            out[14 + index] = lines[index]
        for gram in range(1, 4):
            found = distinct(words, count, gram, keys, stamps, places, mask, stamp + 4 + gram)
            out[20 + gram] = found / max(count - gram + 1, 1)
        stamp += 8


def repetition(data_B: npt.NDArray[np.uint8], start_S: npt.NDArray[np.int64], end_S: npt.NDArray[np.int64], *,
               size: int, rounds: int, windows: tuple[int, int],
               stale_below: float) -> dict[str, npt.NDArray[np.float64]]:  # fmt: skip
    """One value per text (S) for each of COLUMNS. Lengths are in words (of the masked text a share of its words) but
    for those named bytes; `novelty_*` and `distinct_*` are shares, of 1.0 where a text is too short to have any."""
    out = np.zeros((len(start_S), len(COLUMNS)))
    out[:, [COLUMNS.index(name) for name in ("novelty_min", "novelty_last")]] = 1.0
    _repetition(data_B, start_S, end_S, *character_tables(), size, rounds, *windows, stale_below, out)
    return {name: out[:, index] for index, name in enumerate(COLUMNS)}
