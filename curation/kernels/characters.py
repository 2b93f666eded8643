"""What a text's characters are: letters by script, digits, signs, and what broken encodings leave behind."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.kernels.scripts import SCRIPTS, script_table
from curation.kernels.words import code_point

KINDS = ("none", "latin", "cjk", "cyrillic", "arabic", "other_script", "digit", "punctuation", "symbol", "space",
         "control", "private_use", "replacement", "emoji")  # fmt: skip
LATIN, CJK, CYRILLIC, ARABIC, OTHER_SCRIPT, DIGIT, PUNCTUATION, SYMBOL, SPACE = range(1, 10)
CONTROL, PRIVATE_USE, REPLACEMENT, EMOJI = range(10, 14)
COUNTS = (*KINDS, "chars", "non_ascii", "upper", "lower", "cased_words", "capital_words", "mojibake", "longest_run")
_OF_SCRIPT = {"Latin": LATIN, "Han": CJK, "Hangul": CJK, "Cyrillic": CYRILLIC, "Arabic": ARABIC}
_OF_CATEGORY = {"L": OTHER_SCRIPT, "M": OTHER_SCRIPT, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE}
UPPER, LOWER, KIND = 64, 32, 31  # bits of the table
ONE_MORE, TWO_MORE, FOLLOWS, NOT_SECOND = 1, 2, 4, 8  # bits of the mojibake table
_EMOJI = (  # of the basic plane
    "⌚⌛⏩⏪⏫⏬⏰⏳◽◾☔☕♈♉♊♋♌♍♎♏♐♑♒♓♿⚓⚡⚪⚫⚽⚾⛄⛅⛎⛔⛪⛲⛳⛵"
    "⛺⛽✅✊✋✨❌❎❓❔❕❗❤➕➖➗➰➿⬛⬜⭐⭕"
)


@functools.cache
def kind_table() -> npt.NDArray[np.uint8]:
    """Kind (index into KINDS) and case (UPPER, LOWER) of every code point of the basic plane."""
    table = np.zeros(0x10000, np.uint8)
    scripts = script_table()
    for code in range(0x10000):
        character = chr(code)
        category = unicodedata.category(character)
        kind = _OF_CATEGORY.get(category[0], 0)
        if kind == OTHER_SCRIPT:
            kind = _OF_SCRIPT.get(SCRIPTS[scripts[code]], OTHER_SCRIPT if category[0] == "L" else 0)
        if category == "Cc":
            kind = SPACE if character in "\t\n\r\f" else CONTROL
        kind = PRIVATE_USE if category == "Co" else REPLACEMENT if code == 0xFFFD else kind
        case = UPPER if category == "Lu" else LOWER if category == "Ll" else 0
        table[code] = (EMOJI if character in _EMOJI else kind) | case
    return table


@functools.cache
def mojibake_table() -> npt.NDArray[np.uint8]:
    """What each code point is where UTF-8 was read as Latin-1 or Windows-1252: a lead byte that wants one or two more,
    a byte that follows, or one that follows but is no second byte, because real texts have it there (é » or É…)."""
    table = np.zeros(0x10000, np.uint8)
    for byte in range(0x80, 0xC0):
        codes = {byte} | ({ord(bytes([byte]).decode("cp1252", "ignore") or chr(byte))})
        for code in codes:
            table[code] |= FOLLOWS | (NOT_SECOND if chr(code) in "\u00a0«»“”‘’…–—´·•" else 0)
    for byte in (0xC2, 0xC3, 0xCE, 0xCF, 0xD0, 0xD1, 0xD8, 0xD9):
        table[byte] |= ONE_MORE
    for byte in range(0xE0, 0xF0):
        table[byte] |= TWO_MORE
    return table


@njit(cache=True)
def count_characters(data_B, start_S, end_S, into_S, kinds, mojibake, out_RC):  # type: ignore[no-untyped-def]
    """Add the COUNTS of every text to out_RC[into_S]: characters by kind, all of them, non-ASCII ones, upper- and
    lower-case letters, words of two or more cased letters and those of them wholly in capitals, characters of mojibake
    sequences; and raise its longest run of one character that is no space. The bytes must be valid UTF-8."""
    for text in range(len(start_S)):
        count_C = out_RC[into_S[text]]
        place, end = start_S[text], end_S[text]
        before, run, longest = np.int64(-1), 0, 0
        upper, lower = 0, 0
        wanted, size = 0, 0
        while place < end:
            code, step = code_point(data_B, place)
            place += step
            what = kinds[code] if code < 65536 else kind_beyond(code)
            kind = what & 31
            count_C[kind] += 1
            count_C[14] += 1
            if kind <= 5 and kind > 0:
                upper += (what & 64) != 0
                lower += (what & 32) != 0
            elif upper + lower > 0:
                count_C[16] += upper
                count_C[17] += lower
                count_C[18] += upper + lower >= 2
                count_C[19] += upper >= 2 and lower == 0
                upper, lower = 0, 0
            if code == before:
                run += 1
            else:
                run, before = 1, code
            if run > longest and kind != 9:
                longest = run
            if code >= 128:
                count_C[15] += 1
                mark = mojibake[code] if code < 65536 else 0
                if wanted > 0 and mark & 4 and not (wanted == 2 and mark & 8):
                    wanted -= 1
                    size += 1
                    if wanted == 0:
                        count_C[20] += size
                else:
                    wanted, size = mark & 3, 1
            else:
                wanted = 0
        count_C[16] += upper
        count_C[17] += lower
        count_C[18] += upper + lower >= 2
        count_C[19] += upper >= 2 and lower == 0
        count_C[21] = max(count_C[21], longest)


@njit(cache=True)
def kind_beyond(code):  # type: ignore[no-untyped-def]
    """The kind of a code point beyond the basic plane."""
    if 0x1F000 <= code < 0x1FB00:
        return np.uint8(13)
    if 0x20000 <= code < 0x40000:
        return np.uint8(2)
    if code >= 0xF0000:
        return np.uint8(11)
    return np.uint8(5) if code < 0x1D000 or 0x1D400 <= code < 0x1D800 else np.uint8(8)
