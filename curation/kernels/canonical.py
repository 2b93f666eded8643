"""Exact keys of texts: equal for texts that differ in white space alone."""

from __future__ import annotations

import numpy as np
from numba import njit

from curation.kernels.words import mix


@njit(cache=True, inline="always")
def _space(data_B, place, end):  # type: ignore[no-untyped-def]
    """The number of bytes of the white-space character at `place`, 0 where another one stands there (Unicode's
    White_Space property)."""
    byte = data_B[place]
    if byte == 32 or (byte >= 9 and byte <= 13):
        return 1
    if byte == 0xC2 and place + 1 < end and (data_B[place + 1] == 0xA0 or data_B[place + 1] == 0x85):
        return 2
    if byte < 0xE1 or byte > 0xE3 or place + 2 >= end:
        return 0
    second, third = data_B[place + 1], data_B[place + 2]
    if byte == 0xE2 and second == 0x80:
        found = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
    elif byte == 0xE2:
        found = second == 0x81 and third == 0x9F
    elif byte == 0xE1:
        found = second == 0x9A and third == 0x80
    else:
        found = second == 0x80 and third == 0x80
    return 3 if found else 0


@njit(cache=True)
def text_keys(data_B, start_S, end_S, out_S):  # type: ignore[no-untyped-def]
    """A 64-bit key of each of S stretches of UTF-8: FNV-1a over its bytes with every run of white space as one space
    and none at either end, then `mix`."""
    for segment in range(len(start_S)):
        place, end = start_S[segment], end_S[segment]
        value = np.uint64(0xCBF29CE484222325)
        waiting, begun = False, False
        while place < end:
            size = _space(data_B, place, end)
            if size:
                waiting = begun
                place += size
                continue
            if waiting:
                value = (value ^ np.uint64(32)) * np.uint64(0x100000001B3)
                waiting = False
            value = (value ^ np.uint64(data_B[place])) * np.uint64(0x100000001B3)
            begun = True
            place += 1
        out_S[segment] = mix(value)


@njit(cache=True)
def chained(keys_S, mark_S, first_G1, out_G):  # type: ignore[no-untyped-def]
    """A key of each of G groups (stretches first_G1[g] : first_G1[g + 1]) from its keys in order, each with a mark."""
    for group in range(len(first_G1) - 1):
        value = np.uint64(0x9E3779B97F4A7C15)
        for index in range(first_G1[group], first_G1[group + 1]):
            value = mix(value * np.uint64(0xBF58476D1CE4E5B9) + (keys_S[index] ^ mix(np.uint64(mark_S[index] + 17))))
        out_G[group] = value
