"""Products with (decay mask of a forest) * (F G^T): both sweeps for eight features of eight columns at once, in cache.

A task is a head and eight columns of the operand. They are scaled by features, swept up and down, scaled again and
added to the result: no column of a feature is ever written to memory beyond eight at a time, and what a node needs of
its tree is read once for all features at hand.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import AHEAD, LANES, row, set_row
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import axpy, prefetch, scaled

SERIAL_WORK = 1_000_000  # products of a node, a feature and a column below which one thread is as fast
_FEATURES = 8  # at a time
_ROWS = 64  # that are reordered at a time


@njit(nogil=True, cache=True)
def by_position(order, X, tile, blocks):
    """A tile of rows of X (n, k), in another order, as blocks (B, n, width) of columns, zeros behind the last."""
    n, k = X.shape
    for i in range(tile * _ROWS, min(n, (tile + 1) * _ROWS)):
        prefetch(X, k * order[min(i + AHEAD, n - 1)])
        x = X[order[i]]
        for b in range(blocks.shape[0]):
            for c in range(blocks.shape[2]):
                column = b * blocks.shape[2] + c
                blocks[b, i, c] = x[column] if column < k else 0.0


@njit(nogil=True, cache=True)
def tiles(n):
    """Number of tiles of rows."""
    return -(-n // _ROWS)


@njit(nogil=True, cache=True)
def _collected(E, begin, end, g, V, S, i, count):
    """S[i, r] = g[i, r] V[i] and the decayed sums of the children begin ... end - 1."""
    v = row(V, i)
    for r in range(count):
        s = scaled(g[i, r], v)
        for j in range(begin, end):
            s = axpy(E[j], row(S, _FEATURES * j + r), s)
        set_row(S, _FEATURES * i + r, s)


@njit(nogil=True, cache=True)
def _passed_on(e, above, f, S, Y, i, count):
    """S[i, r] += e (S[above, r] - e S[i, r]), what comes from elsewhere, and Y[i] += f[i, r] S[i, r]."""
    y = row(Y, i)
    for r in range(count):
        below = row(S, _FEATURES * i + r)
        s = axpy(e, axpy(-e, below, row(S, _FEATURES * above + r)), below)
        set_row(S, _FEATURES * i + r, s)
        y = axpy(f[i, r], s, y)
    set_row(Y, i, y)


@njit(nogil=True, cache=True)
def _at_root(f, S, Y, i, count):
    """Y[i] += f[i, r] S[i, r]: a root has all of its tree below."""
    y = row(Y, i)
    for r in range(count):
        y = axpy(f[i, r], row(S, _FEATURES * i + r), y)
    set_row(Y, i, y)


@njit(nogil=True, cache=True)
def _swept(first, up, roots, E, f, g, V, S, Y, count):
    """Up and down for some features."""
    for i in range(E.size - 1, -1, -1):
        _collected(E, first[i], first[i + 1], g, V, S, i, count)
    for i in range(roots):
        _at_root(f, S, Y, i, count)
    for i in range(roots, E.size):
        _passed_on(E[i], up[i], f, S, Y, i, count)


def _hadamard(order, first, up, roots, E, F, G, X, f, g, scratch, Y):
    heads, n, k = X.shape
    pieces, workers = -(-k // LANES), scratch.shape[0]
    for t in prange(heads * tiles(n)):
        h, tile = t // tiles(n), t % tiles(n)
        by_position(order, F[h], tile, f[h])
        by_position(order, G[h], tile, g[h])
    tasks = heads * pieces
    for worker in prange(workers):
        S = scratch[worker]
        V, T = S[_FEATURES * n : (_FEATURES + 1) * n], S[(_FEATURES + 1) * n :]
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, b = task // pieces, task % pieces * LANES
            width, e = min(LANES, k - b), E[h if E.shape[0] > 1 else 0]
            T[:] = 0
            for i in range(n):
                for c in range(LANES):
                    V[i, c] = X[h, order[i], b + c] if c < width else 0.0
            for r in range(f.shape[1]):
                count = min(_FEATURES, F.shape[2] - r * _FEATURES)
                _swept(first, up, roots, e, f[h, r], g[h, r], V, S, T, count)
            for i in range(n):
                for c in range(width):
                    Y[h, order[i], b + c] = T[i, c]


_hadamard_serial, _hadamard_parallel = serial_and_parallel(_hadamard)


def tree_hadamard(
    order: np.ndarray,
    first: np.ndarray,
    up: np.ndarray,
    roots: int,
    E: np.ndarray,
    F: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
) -> np.ndarray:
    """(M * F G^T) X (B, n, k) for the decay mask M of real factors E (1 or B, n), by position, none larger than 1.

    F, G (B, n, r) and X (B, n, k), of one dtype, are in the caller's order; all is computed in double precision.
    """
    (B, n, k), r = X.shape, F.shape[2]
    tasks, blocks = B * -(-k // LANES), -(-r // _FEATURES)
    workers = 1 if r * X.size < SERIAL_WORK else min(get_num_threads(), tasks)
    run = _hadamard_serial if workers == 1 else _hadamard_parallel
    Y, size, own = np.empty_like(X), B * blocks * n * _FEATURES, (_FEATURES + 2) * n
    with borrowed(2 * size + workers * own * LANES, np.dtype(np.float64)) as buffer:
        f, g = buffer[: 2 * size].reshape(2, B, blocks, n, _FEATURES)
        run(order, first, up, roots, E, F, G, X, f, g, buffer[2 * size :].reshape(workers, own, LANES), Y)
    return Y
