"""A dense mask times a low-rank matrix, tile by tile: ``(M * (F G^T)) @ X`` without an m x n array.

A task is one head and one block of rows. It runs through the columns, ``COLUMNS`` at a time: keys are packed
transposed, and every tile of rows is multiplied by them, by the mask, and by the packed values, all in cache. Tiles
where the table is zero are left out: half of a causal mask, all but the windows of a band. The cost is O(m n (r + k))
operations without them.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    horizontal_sum,
    lanes_of,
    multiply,
    multiply_masked,
    pack_panels,
    pack_rows,
    padded_rank,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
)

COLUMNS = 64
_FULL = np.empty((1, 0), np.int64)
_MOST_ROWS = 240  # multiples of every ROWS
_FEWEST_ROWS = 72
_SERIAL_WORK = 2e6  # multiply-adds that one thread does in less time than a second one takes to join in


class _Scratch(NamedTuple):
    """Packed operands: rows of F and G, panels of G^T and X, a tile of the mask and of S, the block of the result."""

    F: np.ndarray
    G: np.ndarray
    transposed: np.ndarray
    X: np.ndarray
    mask: np.ndarray
    S: np.ndarray
    Y: np.ndarray
    sums: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, X, block):
    V = lanes_of(F)
    rank, columns = padded_rank(F.shape[2], V), rounded(X.shape[2], 2 * V)
    return _Scratch(
        scratch(block * rank, F),
        scratch(COLUMNS * rank, F),
        scratch(COLUMNS * rank, F),
        scratch(COLUMNS * columns, F),
        scratch(ROWS * COLUMNS + V, F),
        scratch(ROWS * COLUMNS, F),
        scratch(block * columns, F),
        scratch(block * V, F),
    )


@njit(nogil=True, cache=True, forceinline=True)
def _set_mask(table, row_position, column_position, run, i, rows, first, count, mask):
    """Mask rows ``i ...``, columns ``first ...``, run by run in whole vectors: the next run overwrites the excess."""
    V = lanes_of(table)
    for row in range(rows):
        start, j = row_position[i + row], 0
        while j < count:
            place = column_position[first + j] - start
            piece = min(count - j, run - (first + j) % run)
            length = rounded(piece, V)
            if place + length > table.size:
                length = piece
            scale_row(table, place, mask, row * COLUMNS + j, length, 1)
            j += piece
    for row in range(rows):
        mask[row * COLUMNS + count : (row + 1) * COLUMNS] = 0


@njit(nogil=True, cache=True)
def _is_empty(filled, row_position, column_position, i, rows, first, count):
    """Whether the table is zero wherever rows ``i ...`` meet columns ``first ...``; ``filled`` counts its others."""
    if filled.size == 0:
        return False
    lowest = highest = row_position[i]
    for row in range(i + 1, i + rows):
        lowest, highest = min(lowest, row_position[row]), max(highest, row_position[row])
    begin, end = column_position[first] - highest, column_position[first + count - 1] - lowest
    return filled[end + 1] == filled[begin]


@njit(nogil=True, cache=True, forceinline=True)
def _run_task(F, G, X, table, filled, row_position, column_position, run, first, Y, mass, work):
    """Rows ``first ...`` of one head."""
    V, k, rank, n = lanes_of(F), X.shape[1], F.shape[1], G.shape[0]
    r, W, columns = work.G.size // COLUMNS, 2 * V, rounded(k, 2 * V)
    rows = min(work.sums.size // V, F.shape[0] - first)
    pack_rows(F, first, rows, work.F, r, rounded(rows, ROWS))
    work.sums[:] = 0
    if filled.size:
        work.Y[:] = 0
    for c in range(0, n, COLUMNS):
        count = min(COLUMNS, n - c)
        if _is_empty(filled, row_position, column_position, first, rows, c, count):
            continue
        pack_rows(G, c, count, work.G, r, COLUMNS)
        transpose_panels(work.G, r, rank, count, work.transposed)
        pack_panels(X, c, count, work.X, COLUMNS)
        for i in range(0, rows, ROWS):
            height = min(ROWS, rows - i)
            if _is_empty(filled, row_position, column_position, first + i, height, c, count):
                continue
            _set_mask(table, row_position, column_position, run, first + i, height, c, count, work.mask)
            multiply_masked(
                work.F, i * r, r, work.transposed, r, work.mask, 0, work.S, COLUMNS, work.sums, i * V, 0, count, rank
            )
            fresh = c == 0 and filled.size == 0
            multiply(work.S, 0, COLUMNS, work.X, 0, COLUMNS, work.Y, i * columns, columns, W, k, count, fresh)
    for i in range(rows):
        scale_row(work.Y, i * columns, Y, (first + i) * k, k, 1)
        horizontal_sum(work.sums, i * V, mass, first + i)


@njit(nogil=True, cache=True)
def _run_tasks(F, G, X, table, filled, row_position, column_position, run, block, worker, workers, Y, mass):
    work, blocks = _new_scratch(F, X, block), (F.shape[1] + block - 1) // block
    tasks = F.shape[0] * blocks
    for task in range(worker, tasks, workers):  # in turns: with a causal mask later rows are more work
        h = task // blocks
        own = h if table.shape[0] > 1 else 0
        values, counts = table[own], filled[own if filled.shape[0] > 1 else 0]
        first = task % blocks * block
        _run_task(F[h], G[h], X[h], values, counts, row_position, column_position, run, first, Y[h], mass[h], work)


@parallel
def _run_parallel(F, G, X, table, filled, row_position, column_position, run, block, workers, Y, mass):
    for w in prange(workers):
        _run_tasks(F, G, X, table, filled, row_position, column_position, run, block, w, workers, Y, mass)


def dense_toeplitz(
    F: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
    table: np.ndarray,
    row_position: np.ndarray,
    column_position: np.ndarray,
    run: int,
    filled: np.ndarray = _FULL,
) -> tuple[np.ndarray, np.ndarray]:
    """Product with a multilevel Toeplitz mask times a low-rank matrix, elementwise, and its row sums.

    ``Y = (M * (F @ G.mT)) @ X`` and ``mass = (M * (F @ G.mT)) @ 1`` with
    ``M_ij = table[h, column_position[j] - row_position[i]]``.

    Parameters
    ----------
    F : (heads, m, r) array
        Row factor.
    G : (heads, n, r) array
        Column factor.
    X : (heads, n, k) array
        Operand.
    table : (1 or heads, size) array
        Entries of the mask.
    row_position, column_position : (m,) and (n,) int64 arrays
        All differences are within ``0 ... size - 1``.
    run : int
        Divides n; inside every aligned run of this many columns the positions are consecutive.
    filled : (1 or heads, size + 1) int64 array
        How many entries before each place of the table are not zero; column positions must ascend then. Empty for a
        table without zeros.

    Returns
    -------
    Y : (heads, m, k) array
    mass : (heads, m) array
        Both in the precision of the arguments, which are C-contiguous and of one dtype, float32 or float64.
    """
    (heads, m, rank), (n, k) = F.shape, X.shape[1:]
    if heads * m * n == 0:
        return np.zeros((heads, m, k), F.dtype), np.zeros((heads, m), F.dtype)
    Y, mass = np.empty((heads, m, k), F.dtype), np.empty((heads, m), F.dtype)
    threads = get_num_threads()
    if threads == 1 or heads * m * n * (rank + k) < _SERIAL_WORK:
        block = min(-(-m // ROWS) * ROWS, _MOST_ROWS)
        _run_tasks(F, G, X, table, filled, row_position, column_position, run, block, 0, 1, Y, mass)
        return Y, mass
    block = min(_MOST_ROWS, max(_FEWEST_ROWS, -(-heads * m // (4 * threads * ROWS)) * ROWS))
    workers = min(threads, heads * -(-m // block))
    _run_parallel(F, G, X, table, filled, row_position, column_position, run, block, workers, Y, mass)
    return Y, mass


def dense_array(F: np.ndarray, G: np.ndarray, X: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Product with an array times a low-rank matrix, elementwise, and its row sums.

    ``Y = (A * (F @ G.mT)) @ X`` and ``mass = (A * (F @ G.mT)) @ 1``.

    Parameters
    ----------
    F : (heads, m, r) array
        Row factor.
    G : (heads, n, r) array
        Column factor.
    X : (heads, n, k) array
        Operand.
    A : (1 or heads, m, n) array
        The mask.

    Returns
    -------
    Y : (heads, m, k) array
    mass : (heads, m) array
        Both in the precision of the arguments, which are C-contiguous and of one dtype, float32 or float64.
    """
    heads, m, n = A.shape
    rows, columns = np.arange(0, -m * n, -n) if n else np.zeros(m, np.int64), np.arange(n)
    return dense_toeplitz(F, G, X, A.reshape(heads, m * n), rows, columns, n)
