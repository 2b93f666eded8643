"""Thoughts in turns: where marks open and close them, and what is wrong with the marks."""

from __future__ import annotations

import numpy as np
from numba import njit

OPEN, CLOSE, ANSWER_OPEN, ANSWER_CLOSE = 0, 1, 2, 3  # what a mark does
FAULTS = ("", "unclosed", "never opened", "closed twice", "nested", "mismatched", "duplicated", "empty")
UNCLOSED, NEVER_OPENED, CLOSED_TWICE, NESTED, MISMATCHED, DUPLICATED, EMPTY = range(1, 8)
THOUGHT, UNFINISHED, ANSWER, MISPLACED = 0, 1, 2, 3  # kinds of a span; a misplaced thought is no assistant's


@njit(cache=True)
def find_marks(data_B, start_S, end_S, marks_MB, size_M, first_B, second_B):  # type: ignore[no-untyped-def]
    """(segment, place, mark) of every mark in the texts, in order; first_B and second_B say which bytes a mark may
    begin with, and go on with (each is at least two bytes long). A mark between quotation marks or backticks is spoken
    of, not set."""
    room = 64
    segment_E, place_E, mark_E = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    count = 0
    for segment in range(len(start_S)):
        start, end = start_S[segment], end_S[segment]
        place = start
        while place < end:
            while place < end and not first_B[data_B[place]]:
                place += 1
            found = -1
            if place + 1 < end and second_B[data_B[place + 1]]:
                for mark in range(len(size_M)):
                    index, size = 0, size_M[mark]
                    while index < size and place + index < end and data_B[place + index] == marks_MB[mark, index]:
                        index += 1
                    if index == size:
                        found = mark
                        break
            if found < 0:
                place += 1
                continue
            after = place + size_M[found]
            before = data_B[place - 1] if place > start else np.uint8(0)
            quoted = (before == 96 or before == 34 or before == 39) and after < end and data_B[after] == before
            if not quoted:
                if count == room:
                    room *= 2
                    segment_E, place_E, mark_E = _grown(segment_E, room), _grown(place_E, room), _grown(mark_E, room)
                segment_E[count], place_E[count], mark_E[count] = segment, place, found
                count += 1
            place = after
    return segment_E[:count], place_E[:count], mark_E[:count]


@njit(cache=True)
def _grown(array, room):  # type: ignore[no-untyped-def]
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True)
def count_chars(data_B, start, end):  # type: ignore[no-untyped-def]
    """Code points of a text without the white space around it."""
    while start < end and data_B[start] <= 32:
        start += 1
    while end > start and data_B[end - 1] <= 32:
        end -= 1
    count = 0
    for place in range(start, end):
        count += (data_B[place] & 0xC0) != 0x80
    return count


@njit(cache=True)
def ends_in_sentence(data_B, start, end):  # type: ignore[no-untyped-def]
    """Whether a text ends in something else than a letter, a digit, a comma, an operator or an opening bracket."""
    while end > start and data_B[end - 1] <= 32:
        end -= 1
    if end == start:
        return False
    last = data_B[end - 1]
    if last < 128:
        word = (48 <= last < 58) or (65 <= last < 91) or (97 <= last < 123)
        return not word and last not in (44, 43, 45, 47, 61, 60, 40, 91, 123, 92, 94, 95, 38, 58, 59)  # ,+-/=<([{\^_&:;
    place = end - 1
    while place > start and (data_B[place] & 0xC0) == 0x80:
        place -= 1
    if end - place != 3:
        return False
    code = (np.int64(data_B[place]) & 15) << 12 | (np.int64(data_B[place + 1]) & 63) << 6
    code |= np.int64(data_B[place + 2]) & 63
    # typographic quotation marks and dots, ideographic full stop and brackets, full-width . ! ? )
    return 0x2018 <= code <= 0x2026 or code == 0x3002 or 0x3009 <= code <= 0x3011 or code in (
        0xFF01, 0xFF09, 0xFF0E, 0xFF1F)  # fmt: skip


@njit(cache=True)
def read_spans(  # type: ignore[no-untyped-def]
    data_B, start_S, end_S, apart_S, assistant_S, segment_E, place_E, mark_E, size_M, does_M, pair_M,
    fault_S, pairs_S, open_S,
):  # fmt: skip
    """The spans of the texts, P x 4: segment, start, end, kind. Every assistant text ends with one, so that each has
    at least one; marks are in none. `apart_S` says that a text is reasoning apart, hence one thought.

    Sets per text: fault_S, the first fault of its marks (UNCLOSED to MISMATCHED, else 0); pairs_S, a bit set: the
    lowest bit for reasoning apart, bit p + 1 for pair p of marks; open_S, whether it ends inside of a thought or of a
    marked answer."""
    spans = np.empty((len(start_S) + len(place_E), 4), np.int64)
    count, event = 0, 0
    for segment in range(len(start_S)):
        first, opened, closed, answering, cursor = count, -1, 0, False, start_S[segment]
        pairs_S[segment] = apart_S[segment]
        while event < len(segment_E) and segment_E[event] == segment:
            place, mark, fault = place_E[event], mark_E[event], 0
            does, after = does_M[mark], place + size_M[mark]
            event += 1
            if not assistant_S[segment]:
                if does == OPEN:
                    opened, cursor = mark, after
                elif does == CLOSE and opened >= 0:
                    spans[count] = segment, cursor, place, MISPLACED
                    count, opened = count + 1, -1
                continue
            if does <= CLOSE:
                pairs_S[segment] |= 2 << pair_M[mark]
            if apart_S[segment]:
                fault = NESTED if does <= CLOSE else 0
            elif does == OPEN and opened >= 0:
                fault = NESTED
            elif does == CLOSE and (opened >= 0 or not closed):
                if opened < 0:  # what stands before it is the thought
                    fault, cursor, count = NEVER_OPENED, start_S[segment], first
                elif pair_M[mark] != pair_M[opened]:
                    fault = MISMATCHED
                spans[count] = segment, cursor, place, THOUGHT
                count, closed, opened, cursor = count + 1, closed + 1, -1, after
            elif opened < 0:
                fault = CLOSED_TWICE if does == CLOSE else 0
                spans[count] = segment, cursor, place, ANSWER
                count, cursor = count + 1, after
                opened = mark if does == OPEN else -1
                answering = does == ANSWER_OPEN or (answering and does != ANSWER_CLOSE)
            if not fault_S[segment]:
                fault_S[segment] = fault
        if assistant_S[segment]:
            if opened >= 0 and not fault_S[segment]:
                fault_S[segment] = UNCLOSED
            kind = THOUGHT if apart_S[segment] else UNFINISHED if opened >= 0 else ANSWER
            spans[count] = segment, cursor, end_S[segment], kind
            count += 1
            open_S[segment] = opened >= 0 or answering
    return spans[:count]


@njit(cache=True)
def describe_spans(data_B, spans_P4, chars_P, hash_P):  # type: ignore[no-untyped-def]
    """Set the code points of each span without the white space around it, and a hash of its text without any."""
    for span in range(len(spans_P4)):
        start, end = spans_P4[span, 1], spans_P4[span, 2]
        chars_P[span] = count_chars(data_B, start, end)
        value = np.uint64(0xCBF29CE484222325)
        for place in range(start, end):
            if data_B[place] > 32:
                value = (value ^ np.uint64(data_B[place])) * np.uint64(0x100000001B3)
        hash_P[span] = value


@njit(cache=True)
def gather(data_B, start_P, end_P, size):  # type: ignore[no-untyped-def]
    """The texts one after the other, each followed by a line break; `size` bytes in all."""
    out = np.empty(size, np.uint8)
    place = 0
    for text in range(len(start_P)):
        length = end_P[text] - start_P[text]
        out[place : place + length] = data_B[start_P[text] : end_P[text]]
        out[place + length] = 10
        place += length + 1
    return out
