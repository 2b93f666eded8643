"""Which scripts a text is written in, and how often it goes from one to another."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
from numba import njit

SCRIPTS = ("none", "Latin", "Han", "Hangul", "Cyrillic", "Arabic", "Devanagari", "Thai", "Hebrew", "Greek", "other")
LATIN, HAN, HANGUL, GREEK, OTHER = 1, 2, 3, 9, 10
_RANGES = (
    (0x41, 0x5B, 1), (0x61, 0x7B, 1), (0xC0, 0x250, 1), (0x370, 0x400, 9), (0x400, 0x530, 4), (0x590, 0x600, 8),
    (0x600, 0x780, 5), (0x900, 0x980, 6), (0x980, 0xE00, 10), (0xE00, 0xE80, 7), (0xE80, 0x1100, 10),
    (0x1100, 0x1200, 3), (0x1200, 0x1C80, 10), (0x1E00, 0x1F00, 1), (0x1F00, 0x2000, 9), (0x2E80, 0x2FE0, 2),
    (0x3005, 0x3008, 2), (0x3041, 0x3130, 2), (0x3130, 0x3190, 3), (0x3190, 0x4DC0, 2), (0x4E00, 0xA000, 2),
    (0xA000, 0xA640, 10), (0xAC00, 0xD7B0, 3), (0xF900, 0xFB00, 2), (0xFB50, 0xFE00, 5), (0xFE70, 0xFEFF, 5),
)  # fmt: skip


@functools.cache
def script_table() -> npt.NDArray[np.uint8]:
    """Index into SCRIPTS of every letter of the basic plane, 0 for what is none. Chinese and Japanese are one script
    (Han), since they share characters; full-width and mathematical letters are none."""
    table = np.zeros(0x10000, np.uint8)
    for first, last, script in _RANGES:
        for code in range(first, last):
            if unicodedata.category(chr(code))[0] in "LM":
                table[code] = script
    return table


@njit(cache=True)
def count_scripts(data_B, start_P, end_P, into_P, table, least_latin, out_RC, switches_R):  # type: ignore[no-untyped-def]
    """Add the letters of every text to out_RC[into_P, script], and to switches_R[into_P] how often the script changes
    from one run of letters to the next (numbers and signs between them do not matter).

    A run of letters is one script's. A Latin one counts from `least_latin` letters on and not after a backslash: x,
    sin and \\frac are no English. A Greek one counts from 3 letters on."""
    for text in range(len(start_P)):
        place, end, into = start_P[text], end_P[text], into_P[text]
        script, length, escaped, last = np.int64(0), 0, False, np.int64(0)
        before = np.uint8(0)
        while place <= end:
            byte = data_B[place] if place < end else np.uint8(0)
            if byte < 128:
                what, size = np.int64(table[byte]), 1
            elif byte < 224:
                what, size = np.int64(table[(np.int64(byte) & 31) << 6 | (np.int64(data_B[place + 1]) & 63)]), 2
            elif byte < 240:
                code = (np.int64(byte) & 15) << 12 | (np.int64(data_B[place + 1]) & 63) << 6
                what, size = np.int64(table[code | (np.int64(data_B[place + 2]) & 63)]), 3
            else:
                code = (np.int64(byte) & 7) << 18 | (np.int64(data_B[place + 1]) & 63) << 12
                what, size = np.int64(2 * (0x20000 <= code < 0x40000)), 4
            if what != script:
                least = least_latin if script == 1 else 3 if script == 9 else 1
                if script and length >= least and not escaped:
                    out_RC[into, script] += length
                    switches_R[into] += last != 0 and last != script
                    last = script
                script, length, escaped = what, 0, before == 92
            length += 1
            before = byte
            place += size
