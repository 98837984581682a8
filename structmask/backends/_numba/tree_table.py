"""Merges whose distances are whole numbers: sums by distance, then a product with a Hankel matrix of the table.

Short merges multiply directly; long ones go by FFT (`tree_grid`). X, Y are blocks (B, n, 8) of columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import LANES, add_multiple, dot
from structmask.backends._numba.threads import serial_and_parallel


@njit(nogil=True, cache=True)
def cut_merges(dist, merges, support):
    """Shorten the lists of all merges (in place) to the entries with a partner within the support."""
    for m in range(merges.shape[0]):
        for side in range(2):
            begin, end = merges[m, 2 * side], merges[m, 2 * side + 1]
            nearest = dist[merges[m, 2 - 2 * side]]
            merges[m, 2 * side + 1] = begin + np.searchsorted(dist[begin:end], support - nearest, side="right")
        if merges[m, 1] == merges[m, 0] or merges[m, 3] == merges[m, 2]:
            merges[m, 1], merges[m, 3] = merges[m, 0], merges[m, 2]


@njit(nogil=True, cache=True)
def distinct_counts(dist, merges):
    """Number of different distances in both lists of every merge."""
    counts = np.zeros((merges.shape[0], 2), np.int64)
    for m in range(merges.shape[0]):
        for side in range(2):
            for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
                counts[m, side] += e == merges[m, 2 * side] or dist[e] != dist[e - 1]
    return counts


@njit(nogil=True, cache=True)
def _collect(node, dist, begin, end, X, keys, sums):
    """Sums of X by distance; how many distances there are."""
    count, last = 0, -1.0
    for e in range(begin, end):
        if dist[e] != last:
            last, keys[count] = dist[e], np.int64(dist[e])
            sums[count] = 0
            count += 1
        add_multiple(1.0, X, node[e], sums, count - 1)
    return count


@njit(nogil=True, cache=True)
def _deal(node, dist, begin, end, sums, Y):
    """Y += the row of each distance, to all nodes of that distance."""
    at, last = -1, -1.0
    for e in range(begin, end):
        if dist[e] != last:
            last, at = dist[e], at + 1
        add_multiple(1.0, sums, at, Y, node[e])


def _short_merges(node, dist, merges, chosen, widest, table, X, Y):
    """Y += table[distance] X across the chosen merges."""
    for block in prange(X.shape[0]):
        key_a, key_b = np.empty(widest, np.int64), np.empty(widest, np.int64)
        in_a, in_b = np.empty((widest, LANES)), np.empty((widest, LANES))
        out_a, out_b = np.empty((widest, LANES)), np.empty((widest, LANES))
        for m in chosen:
            a, a_end, b, b_end = merges[m]
            count_a = _collect(node, dist, a, a_end, X[block], key_a, in_a)
            count_b = _collect(node, dist, b, b_end, X[block], key_b, in_b)
            out_a[:count_a] = 0
            out_b[:count_b] = 0
            for i in range(count_a):
                for j in range(count_b):
                    if key_a[i] + key_b[j] < table.size:
                        f = table[key_a[i] + key_b[j]]
                        add_multiple(f, in_b, j, out_a, i)
                        add_multiple(f, in_a, i, out_b, j)
            _deal(node, dist, a, a_end, out_a, Y[block])
            _deal(node, dist, b, b_end, out_b, Y[block])


short_merges_serial, short_merges_parallel = serial_and_parallel(_short_merges)


@njit(nogil=True, cache=True)
def short_gradient(node, dist, merges, chosen, widest, G, X, out):
    """out[distance] += <G_i, X_j> + <G_j, X_i> over all pairs of the chosen merges."""
    keys = np.empty((2, widest), np.int64)
    g, x = np.empty((2, widest, LANES)), np.empty((2, widest, LANES))
    for m in chosen:
        a, a_end, b, b_end = merges[m]
        for block in range(X.shape[0]):
            _collect(node, dist, a, a_end, G[block], keys[0], g[0])
            _collect(node, dist, b, b_end, G[block], keys[1], g[1])
            count_a = _collect(node, dist, a, a_end, X[block], keys[0], x[0])
            count_b = _collect(node, dist, b, b_end, X[block], keys[1], x[1])
            for i in range(count_a):
                for j in range(count_b):
                    d = keys[0, i] + keys[1, j]
                    if d < out.size:
                        out[d] += dot(g[0], i, x[1], j) + dot(g[1], j, x[0], i)
