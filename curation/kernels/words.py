"""Words of UTF-8 text as 64-bit hashes: what n-grams, shingles and alignments are made of.

A word is a run of letters and digits; everything else separates. Case and diacritics are folded, so are the compatible
forms of a character (full-width digits, ligature-like single letters); digits are kept, they are what tells sums apart.
A Chinese, Japanese or Thai character is a word of its own, since such text has no spaces.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
from numba import njit

SEPARATOR, LETTER, ALONE, MARK = 0, 1, 2, 3  # classes of a code point; a mark (a combining accent) is passed over
PLANE = 0x10000  # code points of the basic plane are looked up; beyond it the ideographs of planes 2 and 3 stand alone
_ALONE_RANGES = ((0x0E00, 0x0E80), (0x2E80, 0x3000), (0x3005, 0x3008), (0x3040, 0x3100), (0x31F0, 0x3200),
                 (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))  # fmt: skip

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]


NOT_ASCII = 128
PLAIN_LETTERS = np.array([ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else byte & NOT_ASCII
                          for byte in range(256)], np.uint8)  # fmt: skip  # folded; 0 where a byte separates


@functools.cache
def character_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """(class, folded code point) of every code point of the basic plane, 65,536 each."""
    kind = np.zeros(PLANE, np.uint8)
    fold = np.arange(PLANE, dtype=np.uint16)
    for code in range(PLANE):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Mn" and 0x300 <= code < 0x370:
            kind[code] = MARK
        elif character.isalnum() or category in ("Mn", "Mc"):
            kind[code] = LETTER
            plain = unicodedata.normalize("NFKD", character).casefold()
            base = [item for item in plain if not unicodedata.combining(item)]
            if len(base) == 1 and ord(base[0]) < PLANE:
                fold[code] = ord(base[0])
    for first, last in _ALONE_RANGES:
        kind[first:last][kind[first:last] == LETTER] = ALONE
    return kind, fold


@njit(cache=True, inline="always")
def mix(value):  # type: ignore[no-untyped-def]
    """A 64-bit finaliser: every bit of the input moves half of the output."""
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


@njit(cache=True, inline="always")
def code_point(data_B, place):  # type: ignore[no-untyped-def]
    """The code point of the UTF-8 sequence that begins at a byte, and its number of bytes."""
    byte = np.int64(data_B[place])
    if byte < 128:
        return byte, 1
    if byte < 224:
        return (byte & 31) << 6 | (np.int64(data_B[place + 1]) & 63), 2
    if byte < 240:
        code = (byte & 15) << 12 | (np.int64(data_B[place + 1]) & 63) << 6
        return code | (np.int64(data_B[place + 2]) & 63), 3
    code = (byte & 7) << 18 | (np.int64(data_B[place + 1]) & 63) << 12
    return code | (np.int64(data_B[place + 2]) & 63) << 6 | (np.int64(data_B[place + 3]) & 63), 4


@njit(cache=True)
def hash_words(data_B, start, end, kind, fold, out_W, at_W, count):  # type: ignore[no-untyped-def]
    """Append the hashes of the words of data_B[start:end] to out_W from index `count` on, and the byte offset of each
    word's begin and end to at_W (W x 2); returns the new count. `out_W` needs room for (end - start) // 2 + 1 more.
    FNV-1a over folded code points, then `mix`. The bytes must be valid UTF-8."""
    place = start
    inside = False
    value = np.uint64(0)
    first = start
    last = start
    while place < end:
        code, size = code_point(data_B, place)
        what = kind[code] if code < 65536 else 2 * (code >= 0x20000 and code < 0x40000)
        if what == 1:
            if not inside:
                inside, value, first = True, np.uint64(0xCBF29CE484222325), place
            value = (value ^ np.uint64(fold[code])) * np.uint64(0x100000001B3)
            last = place + size
        elif what != 3:
            if inside:
                out_W[count], at_W[count, 0], at_W[count, 1] = mix(value), first, last
                count += 1
                inside = False
            if what == 2:
                folded = np.uint64(fold[code]) if code < 65536 else np.uint64(code)
                value = (np.uint64(0xCBF29CE484222325) ^ folded) * np.uint64(0x100000001B3)
                out_W[count], at_W[count, 0], at_W[count, 1] = mix(value), place, place + size
                count += 1
        place += size
    if inside:
        out_W[count], at_W[count, 0], at_W[count, 1] = mix(value), first, last
        count += 1
    return count


@njit(cache=True)
def word_hashes(data_B, start, end, kind, fold, out_W, count):  # type: ignore[no-untyped-def]
    """`hash_words` without the byte offsets, in less than half of the time: without them ASCII needs no branch per
    character, and branches at the ends of words are mispredicted. Indices are unsigned, since those with a sign are
    compared with 0 each time."""
    text_B, hash_W = data_B[start:end], out_W[count:]
    place, found, inside, one = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(1)
    value = np.uint64(0xCBF29CE484222325)
    while place < np.uint64(len(text_B)):
        letter = np.uint64(PLAIN_LETTERS[text_B[place]])
        if letter < np.uint64(NOT_ASCII):
            hash_W[found] = value  # what a word has come to, overwritten until the word has ended
            now = np.uint64(letter != 0)
            found += inside & (now ^ one)
            inside = now
            value = (value ^ letter) * np.uint64(0x100000001B3) if now else np.uint64(0xCBF29CE484222325)
            place += one
            continue
        code, size = code_point(text_B, place)
        place += np.uint64(size)
        what = kind[code] if code < 65536 else 2 * (code >= 0x20000 and code < 0x40000)
        folded = np.uint64(fold[code]) if code < 65536 else np.uint64(code)
        if what == 1:
            inside, value = one, (value ^ folded) * np.uint64(0x100000001B3)
        elif what != 3:
            hash_W[found] = value
            found += inside
            inside, value = np.uint64(0), np.uint64(0xCBF29CE484222325)
            if what == 2:
                hash_W[found] = (value ^ folded) * np.uint64(0x100000001B3)
                found += one
    if inside:
        hash_W[found] = value
        found += one
    for word in range(np.int64(found)):
        hash_W[word] = mix(hash_W[word])
    return count + np.int64(found)


@njit(cache=True, inline="always")
def hash_ngram(words_W, first, size):  # type: ignore[no-untyped-def]
    """The hash of the `size` words from index `first` on; their order counts."""
    value = np.uint64(0)
    for index in range(size):
        value = value * np.uint64(0x9E3779B97F4A7C15) + words_W[first + index]
    return mix(value)


def words_of(text: str) -> tuple[Words, npt.NDArray[np.int64]]:
    """(hashes W, byte offsets W x 2) of one text: for tests and for few texts; kernels call `hash_words`."""
    data = np.frombuffer(text.encode(), np.uint8)
    out, at = np.zeros(len(data) + 1, np.uint64), np.zeros((len(data) + 1, 2), np.int64)
    count = hash_words(data, 0, len(data), *character_tables(), out, at, 0)
    return out[:count], at[:count]
