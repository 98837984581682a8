"""The Chebyshev recurrence of a sparse matrix, one pass over its rows a term: T_{k+1} = 2 B T_k - T_{k-1} in place.

A row of T_{k+1} overwrites that of T_{k-1} once it has been read, and the results take three terms at a time, when the
rows of all three are at hand. Rows are split by nonzeros; each is summed in order, so that results never change.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.prefetch import LINE, prefetch
from structmask.backends._numba.threads import serial_and_parallel

SERIAL_WORK = 1_000_000  # multiplications a term below which one thread is faster than waking others
AHEAD = 24  # entries of the matrix by which rows of the operand are asked for before they are needed
_NARROW = 4  # columns below which they are taken one by one
_FUSED = {"contract", "nsz"}  # a multiplication and an addition in one instruction
_U = np.uint64  # numba tests signed indices for being negative, which takes half the time of the innermost loop


def chebyshev_sum(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, X: np.ndarray, c: np.ndarray, scale: float, shift: float
) -> np.ndarray:
    """sum_k c[f, k] T_k(B) X (F, n, q), B = scale A - shift I for a CSR matrix A (n, n); X (n, q), c (F, K + 1), K > 0.

    Arrays have one real dtype; `indptr` is int64, `indices` int32 and followed by `AHEAD` of no meaning.
    """
    n, q = X.shape
    serial = (indices.size + 4 * n) * (q if q >= _NARROW else 1) < SERIAL_WORK
    bounds = row_blocks(indptr, 1 if serial else 8 * get_num_threads())
    steps = (_ONE if q < _NARROW else _MANY)[0 if serial else 1]

    def summed(x: np.ndarray) -> np.ndarray:
        Y, T, S = np.empty((c.shape[0], *x.shape), x.dtype), np.array(x, order="C"), np.zeros(x.shape, x.dtype)
        steps(indptr, indices, data, T, S, Y, c, x.dtype.type(scale), x.dtype.type(shift), bounds)
        return Y

    return summed(X) if q >= _NARROW else np.stack([summed(X[:, e]) for e in range(q)], axis=-1)


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


def _many_steps(indptr, indices, data, T, S, Y, c, scale, shift, bounds):
    """The whole recurrence where inner loops run along the rows of blocks."""
    q, last, line = T.shape[1], c.shape[1] - 1, LINE // T.itemsize
    for k in range(1, last + 1):
        factor, offset = (scale, shift) if k == 1 else (2 * scale, 2 * shift)
        adds = k % 3 == 2 or k == last
        for part in prange(bounds.size - 1):
            new = np.empty(q, T.dtype)
            for i in range(_U(bounds[part]), _U(bounds[part + 1])):
                for e in range(q):
                    new[e] = -offset * T[i, e] - S[i, e]
                for p in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
                    row = np.intp(indices[p + _U(AHEAD)]) * q
                    for e in range(0, q, line):
                        prefetch(T, row + e)
                    j, a = _U(indices[p]), factor * data[p]
                    for e in range(q):
                        new[e] += a * T[j, e]
                if adds:
                    _add(Y, S, T, new, c, i, k)
                for e in range(q):
                    S[i, e] = new[e]
        T, S = S, T


def _one_steps(indptr, indices, data, T, S, Y, c, scale, shift, bounds):
    """The same for one column: a row is summed in a register."""
    last, kind = c.shape[1] - 1, T.dtype.type
    for k in range(1, last + 1):
        factor, offset = (scale, shift) if k == 1 else (2 * scale, 2 * shift)
        adds = k % 3 == 2 or k == last
        for part in prange(bounds.size - 1):
            for i in range(_U(bounds[part]), _U(bounds[part + 1])):
                total = kind(0)
                for p in range(_U(indptr[i]), _U(indptr[i + _U(1)])):
                    total += data[p] * T[_U(indices[p])]
                new = factor * total - offset * T[i] - S[i]
                if adds:
                    for f in range(c.shape[0]):
                        u, v, w = _weights(c, f, k, kind)
                        Y[f, i] = u * S[i] + v * T[i] + w * new + (kind(0) if k <= 2 else Y[f, i])
                S[i] = new
        T, S = S, T


_MANY, _ONE = (serial_and_parallel(steps, fastmath=_FUSED) for steps in (_many_steps, _one_steps))
