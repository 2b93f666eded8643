"""Pairs of sets: candidates from groups of equal keys, the size of intersections, and the clusters that pairs form."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def group_pairs(keys_S, order_S, sizes_S, least_ratio, cap, near, out_P):  # type: ignore[no-untyped-def]
    """Write the pairs (a << 32 | b, a < b) of sets with equal keys to out_P; returns (pairs, groups above the cap).

    `order_S` sorts keys_S and is stable, so that a group's sets ascend. A pair whose sizes cannot reach `least_ratio`
    (the smaller over the larger, which no Jaccard similarity exceeds) is none. In a group of more than `cap` sets each
    is compared with the first and with the `near` before it alone. An empty `out_P` counts without writing."""
    count, large, first = 0, 0, 0
    while first < len(order_S):
        last = first + 1
        while last < len(order_S) and keys_S[order_S[last]] == keys_S[order_S[first]]:
            last += 1
        many = last - first > cap
        large += many
        for index in range(first + 1, last):
            begin = max(first, index - near) if many else first
            for other in range(begin - (begin > first), index):  # the place before the neighbours stands for the first
                a, b = order_S[other if other >= begin else first], order_S[index]
                if min(sizes_S[a], sizes_S[b]) >= least_ratio * max(sizes_S[a], sizes_S[b]):
                    if len(out_P):
                        out_P[count] = np.uint64(a) << np.uint64(32) | np.uint64(b)
                    count += 1
        first = last
    return count, large


@njit(cache=True)
def intersections(hashes_H, first_S, sizes_S, a_P, b_P, out_P):  # type: ignore[no-untyped-def]
    """The number of common elements of the sets a_P and b_P (P pairs), whose ascending elements stand in hashes_H from
    first_S on."""
    for pair in range(len(a_P)):
        left, right = first_S[a_P[pair]], first_S[b_P[pair]]
        left_end, right_end = left + sizes_S[a_P[pair]], right + sizes_S[b_P[pair]]
        common = 0
        while left < left_end and right < right_end:
            x, y = hashes_H[left], hashes_H[right]
            common += x == y
            left += x <= y
            right += y <= x
        out_P[pair] = common


@njit(cache=True)
def single_linkage(num_sets, a_P, b_P, jaccard_P):  # type: ignore[no-untyped-def]
    """(root_S, link_S) of S sets under P pairs, given by falling similarity: the smallest set that the pairs connect a
    set with (itself where none does), and the similarity at which a set is first connected with a smaller one, 0 where
    it never is. At any threshold t >= the least similarity the clusters' smallest members are those with link_S < t.
    Union-find with path halving."""
    parent_S, link_S = np.arange(num_sets), np.zeros(num_sets)
    for pair in range(len(a_P)):
        a, b = a_P[pair], b_P[pair]
        while parent_S[a] != a:
            parent_S[a] = parent_S[parent_S[a]]
            a = parent_S[a]
        while parent_S[b] != b:
            parent_S[b] = parent_S[parent_S[b]]
            b = parent_S[b]
        if a != b:
            parent_S[max(a, b)] = min(a, b)
            link_S[max(a, b)] = jaccard_P[pair]
    for index in range(num_sets):  # a parent is smaller than its child, so one pass is enough
        parent_S[index] = parent_S[parent_S[index]]
    return parent_S, link_S
