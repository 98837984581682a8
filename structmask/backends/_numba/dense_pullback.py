"""Gradients of a Toeplitz mask times a low-rank matrix, tile by tile: five matrix products and a sum along diagonals.

With R = F G^T and Q = P X^T, the gradients of <P, (M * R) X> are

    dF = (M * Q) G,    dG = (M * Q)^T F,    dX = (M * R)^T P,    d table[p] = sum of (R * Q)_ij over positions p.

Tiles of R and Q are formed once for all four gradients, one block of rows after the other. The gradients of G, X and
the table collect contributions of every block of rows of a head, in memory of the worker. A task is a head, or a part
of its blocks where the heads cannot be shared out evenly: the sums of parts are added at the end.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    add_transposed,
    correlate_row,
    lanes_of,
    multiply,
    pack_panels,
    pack_rows,
    padded_rank,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
)

COLUMNS = 64
_BLOCK = 72  # rows of a task, a multiple of every ROWS
_WIDTH = 72  # columns of a tile in memory: COLUMNS, and room for whole ROWS of the transpose
_SERIAL_WORK = 1e6  # multiply-adds that one thread does in less time than a second one takes to join in


class _Scratch(NamedTuple):
    """Packed operands of a tile: rows of F, G, P, X, panels of them and of G^T and X^T, the products R and Q; sums."""

    F: np.ndarray
    P: np.ndarray
    G: np.ndarray
    X: np.ndarray
    F_panels: np.ndarray
    P_panels: np.ndarray
    G_panels: np.ndarray
    G_transposed: np.ndarray
    X_transposed: np.ndarray
    R: np.ndarray
    Q: np.ndarray
    dF: np.ndarray
    dG: np.ndarray
    dX: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, X):
    V, tall = lanes_of(F), rounded(X.shape[1], COLUMNS) + _WIDTH - COLUMNS
    r, k = padded_rank(F.shape[2], V), padded_rank(X.shape[2], V)
    wide_r, wide_k = rounded(F.shape[2], 2 * V), rounded(X.shape[2], 2 * V)
    return _Scratch(
        scratch(_BLOCK * r, F),
        scratch(_BLOCK * k, F),
        scratch(COLUMNS * r, F),
        scratch(COLUMNS * k, F),
        scratch(_BLOCK * wide_r, F),
        scratch(_BLOCK * wide_k, F),
        scratch(COLUMNS * wide_r, F),
        scratch(COLUMNS * r, F),
        scratch(COLUMNS * k, F),
        scratch(_BLOCK * _WIDTH, F),
        scratch(_BLOCK * _WIDTH, F),
        scratch(_BLOCK * wide_r, F),
        scratch(tall * wide_r, F),
        scratch(tall * wide_k, F),
    )


@njit(nogil=True, cache=True, forceinline=True)
def _through_the_mask(table, place, row, column_position, run, first, count, R, Q, d_table):
    """One row of a tile, run by run: R * Q goes to the table, R and Q are multiplied by the mask."""
    j = 0
    while j < count:
        piece, start = min(count - j, run - (first + j) % run), column_position[first + j] - place
        correlate_row(R, row + j, Q, row + j, table, start, d_table, start, piece)
        j += piece


@njit(nogil=True, cache=True, forceinline=True)
def _run_tile(work, rows, count, rank, k, c):
    """Add Q G to dF, Q^T F to dG and R^T P to dX for one tile of the masked R and Q."""
    V = lanes_of(work.R)
    W, wide_r, wide_k = 2 * V, rounded(rank, 2 * V), rounded(k, 2 * V)
    for i in range(0, rows, ROWS):
        multiply(
            work.Q, i * _WIDTH, _WIDTH, work.G_panels, 0, COLUMNS, work.dF, i * wide_r, wide_r, W, rank, count, False
        )
    for j in range(0, count, ROWS):
        place_r, place_k = (c + j) * wide_r, (c + j) * wide_k
        add_transposed(work.Q, j, _WIDTH, work.F_panels, 0, _BLOCK, work.dG, place_r, wide_r, W, rank, rows)
        add_transposed(work.R, j, _WIDTH, work.P_panels, 0, _BLOCK, work.dX, place_k, wide_k, W, k, rows)


@njit(nogil=True, cache=True, forceinline=True)
def _run_block(F, G, X, P, table, row_position, column_position, run, first, dF, d_table, work):
    """Rows ``first ...`` of one head."""
    V, k, rank, n = lanes_of(F), X.shape[1], F.shape[1], G.shape[0]
    r, c_x, W, wide_r = padded_rank(rank, V), padded_rank(k, V), 2 * V, rounded(rank, 2 * V)
    rows = min(_BLOCK, F.shape[0] - first)
    pack_rows(F, first, rows, work.F, r, _BLOCK)
    pack_rows(P, first, rows, work.P, c_x, _BLOCK)
    pack_panels(F, first, rows, work.F_panels, _BLOCK)
    pack_panels(P, first, rows, work.P_panels, _BLOCK)
    work.dF[:] = 0
    for c in range(0, n, COLUMNS):
        count = min(COLUMNS, n - c)
        pack_rows(G, c, count, work.G, r, COLUMNS)
        pack_rows(X, c, count, work.X, c_x, COLUMNS)
        pack_panels(G, c, count, work.G_panels, COLUMNS)
        transpose_panels(work.G, r, rank, count, work.G_transposed)
        transpose_panels(work.X, c_x, k, count, work.X_transposed)
        for i in range(0, rows, ROWS):
            multiply(work.F, i * r, r, work.G_transposed, 0, r, work.R, i * _WIDTH, _WIDTH, W, count, rank, True)
            multiply(work.P, i * c_x, c_x, work.X_transposed, 0, c_x, work.Q, i * _WIDTH, _WIDTH, W, count, k, True)
        for i in range(rows):
            place = row_position[first + i]
            _through_the_mask(table, place, i * _WIDTH, column_position, run, c, count, work.R, work.Q, d_table)
        _run_tile(work, rows, count, rank, k, c)
    for i in range(rows):
        scale_row(work.dF, i * wide_r, dF, (first + i) * rank, rank, 1)


@njit(nogil=True, cache=True, forceinline=True)
def _run_task(F, G, X, P, table, row_position, column_position, run, first, last, dF, dG, dX, d_table, work):
    """Rows ``first ... last`` of one head."""
    V, k, rank, n = lanes_of(F), X.shape[1], F.shape[1], G.shape[0]
    wide_r, wide_k = rounded(rank, 2 * V), rounded(k, 2 * V)
    work.dG[:], work.dX[:], d_table[:] = 0, 0, 0
    for row in range(first, last, _BLOCK):
        _run_block(F, G, X, P, table, row_position, column_position, run, row, dF, d_table, work)
    for j in range(n):
        scale_row(work.dG, j * wide_r, dG, j * rank, rank, 1)
        scale_row(work.dX, j * wide_k, dX, j * k, k, 1)


@njit(nogil=True, cache=True)
def _run_tasks(F, G, X, P, table, row_position, column_position, run, worker, workers, dF, dG, dX, d_table):
    work, blocks, parts = _new_scratch(F, X), (F.shape[1] + _BLOCK - 1) // _BLOCK, dG.shape[0]
    tasks = F.shape[0] * parts
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        h, part = task // parts, task % parts
        own, first, last = h if table.shape[0] > 1 else 0, blocks * part // parts, blocks * (part + 1) // parts
        _run_task(
            F[h], G[h], X[h], P[h], table[own], row_position, column_position, run, first * _BLOCK,
            min(last * _BLOCK, F.shape[1]), dF[h], dG[part, h], dX[part, h], d_table[part, h], work,
        )  # fmt: skip


@parallel
def _run_parallel(F, G, X, P, table, row_position, column_position, run, workers, dF, dG, dX, d_table):
    for w in prange(workers):
        _run_tasks(F, G, X, P, table, row_position, column_position, run, w, workers, dF, dG, dX, d_table)


def dense_toeplitz_pullback(
    F: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
    P: np.ndarray,
    table: np.ndarray,
    row_position: np.ndarray,
    column_position: np.ndarray,
    run: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of ``<P, (M * (F @ G.mT)) @ X>`` for F, G, X and the table of a multilevel Toeplitz mask M.

    Parameters
    ----------
    F, G, X : (heads, m, r), (heads, n, r), (heads, n, k) arrays
    P : (heads, m, k) array
        Cotangent of the product.
    table, row_position, column_position, run
        As for `dense.dense_toeplitz`.

    Returns
    -------
    dF, dG, dX : arrays like F, G, X
    d_table : (1 or heads, size) array
        Summed over the heads if they share the table. Five matrix products of m n (r or k) multiply-adds a head, and
        O(parts heads n (r + k)) memory, with as many parts of a head as the threads need to have equal work, at most
        one a thread.
    """
    (heads, m, rank), (n, k) = F.shape, X.shape[1:]
    if 0 in (heads, m, n):
        return np.zeros_like(F), np.zeros_like(G), np.zeros_like(X), np.zeros_like(table)
    threads, blocks = get_num_threads(), -(-m // _BLOCK)
    serial = threads == 1 or heads * m * n * (rank + k) < _SERIAL_WORK
    parts = 1 if serial else min(blocks, threads // math.gcd(heads, threads))
    dF, d_table = np.empty(F.shape, F.dtype), np.empty((parts, heads, table.shape[-1]), F.dtype)
    dG, dX = (np.empty((parts, *a.shape), F.dtype) for a in (G, X))
    arguments = F, G, X, P, table, row_position, column_position, run
    if serial:
        _run_tasks(*arguments, 0, 1, dF, dG, dX, d_table)
    else:
        _run_parallel(*arguments, min(threads, heads * parts), dF, dG, dX, d_table)
    d_table = _total(d_table)
    return dF, _total(dG), _total(dX), d_table if len(table) > 1 else d_table.sum(axis=0, keepdims=True)


def _total(parts: np.ndarray) -> np.ndarray:
    """The sum over parts."""
    return parts[0] if len(parts) == 1 else parts.sum(axis=0)
