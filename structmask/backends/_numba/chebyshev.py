"""The Chebyshev recurrence of a sparse matrix, one pass over its rows a term: T_{k+1} = 2 B T_k - T_{k-1} in place.

A row of T_{k+1} overwrites that of T_{k-1} once it has been read, and the results take three terms at a time, when the
rows of all three are at hand. Rows are split by nonzeros; each is summed in order, so that results never change.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel

SERIAL_WORK = 1_000_000  # multiplications a term below which one thread is faster than waking others
NARROW_COLUMNS = 4  # columns below which a row is summed column by column
_FUSED = {"contract", "nsz"}  # a multiplication and an addition in one instruction


def chebyshev_sum(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, X: np.ndarray, c: np.ndarray, scale: float, shift: float
) -> np.ndarray:
    """sum_k c[f, k] T_k(B) X (F, n, q), B = scale A - shift I for a CSR matrix A (n, n); X (n, q), c (F, K + 1), K > 0.

    Arrays have one real dtype; `indptr` is int64, `indices` int32.
    """
    T, S, Y = X.copy(), np.zeros_like(X), np.empty((c.shape[0], *X.shape), X.dtype)
    serial = (indices.size + 4 * X.shape[0]) * X.shape[1] < SERIAL_WORK
    bounds = row_blocks(indptr, 1 if serial else 8 * get_num_threads())
    steps = (_NARROW if X.shape[1] < NARROW_COLUMNS else _WIDE)[0 if serial else 1]
    steps(indptr, indices, data, T, S, Y, c, X.dtype.type(scale), X.dtype.type(shift), bounds)
    return Y


def row_blocks(indptr: np.ndarray, parts: int) -> np.ndarray:
    """Row boundaries of parts with about equal numbers of stored entries and rows."""
    n = indptr.size - 1
    weight = indptr + 4 * np.arange(n + 1)
    bounds = np.searchsorted(weight, np.linspace(0, weight[-1], parts + 1)).astype(np.int64)
    bounds[0], bounds[-1] = 0, n
    return bounds


@njit(cache=True, nogil=True, inline="always")
def _weights(c, f, k, kind):
    """What the results take of T_{k-2}, T_{k-1} and T_k in pass k, which comes every third time and at the end."""
    terms = k % 3 + 1
    before = c[f, k - 2] if terms == 3 else kind(0)
    return before, (c[f, k - 1] if terms > 1 else kind(0)), c[f, k]


@njit(cache=True, nogil=True, inline="always")
def _add(Y, S, T, new, c, i, k):
    """Row i of three terms into all results, which start with the first of them."""
    for f in range(c.shape[0]):
        u, v, w = _weights(c, f, k, T.dtype.type)
        if k <= 2:
            for e in range(T.shape[1]):
                Y[f, i, e] = u * S[i, e] + v * T[i, e] + w * new[e]
        else:
            for e in range(T.shape[1]):
                Y[f, i, e] += u * S[i, e] + v * T[i, e] + w * new[e]


def _wide_steps(indptr, indices, data, T, S, Y, c, scale, shift, bounds):
    """The whole recurrence where inner loops run along the rows of blocks."""
    q, last = T.shape[1], c.shape[1] - 1
    for k in range(1, last + 1):
        factor, offset = (scale, shift) if k == 1 else (2 * scale, 2 * shift)
        adds = k % 3 == 2 or k == last
        for part in prange(bounds.size - 1):
            new = np.empty(q, T.dtype)
            for i in range(bounds[part], bounds[part + 1]):
                for e in range(q):
                    new[e] = -offset * T[i, e] - S[i, e]
                for p in range(indptr[i], indptr[i + 1]):
                    j, a = indices[p], factor * data[p]
                    for e in range(q):
                        new[e] += a * T[j, e]
                if adds:
                    _add(Y, S, T, new, c, i, k)
                for e in range(q):
                    S[i, e] = new[e]
        T, S = S, T


def _narrow_steps(indptr, indices, data, T, S, Y, c, scale, shift, bounds):
    """The same for one to three columns: a row is summed in a register."""
    q, last, kind = T.shape[1], c.shape[1] - 1, T.dtype.type
    for k in range(1, last + 1):
        factor, offset = (scale, shift) if k == 1 else (2 * scale, 2 * shift)
        adds = k % 3 == 2 or k == last
        for part in prange(bounds.size - 1):
            for i in range(bounds[part], bounds[part + 1]):
                for e in range(q):
                    total = kind(0)
                    for p in range(indptr[i], indptr[i + 1]):
                        total += data[p] * T[indices[p], e]
                    new = factor * total - offset * T[i, e] - S[i, e]
                    if adds:
                        for f in range(c.shape[0]):
                            u, v, w = _weights(c, f, k, kind)
                            Y[f, i, e] = u * S[i, e] + v * T[i, e] + w * new + (kind(0) if k <= 2 else Y[f, i, e])
                    S[i, e] = new
        T, S = S, T


_WIDE, _NARROW = (serial_and_parallel(steps, fastmath=_FUSED) for steps in (_wide_steps, _narrow_steps))
