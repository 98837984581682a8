"""Sweeps over forests in breadth-first order: children of position i are first[i] ... first[i + 1] - 1.

Rows of X are in the caller's order, `order` says which; factors and everything made here are by position. A factor
belongs to the edge from a position to its parent and is zero at roots. Columns are independent, so sweeps are shared
out by columns, and the result does not depend on how many threads there are.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange, types
from numba.extending import overload

from structmask.backends._numba.lanes import AHEAD, LANES, row, set_row
from structmask.backends._numba.scratch import borrowed, lines
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_sweep import product_parallel, product_serial
from structmask.backends._numba.vectors import axpy, prefetch, scaled

SERIAL_SIZE = 400_000  # numbers one thread does in less than the time it takes to wake others
_TILE = 64  # rows


@njit(nogil=True, cache=True)
def _gather(order, X, h, b, begin, end, S, t):
    """Eight columns of a head at positions begin ... end - 1, zeros beyond the last one.

    All loads come before all stores, so that the compiler may use vectors.
    """
    if b + LANES > X.shape[2]:
        for i in range(begin, end):
            for c in range(LANES):
                S[t, i, c] = X[h, order[i], b + c] if b + c < X.shape[2] else 0
        return
    n, k = order.size, X.shape[2]
    for i in range(begin, end):
        ahead = order[min(i + AHEAD, n - 1)]
        if ahead != order[i] + AHEAD:  # else the processor knows
            prefetch(X, (h * n + ahead) * k + b)
        x, s = X[h, np.uint64(order[i])], S[t, i]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[b], x[b + 1], x[b + 2], x[b + 3], x[b + 4], x[b + 5], x[b + 6], x[b + 7]
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = x0, x1, x2, x3, x4, x5, x6, x7


@njit(nogil=True, cache=True)
def _scatter(position, S, t, begin, end, Y, h, b):
    """Eight columns of rows begin ... end - 1, in the caller's order, from what stands at their positions."""
    if b + LANES > Y.shape[2]:
        for row in range(begin, end):
            for c in range(Y.shape[2] - b):
                Y[h, row, b + c] = S[t, position[row], c]
        return
    n = position.size
    for row in range(begin, end):
        ahead = position[min(row + AHEAD, n - 1)]
        if ahead != position[row] + AHEAD:
            prefetch(S, (t * n + ahead) * LANES)
        s, y = S[t, np.uint64(position[row])], Y[h, row]
        s0, s1, s2, s3, s4, s5, s6, s7 = s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
        y[b], y[b + 1], y[b + 2], y[b + 3] = s0, s1, s2, s3
        y[b + 4], y[b + 5], y[b + 6], y[b + 7] = s4, s5, s6, s7


def sweep(up, roots, E, S):
    """Upwards: S[i] becomes the decayed sum of all at and below i. Downwards: S[i] = E[i] S[up] + (1 - E[i]^2) S[i]."""
    (_complex_sweep if np.iscomplexobj(S) else _real_sweep)(up, roots, E, S)


@overload(sweep)
def _sweep(up, roots, E, S):
    return _complex_sweep if isinstance(S.dtype, types.Complex) else _real_sweep


def _real_sweep(up, roots, E, S):
    """In the order of `tree_sweep`, so that both give the same to the last bit."""
    here, last = row(S, 0), -1
    for i in range(E.size - 1, roots - 1, -1):
        parent = up[i]
        here = axpy(E[i], here if i == last else row(S, i), row(S, parent))
        set_row(S, parent, here)
        last = parent
    for i in range(roots, E.size):
        e = E[i]
        set_row(S, i, axpy(e, row(S, up[i]), scaled(1 - e * e, row(S, i))))


def _complex_sweep(up, roots, E, S):
    for i in range(E.size - 1, roots - 1, -1):
        for c in range(LANES):
            S[up[i], c] += E[i] * S[i, c]
    for i in range(roots, E.size):
        for c in range(LANES):
            S[i, c] = E[i] * S[up[i], c] + (1 - E[i] * E[i]) * S[i, c]


def _product(order, position, up, roots, E, X, places, S, Y):
    """Places are (head, first of eight columns): as many as scratch holds are gathered, swept and scattered together.

    Rows go in and out by tiles, of all those columns: columns of two threads would meet in cache lines.
    """
    n = order.size
    tiles = -(-n // _TILE)
    for start in range(0, places.shape[0], S.shape[0]):
        now = places[start : start + S.shape[0]]
        for tile in prange(tiles):
            for t in range(now.shape[0]):
                _gather(order, X, now[t, 0], now[t, 1], tile * _TILE, min(n, (tile + 1) * _TILE), S, t)
        for t in prange(now.shape[0]):
            sweep(up, roots, E[now[t, 0] if E.shape[0] > 1 else 0], S[t])
        for tile in prange(tiles):
            for t in range(now.shape[0]):
                _scatter(position, S, t, tile * _TILE, min(n, (tile + 1) * _TILE), Y, now[t, 0], now[t, 1])


_product_serial, _product_parallel = serial_and_parallel(_product)


@njit(nogil=True, cache=True)
def _few_columns(order, up, roots, E, X, S, Y):
    """The product with less than eight columns in all, S (n, k)."""
    for h in range(X.shape[0]):
        e = E[h if E.shape[0] > 1 else 0]
        for i in range(order.size):
            for c in range(X.shape[2]):
                S[i, c] = X[h, order[i], c]
        for i in range(e.size - 1, roots - 1, -1):
            for c in range(X.shape[2]):
                S[up[i], c] += e[i] * S[i, c]
        for i in range(e.size):
            for c in range(X.shape[2]):
                S[i, c] = (1 - e[i] * e[i]) * S[i, c] + e[i] * S[up[i], c]
                Y[h, order[i], c] = S[i, c]


def tree_product(
    order: np.ndarray, position: np.ndarray, first: np.ndarray, up: np.ndarray, roots: int, E: np.ndarray, X: np.ndarray
) -> np.ndarray:
    """Product of X (B, n, k) with the decay mask of factors E (1 or B, n), none larger than 1 in absolute value.

    One sweep up and one down, in double precision whatever X has, eight columns at a time: scratch stays in cache for
    forests of moderate size. Where all threads have columns of their own the sweeps go over X and Y themselves, else
    rows are gathered and scattered by all of them.
    """
    X, n = np.ascontiguousarray(X), E.shape[1]
    Y = lines(X.shape, X.dtype)
    if X.shape[0] * X.shape[2] < LANES:
        with borrowed(n * X.shape[2], E.dtype) as buffer:
            _few_columns(order, up, roots, E, X, buffer.reshape(n, X.shape[2]), Y)
        return Y
    workers = 1 if X.size < SERIAL_SIZE else get_num_threads()
    places = np.array([(h, b) for h in range(X.shape[0]) for b in range(0, X.shape[2], LANES)])
    is_whole = (places[:, 1] + LANES <= X.shape[2]) & (E.dtype.kind == "f")
    is_whole &= np.count_nonzero(is_whole) >= workers
    whole, rest = places[is_whole], places[~is_whole]
    with borrowed(min(len(places), max(2, workers)) * n * LANES, E.dtype) as buffer:
        S = buffer.reshape(-1, n, LANES)
        if len(whole):
            sweeps = product_serial if workers == 1 else product_parallel
            sweeps(order, first, up, roots, E, X, whole, S[:workers], Y)
        if len(rest):
            run = _product_serial if workers == 1 else _product_parallel
            run(order, position, up, roots, E, X, rest, S[: len(rest)], Y)
    return Y


def pieces_of(X: np.ndarray) -> int:
    """Into how many ranges of columns the operand is cut, so that all threads have work."""
    return max(1, min(X.shape[2] // LANES, -(-get_num_threads() // X.shape[0]))) if X.size >= SERIAL_SIZE else 1


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
