"""Rows of eight columns: the unit in which kernels on trees compute.

Rows are loaded as vectors: numba makes none of eight numbers written one by one. Arrays (..., 8) are contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.scratch import lines
from structmask.backends._numba.threads import parallel
from structmask.backends._numba.vectors import axpy, inner, load, prefetch, scaled, store

LANES = 8
AHEAD = 16  # rows that are asked for before they are needed
_TILE = 64  # rows


@njit(nogil=True, cache=True)
def row(V, i):
    """V[i] as a vector."""
    return load(V, LANES * np.int64(i))


@njit(nogil=True, cache=True)
def set_row(V, i, vector):
    """V[i] = vector."""
    store(V, LANES * np.int64(i), vector)


@njit(nogil=True, cache=True)
def ask_for(V, rows, begin, end):
    """Bring V[i] for the i in rows[begin:end], which may lie anywhere."""
    for e in range(begin, end):
        prefetch(V, LANES * np.int64(rows[e]))


@njit(nogil=True, cache=True)
def add_multiple(a, V, i, Y, j):
    """Y[j] += a V[i]."""
    set_row(Y, j, axpy(a, row(V, i), row(Y, j)))


@njit(nogil=True, cache=True)
def add_combination(weights, count, V, first, apart, Y, j):
    """Y[j] += sum over r < count of weights[r] V[first + r apart]."""
    y = row(Y, j)
    for r in range(count):
        y = axpy(weights[r], row(V, first + r * apart), y)
    set_row(Y, j, y)


@njit(nogil=True, cache=True)
def dot_combination(weights, count, V, first, apart, W, j):
    """Inner product of W[j] and the sum over r < count of weights[r] V[first + r apart]."""
    y = scaled(0.0, row(W, j))
    for r in range(count):
        y = axpy(weights[r], row(V, first + r * apart), y)
    return inner(row(W, j), y)


@njit(nogil=True, cache=True)
def copy_row(V, i, Y, j):
    """Y[j] = V[i]."""
    set_row(Y, j, row(V, i))


@njit(nogil=True, cache=True)
def dot(V, i, W, j):
    """Inner product of two rows."""
    return inner(row(V, i), row(W, j))


def to_lanes(X: np.ndarray, order: np.ndarray) -> np.ndarray:
    """X (n, k) as blocks (B, n, 8) of columns, rows in another order, zeros behind the last column."""
    n, k = X.shape
    blocks = lines((-(-k // LANES), n, LANES), np.dtype(np.float64))
    _fill_lanes(X, order, blocks)
    return blocks


@parallel
def _fill_lanes(X, order, blocks):
    n, k = X.shape
    for tile in prange(-(-n // _TILE)):
        for b in range(blocks.shape[0]):
            for i in range(tile * _TILE, min(n, (tile + 1) * _TILE)):
                prefetch(X, k * order[min(i + AHEAD, n - 1)] + b * LANES)
                x = X[order[i]]
                for c in range(LANES):
                    blocks[b, i, c] = x[b * LANES + c] if b * LANES + c < k else 0.0


@parallel
def from_lanes(blocks, position, Y):
    """The reverse: into Y (n, k), whose row i is at position[i]. Rows are shared out, for columns share cache lines."""
    n, k = Y.shape
    for tile in prange(-(-n // _TILE)):
        for b in range(blocks.shape[0]):
            for row in range(tile * _TILE, min(n, (tile + 1) * _TILE)):
                prefetch(blocks, LANES * (b * n + position[min(row + AHEAD, n - 1)]))
                y, i = Y[row], position[row]
                for c in range(min(LANES, k - b * LANES)):
                    y[b * LANES + c] = blocks[b, i, c]
