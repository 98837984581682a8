"""All gradients of products with low-rank masks times a low-rank matrix, by chunks of rows.

With the states T = G'^T X and U = F'^T P of lifted rows (`low_rank`), Y = F' T has the gradients dX = G' U, dF' = P T^T
and dG' = X U^T. One of lifted rows falls on the rows themselves, times their weights, and on the weights, times the
rows. Five products, where the product itself takes two.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from structmask.backends._numba.threads import serial_and_parallel

from .gemm import (
    ROWS,
    add_row_and_dot,
    lanes_of,
    multiply,
    pack_rows,
    padded_rank,
    rounded,
    scratch,
    transposed_panels,
)
from .low_rank import CHUNK, multiplied, of_head, parts_of, runs_alone, states_of


class _Scratch(NamedTuple):
    """Rows of the cotangent in one chunk, panels of the transposed state, a tile of the lifted rows' gradient."""

    rows: np.ndarray
    state: np.ndarray
    tile: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(P, rank):
    V = lanes_of(P)
    width, columns = rounded(rank, 2 * V), rounded(P.shape[1], V)
    return _Scratch(
        scratch(rounded(CHUNK, ROWS) * padded_rank(P.shape[1], V), P),
        scratch(columns * width, P),
        scratch(ROWS * width, P),
    )


@njit(nogil=True, cache=True)
def _spread_rows(P, F, weights, states, state, first, last, dF, d_weights):
    """Gradients of rows ``first ... last`` and their weights, where P T^T is that of the lifted rows."""
    V, k, r, p = lanes_of(P), P.shape[1], F.shape[1], weights.shape[1]
    W, rank, work = 2 * V, r * p, _new_scratch(P, r * p)
    height, columns, width, stride = padded_rank(rank, V), rounded(k, V), rounded(rank, W), padded_rank(k, V)
    transposed_panels(states[state : state + height * rounded(k, W)], height, columns, rank, work.state, columns)
    for start in range(first, last, CHUNK):
        count = min(CHUNK, last - start)
        pack_rows(P, start, count, work.rows, stride, count)
        for i in range(0, count, ROWS):
            multiply(work.rows, i * stride, stride, work.state, 0, columns, work.tile, 0, width, W, rank, k, True)
            for row in range(min(ROWS, count - i)):
                j = start + i + row
                for s in range(p):
                    place = row * width + s * r
                    add_row_and_dot(work.tile, place, F, j * r, dF, j * r, d_weights, j * p + s, r, weights[j, s])


def _spread_parts(P, F, weights, parts, states, dF, d_weights):
    heads, m = P.shape[0], P.shape[1]
    size = states.size // max(1, heads)
    for task in prange(heads * parts):
        h, g = task // parts, task % parts
        first, last, own = m * g // parts, m * (g + 1) // parts, of_head(weights, h)
        _spread_rows(P[h], F[h], own, states, h * size, first, last, dF[h], d_weights[h])


_spread_serial, _spread_parallel = serial_and_parallel(_spread_parts)


def _spread(P: np.ndarray, F: np.ndarray, weights: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of <P, F' T> for F (heads, m, r) and its weights (heads, m, p)."""
    (heads, m, rank), p = F.shape, weights.shape[2]
    dF, d_weights = np.zeros_like(F), np.zeros((heads, m, p), F.dtype)
    run = _spread_serial if runs_alone(heads, m, rank * p * P.shape[2]) else _spread_parallel
    run(P, F, weights, parts_of(m), np.ascontiguousarray(states).reshape(-1), dF, d_weights)
    return dF, d_weights


def low_rank_pullback(
    F: np.ndarray, G: np.ndarray, P: np.ndarray, X: np.ndarray, left: np.ndarray, right: np.ndarray, columns: int
) -> tuple[np.ndarray, ...]:
    """Gradients of ``<P, ((left @ right.mT) * (F @ G.mT)) @ X>``.

    Parameters
    ----------
    F : (heads, m, r) array
    G : (heads, n, r) array
    P : (heads, m, k) array
    X : (heads, n, k) array
    left : (1 or heads, m, p) array
    right : (1 or heads, n, p) array
        C-contiguous, of one dtype, float32 or float64.
    columns : int
        Of how many columns of X the gradient is wanted, from the first on.

    Returns
    -------
    dF, dG, dX, d_left, d_right
        As F, G, (heads, n, columns), (heads, m, p) and (heads, n, p).
    """
    T, U = states_of(G, right, X), states_of(F, left, P)
    dF, d_left = _spread(P, F, left, T)
    dG, d_right = _spread(X, G, right, U)
    dX = multiplied(G, right, U, X.shape[2])[0][..., :columns] if columns else X[..., :0]
    return dF, dG, dX, d_left, d_right
