"""The Chebyshev recurrence of a sparse matrix, one pass over its rows a term: T_{k+1} = 2 B T_k - T_{k-1} in place.

A row of T_{k+1} overwrites that of T_{k-1} once it has been read, and the results take three terms at a time, when the
rows of all three are at hand. Rows are split by nonzeros; each is summed in order, so that results never change.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import LINE, WIDTH, axpy, load, prefetch, scaled, store

Matrix: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

SERIAL_WORK = 1_000_000  # multiplications a term below which one thread is faster than waking others
AHEAD = 24  # entries of the matrix by which rows of the operand are asked for before they are needed
_NARROW = 4  # columns below which they are taken one by one
_FUSED = {"contract", "nsz"}  # a multiplication and an addition in one instruction
_U = np.uint64  # numba tests signed indices for being negative, which takes half the time of the innermost loop


def chebyshev_sum(matrix: Matrix, X: np.ndarray, c: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """sum_k c[f, k] T_k(B) X (F, n, q), B = scale A - shift I for a matrix A (n, n); X (n, q), c (F, K + 1), K > 0.

    A is given by its parts `indptr` (int64), `indices` (int32, followed by `AHEAD` of no meaning) and `data`. Arrays
    have one real dtype.
    """
    (n, q), number, is_narrow = X.shape, X.dtype.type, X.shape[1] < _NARROW
    serial = (matrix[1].size + 4 * n) * (1 if is_narrow else q) < SERIAL_WORK
    bounds = row_blocks(matrix[0], 1 if serial else 8 * get_num_threads())
    steps = (_ONE if is_narrow else _MANY)[0 if serial else 1]

    def summed(T: np.ndarray) -> np.ndarray:
        Y = np.empty((c.shape[0], *T.shape), T.dtype)
        steps(*matrix, T, np.zeros_like(T), Y, c, number(scale), number(shift), bounds)
        return Y

    if is_narrow:
        return np.stack([summed(np.array(X[:, e])) for e in range(q)], axis=-1)
    T = np.zeros((n, -(-q // WIDTH) * WIDTH), X.dtype)
    T[:, :q] = X
    return np.ascontiguousarray(summed(T)[:, :, :q])


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
def _begun(T, S, at, offset):
    """What T_k has from its own row: -offset T_{k-1} - T_{k-2}."""
    return axpy(-offset, load(T, at), scaled(T.dtype.type(-1), load(S, at)))


@njit(cache=True, nogil=True, inline="always")
def _finished(T, S, Y, c, k, at, new):
    """Put T_k in place of T_{k-2}, and when it is time three terms into the results."""
    if k % 3 == 2 or k == c.shape[1] - 1:
        for f in range(c.shape[0]):
            u, v, w = _weights(c, f, k, T.dtype.type)
            total, there = axpy(u, load(S, at), axpy(v, load(T, at), scaled(w, new))), f * T.size + at
            store(Y, there, total if k <= 2 else axpy(T.dtype.type(1), load(Y, there), total))
    store(S, at, new)


def _many_steps(indptr, indices, data, T, S, Y, c, scale, shift, bounds):
    """The whole recurrence for rows of vectors, two at a time."""
    q, line = T.shape[1], LINE // T.itemsize
    for k in range(1, c.shape[1]):
        factor, offset = (scale, shift) if k == 1 else (2 * scale, 2 * shift)
        for part in prange(bounds.size - 1):
            for i in range(bounds[part], bounds[part + 1]):
                begin, end, own = _U(indptr[i]), _U(indptr[i + 1]), i * q
                for p in range(begin, end):
                    for e in range(0, q, line):
                        prefetch(T, np.int64(indices[p + _U(AHEAD)]) * q + e)
                for a in range(0, q - WIDTH, 2 * WIDTH):
                    b = a + WIDTH
                    x, y = _begun(T, S, own + a, offset), _begun(T, S, own + b, offset)
                    for p in range(begin, end):
                        w, row = factor * data[p], np.int64(indices[p]) * q
                        x, y = axpy(w, load(T, row + a), x), axpy(w, load(T, row + b), y)
                    _finished(T, S, Y, c, k, own + a, x)
                    _finished(T, S, Y, c, k, own + b, y)
                if q % (2 * WIDTH):
                    a = q - WIDTH
                    x = _begun(T, S, own + a, offset)
                    for p in range(begin, end):
                        x = axpy(factor * data[p], load(T, np.int64(indices[p]) * q + a), x)
                    _finished(T, S, Y, c, k, own + a, x)
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
