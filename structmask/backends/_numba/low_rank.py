"""Low-rank masks times a low-rank matrix, elementwise, by chunks of rows.

    ((L R^T) * (F G^T)) X = F' (G'^T X),  F' = [diag(L_1) F, ..., diag(L_p) F],  G' = [diag(R_1) G, ..., diag(R_p) G]

The *lifted* rows are made chunk by chunk, in cache. A *state* holds the sums over rows of G', p r numbers each: with X,
as panels of its columns, and behind them the plain sum, which gives row sums. The cost is 2 (m + n) p r k operations.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel

from .gemm import (
    ROWS,
    add_row,
    add_transposed,
    dot_rows,
    horizontal_sum,
    lanes_of,
    multiply,
    pack_panels,
    padded_rank,
    rounded,
    scale_row,
    scratch,
)

CHUNK = 64
_PART = 8 * CHUNK  # rows, at least, that have a sum of their own
_MOST_PARTS = 32
_SERIAL_WORK = 3e6  # multiply-adds one thread does in less than the time it takes to share them


class _Scratch(NamedTuple):
    """Of one chunk: lifted rows, panels of the operand, a tile of the result and its row sums."""

    rows: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    sums: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, rank, k):
    V = lanes_of(F)
    columns = rounded(k, 2 * V)
    return _Scratch(
        scratch(rounded(CHUNK, ROWS) * padded_rank(rank, V), F),
        scratch(CHUNK * columns, F),
        scratch(ROWS * columns, F),
        scratch(ROWS * V, F),
    )


@njit(nogil=True, cache=True, forceinline=True)
def _lift(source, first, count, weights, rows, width):
    """Rows ``first ...`` of source, each as often as it has weights, times one of them each time."""
    rank = source.shape[1]
    for i in range(count):
        for s in range(weights.shape[1]):
            scale_row(source, (first + i) * rank, rows, i * width + s * rank, rank, weights[first + i, s])


@njit(nogil=True, cache=True)
def _sum_rows(G, weights, X, first, last, states, state):
    """The state of rows ``first ... last``, added up."""
    rank, k, V = G.shape[1] * weights.shape[1], X.shape[1], lanes_of(G)
    r, W, work = padded_rank(rank, V), 2 * V, _new_scratch(G, rank, k)
    moment = state + r * rounded(k, W)
    for start in range(first, last, CHUNK):
        count = min(CHUNK, last - start)
        _lift(G, start, count, weights, work.rows, r)
        pack_panels(X, start, count, work.X, CHUNK)
        for f in range(0, rank, ROWS):
            add_transposed(work.rows, f, r, work.X, 0, CHUNK, states, state + f * W, W, r * W, k, count)
        for i in range(count):
            add_row(work.rows, i * r, states, moment, r, 1)


@njit(nogil=True, cache=True)
def _multiply_rows(F, weights, states, state, first, last, Y, mass):
    """Rows ``first ... last`` of the result."""
    rank, k, V = F.shape[1] * weights.shape[1], Y.shape[1], lanes_of(F)
    r, W, work = padded_rank(rank, V), 2 * V, _new_scratch(F, rank, k)
    columns = rounded(k, W)
    for start in range(first, last, CHUNK):
        count = min(CHUNK, last - start)
        _lift(F, start, count, weights, work.rows, r)
        for i in range(0, count, ROWS):
            multiply(work.rows, i * r, r, states, state, r, work.Y, 0, columns, W, k, rank, True)
            work.sums[:] = 0
            dot_rows(work.rows, i * r, r, states, state + r * columns, work.sums, 0, r)
            for row in range(min(ROWS, count - i)):
                scale_row(work.Y, row * columns, Y, (start + i + row) * k, k, 1)
                horizontal_sum(work.sums, row * V, mass, start + i + row)


@njit(nogil=True, cache=True, forceinline=True)
def of_head(weights, h):
    """The weights of a head, or those that all heads share."""
    return weights[h if weights.shape[0] > 1 else 0]


def _sum_parts(G, weights, X, parts, states):
    heads, n = X.shape[0], X.shape[1]
    size = states.size // max(1, heads * parts)
    for task in prange(heads * parts):
        h, g = task // parts, task % parts
        _sum_rows(G[h], of_head(weights, h), X[h], n * g // parts, n * (g + 1) // parts, states, task * size)
    for h in range(heads):
        total = states[h * parts * size : (h * parts + 1) * size]
        for g in range(1, parts):
            total += states[(h * parts + g) * size : (h * parts + g + 1) * size]


def _multiply_parts(F, weights, parts, states, Y, mass):
    heads, m = Y.shape[0], Y.shape[1]
    size = states.size // max(1, heads)
    for task in prange(heads * parts):
        h, g = task // parts, task % parts
        _multiply_rows(F[h], of_head(weights, h), states, h * size, m * g // parts, m * (g + 1) // parts, Y[h], mass[h])


_sum_serial, _sum_parallel = serial_and_parallel(_sum_parts)
_multiply_serial, _multiply_parallel = serial_and_parallel(_multiply_parts)


def parts_of(rows: int) -> int:
    """Into how many parts the rows of a head are cut, on any number of threads: sums keep their order."""
    return max(1, min(_MOST_PARTS, rows // _PART))


def runs_alone(heads: int, rows: int, width: int) -> bool:
    """Whether one thread does it sooner than several."""
    return get_num_threads() == 1 or heads * rows * width < _SERIAL_WORK


def states_of(G: np.ndarray, weights: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Flat states (heads, size) of lifted rows and an operand."""
    heads, n, rank = G.shape
    k, rank = X.shape[2], rank * weights.shape[2]
    parts, V = parts_of(n), int(lanes_of(G))
    size = padded_rank(rank, V) * (rounded(k, 2 * V) + 1)
    states = scratch(heads * parts * size, G)
    run = _sum_serial if runs_alone(heads, n, rank * k) else _sum_parallel
    run(G, weights, X, parts, states)
    return states.reshape(heads, parts, size)[:, 0]


def multiplied(F: np.ndarray, weights: np.ndarray, states: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lifted rows of F times states with k columns, and row sums."""
    heads, m, rank = F.shape
    Y, mass = np.empty((heads, m, k), F.dtype), np.empty((heads, m), F.dtype)
    run = _multiply_serial if runs_alone(heads, m, rank * weights.shape[2] * k) else _multiply_parallel
    run(F, weights, parts_of(m), np.ascontiguousarray(states).reshape(-1), Y, mass)
    return Y, mass


def low_rank_hadamard(
    F: np.ndarray, G: np.ndarray, X: np.ndarray, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``Y = (M * (F @ G.mT)) @ X`` and ``mass = (M * (F @ G.mT)) @ 1`` with ``M = left @ right.mT``.

    Parameters
    ----------
    F : (heads, m, r) array
    G : (heads, n, r) array
        Row and column factors.
    X : (heads, n, k) array
        Operand.
    left : (1 or heads, m, p) array
    right : (1 or heads, n, p) array
        Factors of the mask. All arrays are C-contiguous and of one dtype, float32 or float64.

    Returns
    -------
    Y : (heads, m, k) array
    mass : (heads, m) array
    """
    return multiplied(F, left, states_of(G, right, X), X.shape[2])
