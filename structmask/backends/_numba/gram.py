"""Inner products of the rows of matrix powers, row by row on the nodes that a row reaches."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel

SERIAL_ROWS = 256  # rows below which one thread is faster than waking others
PARTS = 8  # gradients are summed in as many parts, whatever the number of threads


def power_gram(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rows: range, length: int) -> np.ndarray:
    """H (rows, length, length) with H_ilm = sum_v (P^l)_iv (P^m)_iv."""
    H = np.empty((len(rows), length, length))
    run, parts = (_gram_serial, 1) if len(rows) < SERIAL_ROWS else (_gram_parallel, 4 * get_num_threads())
    bounds = np.linspace(rows.start, rows.stop, parts + 1).astype(np.int64)
    run(indptr, indices, data, H, rows.start, bounds)
    return H


def power_gram_pullback(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rows: range, weights: np.ndarray
) -> np.ndarray:
    """Gradient (edges,) of sum_ilm weights_ilm H_ilm for the stored entries of P; weights symmetric in l, m."""
    gradient = np.zeros((PARTS, indices.size))
    run = _pullback_serial if len(rows) < SERIAL_ROWS else _pullback_parallel
    bounds = np.linspace(rows.start, rows.stop, PARTS + 1).astype(np.int64)
    run(indptr, indices, data, weights, rows.start, bounds, gradient)
    return gradient.sum(axis=0)


@njit(nogil=True, cache=True)
def _spread_row(i, indptr, indices, data, R, reached, ends, mark):
    """Rows e_i P^l in R (length, n), which is zero elsewhere, and the nodes they reach; `mark` tells visits apart."""
    R[0, i], reached[0, 0], ends[0] = 1.0, i, 1
    for step in range(1, R.shape[0]):
        count, visit = 0, i * R.shape[0] + step
        for k in range(ends[step - 1]):
            u = reached[step - 1, k]
            for edge in range(indptr[u], indptr[u + 1]):
                v = indices[edge]
                if mark[v] != visit:
                    mark[v] = visit
                    reached[step, count] = v
                    count += 1
                R[step, v] += R[step - 1, u] * data[edge]
        ends[step] = count


@njit(nogil=True, cache=True)
def _clear(R, reached, ends):
    for step in range(R.shape[0]):
        for k in range(ends[step]):
            R[step, reached[step, k]] = 0.0


def _gram(indptr, indices, data, H, first, bounds):
    n, length = indptr.size - 1, H.shape[1]
    for part in prange(bounds.size - 1):
        R, reached, ends = np.zeros((length, n)), np.empty((length, n), np.int32), np.zeros(length, np.int64)
        mark = np.full(n, -1, np.int64)
        for i in range(bounds[part], bounds[part + 1]):
            _spread_row(i, indptr, indices, data, R, reached, ends, mark)
            for p in range(length):
                for q in range(p + 1):
                    short = p if ends[p] < ends[q] else q
                    total = 0.0
                    for k in range(ends[short]):
                        v = reached[short, k]
                        total += R[p, v] * R[q, v]
                    H[i - first, p, q] = H[i - first, q, p] = total
            _clear(R, reached, ends)


_gram_serial, _gram_parallel = serial_and_parallel(_gram)


def _pullback(indptr, indices, data, weights, first, bounds, gradient):
    n, length = indptr.size - 1, weights.shape[1]
    for part in prange(bounds.size - 1):
        R, reached, ends = np.zeros((length, n)), np.empty((length, n), np.int32), np.zeros(length, np.int64)
        Z, mark = np.zeros((length, n)), np.full(n, -1, np.int64)
        for i in range(bounds[part], bounds[part + 1]):
            _spread_row(i, indptr, indices, data, R, reached, ends, mark)
            for step in range(length - 1, -1, -1):  # Z_l = 2 sum_m weights_lm R_m + Z_{l+1} P^T where R_l is not zero
                for k in range(ends[step]):
                    u, total = reached[step, k], 0.0
                    for m in range(length):
                        total += 2.0 * weights[i - first, step, m] * R[m, u]
                    if step + 1 < length:
                        here = R[step, u]
                        for edge in range(indptr[u], indptr[u + 1]):
                            z = Z[step + 1, indices[edge]]
                            total += data[edge] * z
                            gradient[part, edge] += here * z
                    Z[step, u] = total
            _clear(R, reached, ends)


_pullback_serial, _pullback_parallel = serial_and_parallel(_pullback)
