"""From candidates to hits: the stretch of a row that a reference aligns with, where it stands, what is near it."""

from __future__ import annotations

import numpy as np
from numba import njit

from curation.kernels.alignment import SPACE, align, align_onwards, symbols_of

ANCHOR_WORDS = 3  # agreeing words at the beginning from which an alignment may start
NEARLY_WHOLE = 0.9
LEAST_SHARED = 0.4  # share of a reference's words that a window must have before it is aligned


@njit(cache=True)
def chained_window(piece, used, first, end, of_W, words, slack, out_K):  # type: ignore[no-untyped-def]
    """The words around several pieces of one item, in the order of the row: between two pieces as many as the item has
    there, but none beyond the stretch (turn, field) of the piece. Returns how many words were written to out_K; 0 where
    fewer than two pieces follow each other in row and item."""
    order = np.argsort(piece[:used, 0])
    chain = np.empty(used, np.int64)
    links = 0
    for index in order:
        if links == 0 or (piece[index, 2] + 2 >= piece[chain[links - 1], 3]
                          and piece[index, 0] >= piece[chain[links - 1], 1]):  # fmt: skip
            chain[links] = index
            links += 1
    if links < 2:
        return 0
    count = 0
    reached = first
    for link in range(links):
        low, high = first + piece[chain[link], 0], first + piece[chain[link], 1]
        if link == 0:
            lead = max(reached, low - piece[chain[0], 2] - slack)
        else:
            lead = low
            gap = piece[chain[link], 2] - piece[chain[link - 1], 3]
            while lead > reached and low - lead < gap and of_W[lead - 1] == of_W[low]:
                lead -= 1
        if link == links - 1:
            tail = min(end, high + words - piece[chain[link], 3] + slack)
        else:
            tail = high
            gap = piece[chain[link + 1], 2] - piece[chain[link], 3]
            following = first + piece[chain[link + 1], 0]
            while tail < following and tail - high < gap and of_W[tail] == of_W[high - 1]:
                tail += 1
        for word in range(lead, tail):
            if count == len(out_K):
                return 0
            out_K[count] = word
            count += 1
        reached = tail
    return count


@njit(cache=True)
def shares_words(wanted_L, words_W, window_K):  # type: ignore[no-untyped-def]
    """Whether LEAST_SHARED of a reference's words stand in a window (each occurrence of the reference counts): a cheap
    upper bound of what an alignment could find. References of more than 100 words are taken as found."""
    words = len(wanted_L)
    if words > 100:
        return True
    found = 0
    for index in range(words):
        if found + words - index < LEAST_SHARED * words:
            return False
        for place in window_K:
            if words_W[place] == wanted_L[index]:
                found += 1
                break
        if found >= LEAST_SHARED * words:
            return True
    return False


@njit(cache=True)
def compare(pattern_M, window_K, ahead, least, data_B, at_W, kind, fold):  # type: ignore[no-untyped-def]
    """(similarity, first, end) of the whole pattern and the nearest stretch of a window, in words of the window; zeros
    where the similarity is less than `least`. Where `ahead` > 0 the pattern's first `ahead` words are the window's
    first, and only the rest is aligned."""
    most = np.int64((1.0 - least) * len(pattern_M)) + 1  # one more than enough, whatever is rounded
    room = len(window_K)
    for word in window_K:
        room += at_W[word, 1] - at_W[word, 0]
    symbols_T, word_T = np.empty(room, np.uint8), np.empty(room, np.int32)
    size = symbols_of(data_B, at_W, window_K, kind, fold, symbols_T, word_T)
    if ahead:
        same = 0
        while same < size and word_T[same] < ahead:
            same += 1
        distance, end = align_onwards(pattern_M[same:], symbols_T[same:size])
        first, end = 0, end + same
    else:
        distance, first, end = align(pattern_M, symbols_T[:size], most)
    if end <= first or distance > most:
        return 0.0, 0, 0
    if symbols_T[first] == SPACE and first + 1 < end:
        first += 1
    return 1.0 - distance / len(pattern_M), word_T[first], word_T[end - 1] + 1


@njit(cache=True)
def verify(row_C, ref_C, used_C, piece_C, words_W, at_W, of_W, first_word_N1,  # type: ignore[no-untyped-def]
           data_B, kind, fold, ref_words_W, first_word_R1, symbols_M, first_symbol_R1, enough_R):  # fmt: skip
    """Align the whole reference of each candidate with its row: (similarity C, first word C, end word C, chain C,
    chained).

    Similarity is 1 - edit distance / symbols of the reference, 0..1, and may be given as 0 where it is less than
    enough_R; words are indices into at_W. Three windows are tried until enough_R is reached (NEARLY_WHOLE where there
    are several pieces): from a beginning that agrees word for word; around the best piece; around all pieces joined.
    Where the third one leaves words out, `chained` holds their number and the words of the hit from chain_C on;
    otherwise chain_C is -1. `row_C` are indices into first_word_N1.
    """
    count = len(row_C)
    score_C, first_C, end_C = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64)
    chain_C = np.full(count, -1, np.int64)
    chained, length = np.empty(1024, np.int64), 0
    for index in range(count):
        ref, piece = ref_C[index], piece_C[index]
        begin, end = first_word_N1[row_C[index]], first_word_N1[row_C[index] + 1]
        wanted = ref_words_W[first_word_R1[ref] : first_word_R1[ref + 1]]
        pattern_M = symbols_M[first_symbol_R1[ref] : first_symbol_R1[ref + 1]]
        words = len(wanted)
        slack = 4 + min(12, words // 8)
        whole, ahead = begin + piece[0, 0] - piece[0, 2], 0
        if whole >= begin:
            while ahead < min(words, end - whole) and words_W[whole + ahead] == wanted[ahead]:
                ahead += 1
        if ahead == words:
            score_C[index], first_C[index], end_C[index] = 1.0, whole, whole + words
            continue
        high = min(end, begin + piece[0, 1] + words - piece[0, 3] + slack)
        for attempt in range(0 if ahead >= ANCHOR_WORDS else 1, 3):
            if attempt == 0:
                window_K = np.arange(whole, max(whole + ahead, high))
            elif attempt == 1:
                window_K = np.arange(max(begin, whole - slack), high)
            else:
                room_K = np.empty(3 * words + 4 * slack + 64, np.int64)
                size = chained_window(piece, used_C[index], begin, end, of_W, words, slack, room_K)
                window_K = room_K[:size]
            if len(window_K) == 0 or not shares_words(wanted, words_W, window_K):
                continue
            least = max(score_C[index], enough_R[ref])
            score, one, two = compare(pattern_M, window_K, ahead if attempt == 0 else 0, least, data_B, at_W, kind,
                                      fold)  # fmt: skip
            if score > score_C[index]:
                score_C[index], first_C[index], end_C[index] = score, window_K[one], window_K[two - 1] + 1
                chain_C[index] = -1
                if window_K[two - 1] - window_K[one] != two - 1 - one:
                    if length + two - one + 1 > len(chained):
                        chained = np.concatenate((chained, np.empty(len(chained) + two - one + 1, np.int64)))
                    chain_C[index] = length
                    chained[length] = two - one
                    chained[length + 1 : length + 1 + two - one] = window_K[one:two]
                    length += two - one + 1
            if score_C[index] >= enough_R[ref] and (used_C[index] == 1 or score_C[index] >= NEARLY_WHOLE):
                break
    return score_C, first_C, end_C, chain_C, chained[:length]


@njit(cache=True)
def hit_words(hit, first_H, end_H, chain_H, chained):  # type: ignore[no-untyped-def]
    """The words of a hit, as indices into at_W."""
    if chain_H[hit] >= 0:
        start = chain_H[hit] + 1
        return chained[start : start + chained[start - 1]]
    return np.arange(first_H[hit], end_H[hit])


@njit(cache=True)
def characters_of(text_B):  # type: ignore[no-untyped-def]
    """The characters of UTF-8 text."""
    count = 0
    for byte in text_B:
        count += (byte & 0xC0) != 0x80
    return count


@njit(cache=True)
def characters(data_B, begin_H, end_H):  # type: ignore[no-untyped-def]
    """The characters of each stretch of UTF-8 text (H)."""
    out_H = np.empty(len(begin_H), np.int64)
    for hit in range(len(begin_H)):
        out_H[hit] = characters_of(data_B[begin_H[hit] : end_H[hit]])
    return out_H


@njit(cache=True)
def snippets(data_B, begin_H, end_H, most):  # type: ignore[no-untyped-def]
    """The first `most` characters of each stretch of UTF-8 text: (byte offsets H + 1, bytes)."""
    first_H1, room = np.zeros(len(begin_H) + 1, np.int32), 0
    for hit in range(len(begin_H)):
        room += min(4 * most, end_H[hit] - begin_H[hit])
    out_B, count = np.empty(room, np.uint8), 0
    for hit in range(len(begin_H)):
        left = most
        for place in range(begin_H[hit], end_H[hit]):
            left -= (data_B[place] & 0xC0) != 0x80
            if left < 0:
                break
            out_B[count] = data_B[place]
            count += 1
        first_H1[hit + 1] = count
    return first_H1, out_B[:count]


@njit(cache=True)
def places(first_H, end_H, chain_H, chained, at_W, of_W, data_B, start_S):  # type: ignore[no-untyped-def]
    """Where hits stand, P x 6 in the order of hits and words: hit, stretch, first and end byte in data_B, first and end
    character in the stretch. A hit has several places where it runs over stretches or leaves words out."""
    out, count = np.empty((2 * len(first_H) + 16, 6), np.int64), 0
    for hit in range(len(first_H)):
        span = hit_words(hit, first_H, end_H, chain_H, chained)
        index = 0
        while index < len(span):
            last = index
            stretch = of_W[span[index]]
            while last + 1 < len(span) and span[last + 1] == span[last] + 1 and of_W[span[last + 1]] == stretch:
                last += 1
            if count == len(out):
                out = np.concatenate((out, np.empty((len(out), 6), np.int64)))
            begin, end = at_W[span[index], 0], at_W[span[last], 1]
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = hit, stretch, begin, end
            out[count, 4] = characters_of(data_B[start_S[stretch] : begin])
            out[count, 5] = out[count, 4] + characters_of(data_B[begin:end])
            count += 1
            index = last + 1
    return out[:count]


@njit(cache=True)
def answers_near(row_H, first_H, end_H, answer_H, words_W, first_word_N1, ref_words_W, first_word_R1):  # type: ignore[no-untyped-def]
    """Whether the answer of a hit's item stands near the hit (H; -1 where there is no answer), after decon's rule: one
    of up to three words exactly within 50 words before or after, of a longer one at least half of its distinct
    three-word grams within max(100, twice its words). The words of the hit itself do not count."""
    out = np.full(len(row_H), -1, np.int8)
    for hit in range(len(row_H)):
        if answer_H[hit] < 0:
            continue
        answer = ref_words_W[first_word_R1[answer_H[hit]] : first_word_R1[answer_H[hit] + 1]]
        size = len(answer)
        if size == 0:
            continue
        reach = 50 if size <= 3 else max(100, 2 * size)
        low = max(first_word_N1[row_H[hit]], first_H[hit] - reach)
        high = min(first_word_N1[row_H[hit] + 1], end_H[hit] + reach)
        gram = min(3, size)
        wanted, seen = set(), set()
        for place in range(size - gram + 1):
            value = np.uint64(0)
            for step in range(gram):
                value = value * np.uint64(0x9E3779B97F4A7C15) + answer[place + step]
            wanted.add(value)
        for place in range(low, high - gram + 1):
            if place < end_H[hit] and place + gram > first_H[hit]:
                continue  # the question itself is no answer
            value = np.uint64(0)
            for step in range(gram):
                value = value * np.uint64(0x9E3779B97F4A7C15) + words_W[place + step]
            if value in wanted:
                seen.add(value)
        out[hit] = 2 * len(seen) >= len(wanted)
    return out
