"""Direct sums over blocks of pairs: components left whole, and pairs of stretches of two lists.

Distances are written out so that f, whatever it is, is called on arrays; its values are then applied to both sides.
X, Y are blocks (B, n, 8) of columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import LANES, add_combination, add_multiple, ask_for, copy_row, dot, row, set_row
from structmask.backends._numba.threads import parallel, serial_and_parallel
from structmask.backends._numba.vectors import axpy

_ASKED = 64  # rows of a stretch that are asked for before it is met


@njit(nogil=True, cache=True)
def whole_distances(first, last, pointers, parent, length, out):
    """Distances of all pairs i > j of the components first ... last - 1, row by row."""
    at = 0
    for b in range(first, last):
        s, count = pointers[b], pointers[b + 1] - pointers[b]
        for i in range(1, count):
            p, w, begin = parent[s + i], length[s + i], at + i * (i - 1) // 2
            above = at + p * (p - 1) // 2
            for j in range(p):
                out[begin + j] = out[above + j] + w
            out[begin + p] = w
            for j in range(p + 1, i):
                out[begin + j] = out[at + j * (j - 1) // 2 + p] + w
        at += count * (count - 1) // 2


@parallel
def near_distances(pairs, begins, dist, out):
    """Distances of all pairs of the stretches [a, a_end) and [b, b_end) in each row of `pairs`, from `begins` on."""
    for q in prange(pairs.shape[0]):
        a, a_end, b, b_end = pairs[q]
        for i in range(a, a_end):
            begin = begins[q] + (i - a) * (b_end - b)
            for j in range(b, b_end):
                out[begin + j - b] = dist[i] + dist[j]


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


@njit(nogil=True, cache=True)
def _meet(values, at, a, a_end, count, node, X, Y, x, y):
    """A stretch and the rows x, y of another: four rows at a time, so that those are loaded once for four pairs."""
    i = a
    while i + 4 <= a_end:
        i0, i1, i2, i3 = node[i], node[i + 1], node[i + 2], node[i + 3]
        x0, x1, x2, x3 = row(X, i0), row(X, i1), row(X, i2), row(X, i3)
        y0, y1, y2, y3 = row(Y, i0), row(Y, i1), row(Y, i2), row(Y, i3)
        for j in range(count):
            p, other = np.uint64(at + j), row(x, j)
            v0, v1 = values[p], values[p + np.uint64(count)]
            v2, v3 = values[p + np.uint64(2 * count)], values[p + np.uint64(3 * count)]
            y0, y1, y2, y3 = axpy(v0, other, y0), axpy(v1, other, y1), axpy(v2, other, y2), axpy(v3, other, y3)
            set_row(y, j, axpy(v3, x3, axpy(v2, x2, axpy(v1, x1, axpy(v0, x0, row(y, j))))))
        set_row(Y, i0, y0)
        set_row(Y, i1, y1)
        set_row(Y, i2, y2)
        set_row(Y, i3, y3)
        at += 4 * count
        i += 4
    for rest in range(i, a_end):
        add_combination(values[at : at + count], count, x, 0, 1, Y, node[rest])
        for j in range(count):
            add_multiple(values[at + j], X, node[rest], y, j)
        at += count
    return at


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
            at = _meet(values, at, a, a_end, count, node, X[block], Y[block], x, y)
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
