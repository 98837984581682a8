"""Sweeps over forests in breadth-first order: children of position i are first[i] ... first[i + 1] - 1.

Rows of X are in the caller's order, `order` says which; factors and everything made here are by position. A factor
belongs to the edge from a position to its parent and is zero at roots. Columns are independent, so tasks are ranges of
columns, and the result does not depend on how many threads there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel

SERIAL_SIZE = 400_000  # numbers one thread does in less than the time it takes to wake others
_LINE = 8  # columns of a cache line
_MOST_KEPT = 1 << 25  # bytes
_KEPT: deque[np.ndarray] = deque(maxlen=1)


@njit(nogil=True, cache=True)
def _gather(order, X, b, S):
    """Eight columns of X by position. All loads come before all stores, so that the compiler may use vectors."""
    for i in range(order.size):
        x, s = X[np.uint64(order[i])], S[i]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[b], x[b + 1], x[b + 2], x[b + 3], x[b + 4], x[b + 5], x[b + 6], x[b + 7]
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = x0, x1, x2, x3, x4, x5, x6, x7


@njit(nogil=True, cache=True)
def _upward(up, roots, E, S):
    """Add E[i] S[i] to the parent's row, deepest first: S[i] becomes the decayed sum of all at and below i."""
    for i in range(E.size - 1, roots - 1, -1):
        e, s, p = E[i], S[i], S[np.uint64(up[i])]
        p0, p1, p2, p3 = p[0] + e * s[0], p[1] + e * s[1], p[2] + e * s[2], p[3] + e * s[3]
        p4, p5, p6, p7 = p[4] + e * s[4], p[5] + e * s[5], p[6] + e * s[6], p[7] + e * s[7]
        p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7] = p0, p1, p2, p3, p4, p5, p6, p7


@njit(nogil=True, cache=True)
def _downward(order, up, E, S, b, Y):
    """R[i] = E[i] R[parent] + (1 - E[i]^2) S[i], in place of S, and into eight columns of Y in the caller's order."""
    for i in range(E.size):
        e, s, p, y = E[i], S[i], S[np.uint64(up[i])], Y[np.uint64(order[i])]
        q = 1 - e * e
        s0, s1, s2, s3 = q * s[0] + e * p[0], q * s[1] + e * p[1], q * s[2] + e * p[2], q * s[3] + e * p[3]
        s4, s5, s6, s7 = q * s[4] + e * p[4], q * s[5] + e * p[5], q * s[6] + e * p[6], q * s[7] + e * p[7]
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = s0, s1, s2, s3, s4, s5, s6, s7
        y[b], y[b + 1], y[b + 2], y[b + 3] = s0, s1, s2, s3
        y[b + 4], y[b + 5], y[b + 6], y[b + 7] = s4, s5, s6, s7


@njit(nogil=True, cache=True)
def _few_columns(order, up, roots, E, X, b, w, S, Y):
    """All three for w < 8 columns."""
    for i in range(order.size):
        for c in range(w):
            S[i, c] = X[order[i], b + c]
    for i in range(E.size - 1, roots - 1, -1):
        for c in range(w):
            S[up[i], c] += E[i] * S[i, c]
    for i in range(E.size):
        e, p = E[i], up[i]
        for c in range(w):
            S[i, c] = (1 - e * e) * S[i, c] + e * S[p, c]
            Y[order[i], b + c] = S[i, c]


def _product(order, up, roots, E, X, workers, scratch, Y):
    """Tasks are (batch, eight columns); a worker uses its own part of the scratch for all of its tasks."""
    pieces = -(-X.shape[2] // _LINE)
    tasks = X.shape[0] * pieces
    for worker in prange(workers):
        S = scratch[worker]
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, b = task // pieces, task % pieces * _LINE
            e, w = E[h if E.shape[0] > 1 else 0], X.shape[2] - b
            if w < _LINE:
                _few_columns(order, up, roots, e, X[h], b, w, S, Y[h])
            else:
                _gather(order, X[h], b, S)
                _upward(up, roots, e, S)
                _downward(order, up, e, S, b, Y[h])


_product_serial, _product_parallel = serial_and_parallel(_product)


def tree_product(order: np.ndarray, up: np.ndarray, roots: int, E: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Product of X (B, n, k) with the decay mask of factors E (1 or B, n), none larger than 1 in absolute value.

    One sweep up and one down, in double precision whatever X has. Eight columns at a time: a cache line of each row,
    and scratch that stays in cache for forests of moderate size.
    """
    Y = np.empty_like(X)
    tasks = X.shape[0] * -(-X.shape[2] // _LINE)
    workers = 1 if X.size < SERIAL_SIZE else min(get_num_threads(), tasks)
    run = _product_serial if workers == 1 else _product_parallel
    width = min(_LINE, X.shape[2]) if X.shape[0] * X.shape[2] < _LINE else _LINE
    with borrowed(workers * E.shape[1] * width, E.dtype) as buffer:
        run(order, up, roots, E, X, workers, buffer.reshape(workers, E.shape[1], width), Y)
    return Y


@contextmanager
def borrowed(size: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Scratch of some size; one moderate buffer is kept for the next call, since new pages cost as much as a sweep."""
    try:
        kept = _KEPT.pop()
    except IndexError:
        kept = np.empty(0, np.uint8)
    wanted = size * dtype.itemsize
    buffer = kept if kept.nbytes >= wanted else np.empty(wanted, np.uint8)
    try:
        yield buffer[:wanted].view(dtype)
    finally:
        if buffer.nbytes <= _MOST_KEPT:
            _KEPT.append(buffer)


def pieces_of(X: np.ndarray) -> int:
    """Into how many ranges of columns the operand is cut, so that all threads have work."""
    return max(1, min(X.shape[2] // _LINE, -(-get_num_threads() // X.shape[0]))) if X.size >= SERIAL_SIZE else 1


@njit(nogil=True, cache=True)
def _below(order, first, E, X, begin, end, S, R):
    """S[i] = X[i] + sum over children c of E[c] S[c]; R[c] = that sum over the later siblings of c."""
    for i in range(order.size - 1, -1, -1):
        for c in range(begin, end):
            S[i, c] = 0
        for j in range(first[i + 1] - 1, first[i] - 1, -1):
            for c in range(begin, end):
                R[j, c] = S[i, c]
                S[i, c] += E[j] * S[j, c]
        for c in range(begin, end):
            S[i, c] += X[order[i], c]


@njit(nogil=True, cache=True)
def _beside(order, first, E, X, begin, end, S, R):
    """Add to R[c] what comes to its parent from elsewhere and from earlier siblings."""
    R[: first[0], begin:end] = 0
    run = np.empty(S.shape[1], S.dtype)
    for i in range(order.size):
        for c in range(begin, end):
            run[c] = X[order[i], c] + E[i] * R[i, c]
        for j in range(first[i], first[i + 1]):
            for c in range(begin, end):
                R[j, c] += run[c]
                run[c] += E[j] * S[j, c]


def _all_sums(order, first, E, X, pieces, S, R):
    for task in prange(X.shape[0] * pieces):
        b, piece = task // pieces, task % pieces
        k = X.shape[2]
        begin, end = k * piece // pieces, k * (piece + 1) // pieces
        e = E[b if E.shape[0] > 1 else 0]
        _below(order, first, e, X[b], begin, end, S[b], R[b])
        _beside(order, first, e, X[b], begin, end, S[b], R[b])


_all_sums_serial, _all_sums_parallel = serial_and_parallel(_all_sums)


def tree_sums(order: np.ndarray, first: np.ndarray, E: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S and R (B, n, k), by position: decayed sums over what is below each node, and over the rest, seen by its parent.

    Nothing is subtracted, so factors may be larger than 1. R is zero at roots.
    """
    S, R = (np.empty(X.shape, E.dtype) for _ in range(2))
    run = _all_sums_serial if X.size < SERIAL_SIZE else _all_sums_parallel
    run(order, first, E, X, pieces_of(X), S, R)
    return S, R
