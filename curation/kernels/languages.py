"""Naive Bayes over byte n-grams: what py3langid computes for a text, for many texts at once.

A text is walked through an automaton of bytes; each state that ends features counts one, and the score of a language is
the sum of log1p(count) times the feature's log-likelihood. Sums run in the order of first occurrence, so that a score
is the same on every machine (a matrix product is not).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def add_scaled(total_L, row_L, factor):  # type: ignore[no-untyped-def]
    """total += factor * row: a loop of its own, that the compiler turns into vector instructions."""
    for language in range(len(total_L)):
        total_L[language] += factor * row_L[language]


@njit(cache=True)
def score_texts(data_B, start_S, end_S, next_move, row_base, output, weights_FL, prior_L):  # type: ignore[no-untyped-def]
    """(scores S x L, number of features found S) of S texts `data_B[start:end]` under L languages.

    `next_move[row_base[state] + byte]` is the next state, `output[state]` the feature that it ends or -1, `weights_FL`
    the log-likelihood of F features, `prior_L` the log-prior."""
    num_texts = len(start_S)
    scores = np.empty((num_texts, len(prior_L)), np.float32)
    found = np.zeros(num_texts, np.int64)
    counts = np.zeros(len(weights_FL), np.int32)
    seen = np.empty(len(weights_FL), np.int64)
    for text in range(num_texts):
        state, distinct = np.int64(0), 0
        for place in range(start_S[text], end_S[text]):
            state = np.int64(next_move[row_base[state] + data_B[place]])
            feature = np.int64(output[state])
            if feature >= 0:
                if counts[feature] == 0:
                    seen[distinct] = feature
                    distinct += 1
                counts[feature] += 1
        found[text] = distinct
        total_L = scores[text]
        total_L[:] = prior_L
        for index in range(distinct):
            feature = seen[index]
            add_scaled(total_L, weights_FL[feature], np.float32(np.log1p(np.float64(counts[feature]))))
            counts[feature] = 0
    return scores, found


@njit(cache=True)
def count_letter_bytes(data_B, start_S, end_S):  # type: ignore[no-untyped-def]
    """The number of ASCII letters and non-ASCII bytes of each of S texts: about the bytes of its letters."""
    out = np.zeros(len(start_S), np.int64)
    for text in range(len(start_S)):
        count = 0
        for place in range(start_S[text], end_S[text]):
            byte = data_B[place]
            count += byte >= 128 or 65 <= byte <= 90 or 97 <= byte <= 122
        out[text] = count
    return out
