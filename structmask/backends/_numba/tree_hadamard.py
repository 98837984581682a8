"""Products with (decay mask of a forest) * (F G^T): both sweeps for one feature after the other, in cache.

A task is a head and eight columns of the operand. For every feature the columns are scaled by it, swept up and down,
scaled again and added to the result, so no column of a feature is ever written to memory beyond eight at a time.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, add_multiple, row, set_row
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import axpy, scaled

SERIAL_WORK = 1_000_000  # products of a node, a feature and a column below which one thread is as fast


@njit(nogil=True, cache=True)
def _scaled(g, V, S):
    """S[i] = g[i] V[i]."""
    for i in range(g.size):
        set_row(S, i, scaled(g[i], row(V, i)))


@njit(nogil=True, cache=True)
def _swept(up, roots, E, f, S, Y):
    """Up and down as in `tree`, and Y[i] += f[i] R[i]."""
    for i in range(E.size - 1, roots - 1, -1):
        add_multiple(E[i], S, i, S, up[i])
    for i in range(E.size):
        e = E[i]
        s = axpy(e, row(S, up[i]), scaled(1 - e * e, row(S, i)))
        set_row(Y, i, axpy(f[i], s, row(Y, i)))
        set_row(S, i, s)


def _hadamard(order, up, roots, E, F, G, X, workers, scratch, Y):
    pieces = -(-X.shape[2] // LANES)
    tasks = X.shape[0] * pieces
    for worker in prange(workers):
        V, S, T = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2]
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, b = task // pieces, task % pieces * LANES
            width = min(LANES, X.shape[2] - b)
            T[:] = 0
            for i in range(order.size):
                for c in range(LANES):
                    V[i, c] = X[h, order[i], b + c] if c < width else 0.0
            for r in range(G.shape[1]):
                _scaled(G[h, r], V, S)
                _swept(up, roots, E[h if E.shape[0] > 1 else 0], F[h, r], S, T)
            for i in range(order.size):
                for c in range(width):
                    Y[h, order[i], b + c] = T[i, c]


_hadamard_serial, _hadamard_parallel = serial_and_parallel(_hadamard)


def tree_hadamard(
    order: np.ndarray, up: np.ndarray, roots: int, E: np.ndarray, F: np.ndarray, G: np.ndarray, X: np.ndarray
) -> np.ndarray:
    """(M * F G^T) X (B, n, k) for the decay mask M of real factors E (1 or B, n), none larger than 1.

    F, G (B, r, n) are features by position, in double precision; X (B, n, k) is in the caller's order.
    """
    Y = np.empty_like(X)
    tasks = X.shape[0] * -(-X.shape[2] // LANES)
    workers = 1 if F.shape[1] * X.size < SERIAL_WORK else min(get_num_threads(), tasks)
    run = _hadamard_serial if workers == 1 else _hadamard_parallel
    with borrowed(workers * 3 * E.shape[1] * LANES, np.dtype(np.float64)) as buffer:
        run(order, up, roots, E, F, G, X, workers, buffer.reshape(workers, 3, E.shape[1], LANES), Y)
    return Y
