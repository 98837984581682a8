"""Direct sums over blocks of pairs: components left whole, and pairs of stretches of two lists.

Distances are written out so that f, whatever it is, is called on arrays; its values are then applied to both sides.
X, Y are blocks (B, n, 8) of columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import LANES, add_combination, add_multiple, ask_for, copy_row, dot
from structmask.backends._numba.threads import parallel, serial_and_parallel

_ASKED = 64  # rows of a stretch that are asked for before it is met


@njit(nogil=True, cache=True)
def whole_distances(first, last, pointers, parent, length, out):
    """Distances of all pairs i > j of the components first ... last - 1, row by row."""
    at = 0
    for b in range(first, last):
        s, count = pointers[b], pointers[b + 1] - pointers[b]
        for i in range(1, count):
            p, w, row = parent[s + i], length[s + i], at + i * (i - 1) // 2
            above = at + p * (p - 1) // 2
            for j in range(p):
                out[row + j] = out[above + j] + w
            out[row + p] = w
            for j in range(p + 1, i):
                out[row + j] = out[at + j * (j - 1) // 2 + p] + w
        at += count * (count - 1) // 2


@parallel
def near_distances(pairs, begins, dist, out):
    """Distances of all pairs of the stretches [a, a_end) and [b, b_end) in each row of `pairs`, from `begins` on."""
    for q in prange(pairs.shape[0]):
        a, a_end, b, b_end = pairs[q]
        for i in range(a, a_end):
            row = begins[q] + (i - a) * (b_end - b)
            for j in range(b, b_end):
                out[row + j - b] = dist[i] + dist[j]


def _apply_whole(first, last, pointers, node, values, X, Y):
    """Y += (values at pairs) X for the components first ... last - 1, on both sides of the diagonal."""
    largest = 1
    for b in range(first, last):
        largest = max(largest, pointers[b + 1] - pointers[b])
    for block in prange(X.shape[0]):
        x, y = np.empty((largest, LANES)), np.empty((largest, LANES))
        at = 0
        for b in range(first, last):
            s, count = pointers[b], pointers[b + 1] - pointers[b]
            for i in range(count):
                copy_row(X[block], node[s + i], x, i)
                copy_row(Y[block], node[s + i], y, i)
            for i in range(1, count):
                add_combination(values[at : at + i], i, x, 0, 1, y, i)
                for j in range(i):
                    add_multiple(values[at + j], x, i, y, j)
                at += i
            for i in range(count):
                copy_row(y, i, Y[block], node[s + i])


@njit(nogil=True, cache=True)
def _ask_for_both(pair, node, X, Y):
    """Bring what the beginnings of two stretches need, while others are met."""
    for side in range(2):
        begin, end = pair[2 * side], min(pair[2 * side + 1], pair[2 * side] + _ASKED)
        ask_for(X, node, begin, end)
        ask_for(Y, node, begin, end)


def _apply_near(pairs, node, values, X, Y):
    """Y += (values at pairs) X for pairs of stretches."""
    widest = 1
    for q in range(pairs.shape[0]):
        widest = max(widest, pairs[q, 3] - pairs[q, 2])
    for block in prange(X.shape[0]):
        x, y = np.empty((widest, LANES)), np.empty((widest, LANES))
        at = 0
        for q in range(pairs.shape[0]):
            a, a_end, b, b_end = pairs[q]
            count = b_end - b
            if q + 1 < pairs.shape[0]:
                _ask_for_both(pairs[q + 1], node, X[block], Y[block])
            for j in range(count):
                copy_row(X[block], node[b + j], x, j)
                copy_row(Y[block], node[b + j], y, j)
            for i in range(a, a_end):
                add_combination(values[at : at + count], count, x, 0, 1, Y[block], node[i])
                for j in range(count):
                    add_multiple(values[at + j], X[block], node[i], y, j)
                at += count
            for j in range(count):
                copy_row(y, j, Y[block], node[b + j])


@njit(nogil=True, cache=True)
def whole_gradient(first, last, pointers, node, index, G, X, out):
    """out[index of a pair] += <G_i, X_j> + <G_j, X_i> for all pairs of the components; G, X (B, n, 8)."""
    at = 0
    for b in range(first, last):
        s, count = pointers[b], pointers[b + 1] - pointers[b]
        for i in range(1, count):
            u = node[s + i]
            for j in range(i):
                v, d = node[s + j], index[at]
                at += 1
                if d < out.size:
                    for block in range(X.shape[0]):
                        out[d] += dot(G[block], u, X[block], v) + dot(G[block], v, X[block], u)


apply_whole_serial, apply_whole_parallel = serial_and_parallel(_apply_whole)
apply_near_serial, apply_near_parallel = serial_and_parallel(_apply_near)
