"""Rows of eight columns: the unit in which kernels on trees compute.

Numbers are loaded into scalars before any is stored, which is what lets the compiler use vectors where it cannot know
that arrays do not overlap.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.threads import parallel

LANES = 8
_TILE = 64  # rows


@njit(nogil=True, cache=True, fastmath={"contract"})
def add_multiple(a, V, i, Y, j):
    """Y[j] += a V[i]."""
    v, y = V[i], Y[j]
    y0, y1, y2, y3 = y[0] + a * v[0], y[1] + a * v[1], y[2] + a * v[2], y[3] + a * v[3]
    y4, y5, y6, y7 = y[4] + a * v[4], y[5] + a * v[5], y[6] + a * v[6], y[7] + a * v[7]
    y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = y0, y1, y2, y3, y4, y5, y6, y7


@njit(nogil=True, cache=True, fastmath={"contract"})
def add_combination(weights, count, V, first, apart, Y, j):
    """Y[j] += sum over r < count of weights[r] V[first + r apart]."""
    y = Y[j]
    y0, y1, y2, y3, y4, y5, y6, y7 = y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7]
    for r in range(count):
        a, v = weights[r], V[first + r * apart]
        y0, y1, y2, y3 = y0 + a * v[0], y1 + a * v[1], y2 + a * v[2], y3 + a * v[3]
        y4, y5, y6, y7 = y4 + a * v[4], y5 + a * v[5], y6 + a * v[6], y7 + a * v[7]
    y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = y0, y1, y2, y3, y4, y5, y6, y7


@njit(nogil=True, cache=True, fastmath={"contract"})
def dot_combination(weights, count, V, first, apart, W, j):
    """Inner product of W[j] and the sum over r < count of weights[r] V[first + r apart]."""
    w = W[j]
    y0, y1, y2, y3, y4, y5, y6, y7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(count):
        a, v = weights[r], V[first + r * apart]
        y0, y1, y2, y3 = y0 + a * v[0], y1 + a * v[1], y2 + a * v[2], y3 + a * v[3]
        y4, y5, y6, y7 = y4 + a * v[4], y5 + a * v[5], y6 + a * v[6], y7 + a * v[7]
    return y0 * w[0] + y1 * w[1] + y2 * w[2] + y3 * w[3] + y4 * w[4] + y5 * w[5] + y6 * w[6] + y7 * w[7]


@njit(nogil=True, cache=True)
def copy_row(V, i, Y, j):
    """Y[j] = V[i]."""
    v, y = V[i], Y[j]
    v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = v0, v1, v2, v3, v4, v5, v6, v7


@njit(nogil=True, cache=True)
def dot(V, i, W, j):
    """Inner product of two rows."""
    v, w = V[i], W[j]
    return v[0] * w[0] + v[1] * w[1] + v[2] * w[2] + v[3] * w[3] + v[4] * w[4] + v[5] * w[5] + v[6] * w[6] + v[7] * w[7]


@parallel
def to_lanes(X, order):
    """X (n, k) as blocks (B, n, 8) of columns, rows in another order, zeros behind the last column."""
    n, k = X.shape
    blocks = np.empty((-(-k // LANES), n, LANES))
    for tile in prange(-(-n // _TILE)):
        for b in range(blocks.shape[0]):
            for i in range(tile * _TILE, min(n, (tile + 1) * _TILE)):
                x = X[order[i]]
                for c in range(LANES):
                    blocks[b, i, c] = x[b * LANES + c] if b * LANES + c < k else 0.0
    return blocks


@parallel
def from_lanes(blocks, position, Y):
    """The reverse: into Y (n, k), whose row i is at position[i]. Rows are shared out, for columns share cache lines."""
    n, k = Y.shape
    for tile in prange(-(-n // _TILE)):
        for b in range(blocks.shape[0]):
            for row in range(tile * _TILE, min(n, (tile + 1) * _TILE)):
                y, i = Y[row], position[row]
                for c in range(min(LANES, k - b * LANES)):
                    y[b * LANES + c] = blocks[b, i, c]
