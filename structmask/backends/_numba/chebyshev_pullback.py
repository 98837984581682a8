"""All gradients of Y = sum_k c_k T_k(B) X for a symmetric sparse B at once: up one recurrence, and down two together.

With R_k = c_k G + 2 B R_{k+1} - R_{k+2} the result has the cotangent G, and

    <G, T_k X> for c_k,    R_1 T_0^T / 2 + sum_{k>1} R_k T_{k-1}^T for 2 B,    c_0 G + B R_1 - R_2 for X.

T_K and T_{K-1} come from below; downwards T_{k-2} = 2 B T_{k-1} - T_k. Nothing is stored, and the rows that the two
recurrences gather are those that the entries of the gradient are made of.
"""

from __future__ import annotations

import math

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.chebyshev import (
    FUSED,
    SERIAL_WORK,
    STEP,
    UNSIGNED,
    Matrix,
    chebyshev_sum,
    row_blocks,
    whole_lines,
)
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import parallel, serial_and_parallel
from structmask.backends._numba.vectors import (
    LINE,
    axpy,
    inner,
    load_line,
    scaled,
    store_line,
    times_add,
    total_of,
    zero_line,
)

_BLOCKS = 6  # T_k, T_{k-1}, R_k, R_{k+1}, G and the sum


def chebyshev_pullback(
    matrix: Matrix, order: np.ndarray, reach: int, X: np.ndarray, G: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Y, the cotangents of X (n, q), c (K + 1,) and the stored entries of 2 B; arguments as in `chebyshev_sum`, K > 0.

    Those of c and of the matrix are in double precision.
    """
    (n, q), K, (indptr, indices, data) = X.shape, c.size - 1, matrix
    width = LINE // X.itemsize
    panels, threads, work = -(-q // width), get_num_threads(), 3 * (data.size + 4 * n) * width
    last = np.zeros((2, K + 1), X.dtype)
    last[0, K] = last[1, K - 1] = 1
    T, S = (whole_lines(a, panels * width) for a in chebyshev_sum(matrix, order, reach, X, last))
    G = whole_lines(G, panels * width)
    Y, Z = np.empty_like(G), np.empty_like(G)
    is_parallel = work >= SERIAL_WORK and threads > 1
    apart = min(panels, threads) if not is_parallel and work * panels * K >= SERIAL_WORK else 1
    bounds = row_blocks(indptr, 8 * threads if is_parallel else 1)
    shape = apart, _BLOCKS, n, width
    d_data = np.zeros((apart, data.size), X.dtype)
    d_c = np.zeros((apart, bounds.size - 1, K + 1))
    arguments = indptr, indices, data, order, T, S, G, c, Y, Z, bounds
    with borrowed(math.prod(shape), X.dtype) as scratch:
        room = scratch.reshape(shape)
        if apart > 1:
            _apart(*arguments, room, d_data, d_c)
        else:
            run = _parallel if is_parallel else _serial
            for panel in range(panels):
                run(*arguments, panel, room[0], d_data[0], d_c[0])
    return Y[:, :q], Z[:, :q], d_c.sum(axis=(0, 1)), d_data.sum(axis=0, dtype=np.float64)


@njit(cache=True, nogil=True, fastmath=FUSED)
def _rows(indptr, indices, data, T, S, R, Q, G, Y, c, weight, d_data, first, last):
    """T_{k-2} in place of T_k and R_{k-1} in place of R_{k+1} in some rows, and <G, T_{k-1}> over them.

    The matrix takes R_k T_{k-1}^T, the result c_{k-1} T_{k-1}. The weight of what R_k gives is one, and 1/2 for k = 1.
    """
    total, minus = zero_line(G), T.dtype.type(-1)
    for i in range(UNSIGNED(first), UNSIGNED(last)):
        own = np.int64(i)
        above, t, r = scaled(weight, load_line(R, own)), zero_line(S), zero_line(S)
        for p in range(UNSIGNED(indptr[i]), UNSIGNED(indptr[i + UNSIGNED(1)])):
            j, a = np.int64(indices[p]), data[p]
            there = load_line(S, j)
            t, r = axpy(a, there, t), axpy(a, load_line(R, j), r)
            d_data[p] += inner(above, there)
        here, g = load_line(S, own), load_line(G, own)
        store_line(T, own, axpy(minus, load_line(T, own), t))
        store_line(Q, own, axpy(weight, r, axpy(c, g, scaled(minus, load_line(Q, own)))))
        store_line(Y, own, axpy(c, here, load_line(Y, own)))
        total = times_add(g, here, total)
    return total_of(total)


@njit(cache=True, nogil=True, fastmath=FUSED)
def _begin(T, S, G, order, panel, panels, c, room, first, last):
    """T_K, T_{K-1}, R_K, R_{K+1}, G and c_K T_K in some rows, and <G, T_K> over them."""
    total = zero_line(G)
    for i in range(first, last):
        place = order[i] * panels + panel
        t, g = load_line(T, place), load_line(G, place)
        store_line(room[0], i, t)
        store_line(room[1], i, load_line(S, place))
        store_line(room[2], i, scaled(c, g))
        store_line(room[3], i, zero_line(G))
        store_line(room[4], i, g)
        store_line(room[5], i, scaled(c, t))
        total = times_add(g, t, total)
    return total_of(total)


@njit(cache=True, nogil=True)
def _end(Y, Z, order, panel, panels, sums, adjoints, first, last):
    for i in range(first, last):
        store_line(Y, order[i] * panels + panel, load_line(sums, i))
        store_line(Z, order[i] * panels + panel, load_line(adjoints, i))


def _panel(indptr, indices, data, order, T, S, G, c, Y, Z, bounds, panel, room, d_data, d_c):
    """Downwards for the columns of a line."""
    K, panels, kind = c.size - 1, T.shape[1] * T.itemsize // LINE, T.dtype.type
    for part in prange(bounds.size - 1):
        for first in range(bounds[part], bounds[part + 1], STEP):
            last = min(first + STEP, bounds[part + 1])
            d_c[part, K] += _begin(T, S, G, order, panel, panels, c[K], room, first, last)
    for k in range(K, 0, -1):
        even, weight = (K - k) % 2, kind(1 if k > 1 else 0.5)
        t, s, r, q = room[even], room[1 - even], room[2 + even], room[3 - even]
        for part in prange(bounds.size - 1):
            for first in range(bounds[part], bounds[part + 1], STEP):
                last = min(first + STEP, bounds[part + 1])
                d_c[part, k - 1] += _rows(
                    indptr, indices, data, t, s, r, q, room[4], room[5], c[k - 1], weight, d_data, first, last
                )
    for part in prange(bounds.size - 1):
        _end(Y, Z, order, panel, panels, room[5], room[2 + K % 2], bounds[part], bounds[part + 1])


_serial, _parallel = serial_and_parallel(_panel)


def _panels_apart(indptr, indices, data, order, T, S, G, c, Y, Z, bounds, room, d_data, d_c):
    """Every panel on a thread of its own."""
    panels, threads = T.shape[1] * T.itemsize // LINE, room.shape[0]
    for thread in prange(threads):
        for panel in range(thread, panels, threads):
            own = room[thread], d_data[thread], d_c[thread]
            _serial(indptr, indices, data, order, T, S, G, c, Y, Z, bounds, panel, *own)


_apart = parallel(_panels_apart)
