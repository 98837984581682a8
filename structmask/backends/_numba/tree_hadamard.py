"""Products with (decay mask of a forest) * (F G^T): both sweeps for one feature after the other, in cache.

A task is a head and eight columns of the operand. For every feature the columns are scaled by it, swept up and down,
scaled again and added to the result, so no column of a feature is ever written to memory beyond eight at a time.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, add_multiple
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel

SERIAL_WORK = 1_000_000  # products of a node, a feature and a column below which one thread is as fast


@njit(nogil=True, cache=True, fastmath={"contract"})
def _scaled(g, V, S):
    """S[i] = g[i] V[i]."""
    for i in range(g.size):
        a, v, s = g[i], V[i], S[i]
        s0, s1, s2, s3 = a * v[0], a * v[1], a * v[2], a * v[3]
        s4, s5, s6, s7 = a * v[4], a * v[5], a * v[6], a * v[7]
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = s0, s1, s2, s3, s4, s5, s6, s7


@njit(nogil=True, cache=True, fastmath={"contract"})
def _swept(up, roots, E, f, S, Y):
    """Up and down as in `tree`, and Y[i] += f[i] R[i]."""
    for i in range(E.size - 1, roots - 1, -1):
        add_multiple(E[i], S, i, S, np.uint64(up[i]))
    for i in range(E.size):
        e, a, s, p, y = E[i], f[i], S[i], S[np.uint64(up[i])], Y[i]
        q = 1 - e * e
        s0, s1, s2, s3 = q * s[0] + e * p[0], q * s[1] + e * p[1], q * s[2] + e * p[2], q * s[3] + e * p[3]
        s4, s5, s6, s7 = q * s[4] + e * p[4], q * s[5] + e * p[5], q * s[6] + e * p[6], q * s[7] + e * p[7]
        y0, y1, y2, y3 = y[0] + a * s0, y[1] + a * s1, y[2] + a * s2, y[3] + a * s3
        y4, y5, y6, y7 = y[4] + a * s4, y[5] + a * s5, y[6] + a * s6, y[7] + a * s7
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = s0, s1, s2, s3, s4, s5, s6, s7
        y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = y0, y1, y2, y3, y4, y5, y6, y7


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
