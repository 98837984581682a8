"""Both sweeps over a forest in arithmetic of truncated power series: what derivatives of decay masks multiply by.

A series in t stands for each number: with factors exp(-a w + w t) the coefficient of t^q of the product's row is
sum_j d^q exp(-a d) x_j / q!, d = dist(i, j). Rows are eight columns of one coefficient.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, add_multiple
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree import SERIAL_SIZE


@njit(nogil=True, cache=True)
def series(e, w, E):
    """E[t] = e w^t / t!."""
    E[0] = e
    for t in range(1, E.size):
        E[t] = E[t - 1] * w / t


@njit(nogil=True, cache=True)
def add_product(E, V, i, Y, j):
    """The series of rows Y[j], Y[j + 1], ... += E times that of rows V[i], ..."""
    for q in range(E.size):
        for t in range(q + 1):
            add_multiple(E[t], V, i + q - t, Y, j + q)


@njit(nogil=True, cache=True)
def _sweep(up, roots, e, lengths, E, D, S):
    """S (n m, 8), m coefficients a node: the leading one holds X, the others 0; becomes the series of the product."""
    m = E.size
    for i in range(e.size - 1, roots - 1, -1):
        series(e[i], lengths[i], E)
        add_product(E, S, i * m, S, up[i] * m)
    for i in range(roots, e.size):
        series(e[i], lengths[i], E)
        series(e[i] * e[i], 2 * lengths[i], D)
        for q in range(m - 1, -1, -1):
            for t in range(q + 1):  # t = 0 first: it needs S as it was
                add_multiple(-D[t], S, i * m + q - t, S, i * m + q)
                add_multiple(E[t], S, up[i] * m + q - t, S, i * m + q)


def _jets(order, up, roots, e, lengths, weights, X, workers, scratch, Y):
    pieces, m = -(-X.shape[2] // LANES), weights.shape[0]
    tasks = X.shape[0] * pieces
    for worker in prange(workers):
        S, E, D = scratch[worker], np.empty(m), np.empty(m)
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, b = task // pieces, task % pieces * LANES
            width = min(LANES, X.shape[2] - b)
            S[:] = 0
            for i in range(order.size):
                for c in range(width):
                    S[i * m, c] = X[h, order[i], b + c]
            _sweep(up, roots, e, lengths, E, D, S)
            for i in range(order.size):
                for p in range(Y.shape[1]):
                    for c in range(width):
                        total = 0.0
                        for q in range(m):
                            total += weights[q, p] * S[i * m + q, c]
                        Y[h, p, order[i], b + c] = total


_jets_serial, _jets_parallel = serial_and_parallel(_jets)


def tree_jets(
    order: np.ndarray,
    up: np.ndarray,
    roots: int,
    e: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    X: np.ndarray,
) -> np.ndarray:
    """Combinations (B, P, n, k) with weights (m, P) of the m leading coefficients, for factors e = exp(-a lengths)."""
    Y, m = np.empty((X.shape[0], weights.shape[1], *X.shape[1:]), X.dtype), weights.shape[0]
    tasks = X.shape[0] * -(-X.shape[2] // LANES)
    workers = 1 if m * X.size < SERIAL_SIZE else min(get_num_threads(), tasks)
    run = _jets_serial if workers == 1 else _jets_parallel
    with borrowed(workers * e.size * m * LANES, np.dtype(np.float64)) as buffer:
        scratch = buffer.reshape(workers, e.size * m, LANES)
        run(order, up, roots, e, lengths, weights, X, workers, scratch, Y)
    return Y
