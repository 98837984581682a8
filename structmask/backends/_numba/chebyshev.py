"""The Chebyshev recurrence of a sparse matrix, T_{k+1} = 2 B T_k - T_{k-1} in place, several terms in one passage.

A row of T_{k+1} overwrites that of T_{k-1} once it has been read, and the results take three terms at a time, when the
rows of all three are at hand. Columns go by panels as wide as a cache line.

Let no entry of B be farther than `reach` from the diagonal. Then term k + j may follow term k at a distance of j reach
rows, and the rows between them stay in cache while `depth` terms pass. Threads have parts of the rows: at first term j
comes within its part to all rows but j reach at either end, which need nothing of another part; then to what is left
about every boundary. A row is summed in one order whatever the passage, so that results never depend on it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import parallel, serial_and_parallel
from structmask.backends._numba.vectors import LINE, axpy, load_line, prefetch, scaled, store_line, zero_line

Matrix: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

SERIAL_WORK = 1_000_000  # multiplications of a passage below which one thread is faster than waking others
AHEAD = 48  # entries of the matrix by which rows of the operand are asked for before they are needed
CACHE = 3 << 19  # bytes that the rows of a passage may have
DEEPEST = 12  # terms of a passage
_FAR = 1 << 23  # bytes of a block beyond which rows come from so far that they are asked for
_ROOM = 1 << 24  # bytes that panels on threads of their own may fill
STEP = 1024  # rows
_PAGE = 1 << 12  # bytes
_PLACE = 21 * LINE  # of a block in its page, from that before; not near any small part of it
FUSED = {"contract", "nsz"}  # a multiplication and an addition in one instruction
UNSIGNED = np.uint64  # numba tests signed indices for being negative, which takes half the time of the innermost loop


class Passage(NamedTuple):
    """Parts of the rows, terms at a time, how far they stay apart, and whether to ask for rows ahead."""

    bounds: np.ndarray
    depth: int
    reach: int
    asks: bool


def chebyshev_sum(matrix: Matrix, order: np.ndarray, reach: int, X: np.ndarray, c: np.ndarray) -> np.ndarray:
    """sum_k c[f, k] T_k(B) X as (F, n, q) for X (n, q) and c (F, K + 1), K > 0.

    2 B (n, n) is given by its parts `indptr` (int64), `indices` (int32, followed by `AHEAD` of no meaning) and `data`;
    its row i belongs to row order[i] of X, and no |i - j| of an entry exceeds `reach`. Arrays have one real dtype.
    """
    (n, q), blocks, is_one = X.shape, 2 + len(c), X.shape[1] == 1
    width = 1 if is_one else LINE // X.itemsize
    panels, work = -(-q // width), (matrix[1].size + 4 * n) * width
    depth = 1 if is_one else _depth(matrix, reach, LINE * blocks)
    is_serial = work * depth < SERIAL_WORK
    is_apart = is_serial and panels > 1 and work * panels * c.shape[1] >= SERIAL_WORK
    passage = _passage(matrix, 1 if is_serial else get_num_threads(), depth, max(1, reach))
    lines, weights = whole_lines(X, panels * width), _threes(c)
    Y = np.empty((len(c), *lines.shape), X.dtype)
    size = _block(n * width * X.itemsize)
    together = min(panels, max(get_num_threads(), _ROOM // (blocks * size))) if is_apart else 1
    shape = together, blocks, size // X.itemsize
    with borrowed(math.prod(shape), X.dtype) as scratch:
        room = scratch.reshape(shape)
        run = (_ONE if is_one else _MANY)[0 if is_serial else 1]
        for panel in range(0, panels, together):
            if is_apart:
                _apart(*matrix, order, lines, panel, room[: panels - panel], weights, Y, *passage)
            else:
                run(*matrix, order, lines, panel, room[0], weights, Y, *passage)
    return Y if lines is X else np.ascontiguousarray(Y[:, :, :q])


def _block(size: int) -> int:
    """Bytes from one block to the next, so that a row never has the place in its page of one that was just stored.

    Processors compare that place first, and a load of a row waits for the store.
    """
    return size + (_PLACE - size) % _PAGE


def whole_lines(X: np.ndarray, columns: int) -> np.ndarray:
    """X with rows of whole cache lines."""
    if X.shape[1] == columns:
        return X
    lines = np.zeros((len(X), columns), X.dtype)
    lines[:, : X.shape[1]] = X
    return lines


def _threes(c: np.ndarray) -> np.ndarray:
    """(K + 1, F, 3): what the results take of T_{k-2}, T_{k-1} and T_k with term k, every third time and at the end.

    T_0 is there by half, so that T_1 = B T_0 is 2 B times what is there.
    """
    weights, k = np.zeros((c.shape[1], len(c), 3), c.dtype), np.arange(c.shape[1])
    taken = np.minimum(k - k % 3 + 2, k.size - 1)
    weights[taken, :, k - taken + 2] = np.where(k == 0, 2, 1).astype(c.dtype)[:, None] * c.T
    return weights


def _depth(matrix: Matrix, reach: int, row: int) -> int:
    """Terms of a passage whose rows, of some bytes and the matrix, have room in cache."""
    indptr, indices, data = matrix
    entries = (indices.itemsize + data.itemsize) * data.size / max(1, indptr.size - 1)
    return int(min(DEEPEST, max(1, CACHE // (max(1, reach) * (row + entries)))))


def _passage(matrix: Matrix, threads: int, depth: int, reach: int) -> Passage:
    """A part for every thread if each is wide enough; terms one by one in many more parts, for balance."""
    bounds = row_blocks(matrix[0], threads)
    if threads > 1:
        depth = min(depth, int(np.diff(bounds).min()) // (2 * reach))
    asks = depth == 1 and LINE * (matrix[0].size - 1) > _FAR
    if depth > 1 or threads == 1:
        return Passage(bounds, depth, reach, asks)
    return Passage(row_blocks(matrix[0], 8 * threads), 1, reach, asks)


def row_blocks(indptr: np.ndarray, parts: int) -> np.ndarray:
    """Row boundaries of parts with about equal numbers of stored entries and rows."""
    n = indptr.size - 1
    weight = indptr + 4 * np.arange(n + 1)
    bounds = np.searchsorted(weight, np.linspace(0, weight[-1], parts + 1)).astype(np.int64)
    bounds[0], bounds[-1] = 0, n
    return bounds


@njit(cache=True, nogil=True, inline="always")
def _row(indices, data, T, begin, end, total, asks):
    """A row of 2 B T, from its entries, and a total."""
    if asks:
        for p in range(begin, end):
            prefetch(T, np.int64(indices[p + UNSIGNED(AHEAD)]) * (LINE // T.itemsize))
    for p in range(begin, end):
        total = axpy(data[p], load_line(T, np.int64(indices[p])), total)
    return total


@njit(cache=True, nogil=True, fastmath=FUSED)
def _rows(indptr, indices, data, T, S, minus, first, last, asks):
    """T_k = 2 B T_{k-1} - T_{k-2} in some rows, put in place of T_{k-2}.

    A function for each kind of term, since a loop with little at hand keeps all of it in registers.
    """
    begin = UNSIGNED(indptr[first])
    for i in range(UNSIGNED(first), UNSIGNED(last)):
        own, end = np.int64(i), UNSIGNED(indptr[i + UNSIGNED(1)])
        store_line(S, own, _row(indices, data, T, begin, end, scaled(minus, load_line(S, own)), asks))
        begin = end


@njit(cache=True, nogil=True, fastmath=FUSED)
def _rows_and_sum(indptr, indices, data, T, S, sums, weights, minus, first, last, asks):
    """The same, and three terms into the sum of one function."""
    zero, one, two, begin = weights[0, 0], weights[0, 1], weights[0, 2], UNSIGNED(indptr[first])
    for i in range(UNSIGNED(first), UNSIGNED(last)):
        own, end = np.int64(i), UNSIGNED(indptr[i + UNSIGNED(1)])
        old = load_line(S, own)
        new = _row(indices, data, T, begin, end, scaled(minus, old), asks)
        total = axpy(one, load_line(T, own), axpy(zero, old, load_line(sums, own)))
        store_line(S, own, new)
        store_line(sums, own, axpy(two, new, total))
        begin = end


@njit(cache=True, nogil=True, fastmath=FUSED)
def _rows_and_sums(indptr, indices, data, T, S, sums, weights, minus, first, last, asks, k, ends, order, panel, Y):
    """The same for any number of functions and the first terms; after the last one the sums go where they belong."""
    width, n = LINE // T.itemsize, order.size
    stride, panels = T.size // width, Y.shape[2] // width
    for i in range(UNSIGNED(first), UNSIGNED(last)):
        own = np.int64(i)
        old = zero_line(S) if k == 1 else load_line(S, own)
        new = _row(indices, data, T, UNSIGNED(indptr[i]), UNSIGNED(indptr[i + UNSIGNED(1)]), scaled(minus, old), asks)
        store_line(S, own, new)
        if k == 1 and not ends:
            continue
        here = load_line(T, own)
        for f in range(weights.shape[0]):
            total = load_line(sums, f * stride + own) if k > 2 else zero_line(sums)
            total = axpy(weights[f, 1], here, axpy(weights[f, 0], old, total))
            total = axpy(weights[f, 2], new, total)
            if ends:
                store_line(Y, (f * n + order[i]) * panels + panel, total)
            else:
                store_line(sums, f * stride + own, total)


@njit(cache=True, nogil=True, inline="always")
def _term(indptr, indices, data, order, panel, blocks, weights, Y, k, first, last, asks):
    """Term k in some rows."""
    T, S, sums, kind = blocks[(k + 1) % 2], blocks[k % 2], blocks[2:], blocks.dtype.type
    three, minus, ends = weights[k], kind(-2 if k == 2 else -1), k == weights.shape[0] - 1
    # of terms that no sum wants only the recurrence is left
    is_taken = k % 3 == 2 and (k == 2 or np.any(three != 0))
    if k > 1 and not is_taken and not ends:
        _rows(indptr, indices, data, T, S, minus, first, last, asks)
    elif k > 2 and weights.shape[1] == 1 and not ends:
        _rows_and_sum(indptr, indices, data, T, S, sums, three, minus, first, last, asks)
    else:
        _rows_and_sums(indptr, indices, data, T, S, sums, three, minus, first, last, asks, k, ends, order, panel, Y)


def _many_steps(indptr, indices, data, order, X, panel, blocks, weights, Y, bounds, depth, reach, asks):
    """The whole recurrence for a panel of columns, `depth` terms at a time."""
    n, terms, parts, half = order.size, weights.shape[0] - 1, bounds.size - 1, X.dtype.type(0.5)
    panels = X.shape[1] * X.itemsize // LINE
    for part in prange(parts):
        for i in range(bounds[part], bounds[part + 1]):
            store_line(blocks, i, scaled(half, load_line(X, order[i] * panels + panel)))
    for k in range(1, terms + 1, depth):
        count = min(depth, terms + 1 - k)
        for part in prange(parts):
            a, b = bounds[part], bounds[part + 1]
            for front in range(a, b + count * reach, STEP):
                for j in range(count):
                    low = max(a + (j * reach if a > 0 else 0), front - j * reach)
                    high = min(b - (j * reach if b < n else 0), front + STEP - j * reach)
                    if low < high:
                        _term(indptr, indices, data, order, panel, blocks, weights, Y, k + j, low, high, asks)
        for part in prange(1, parts if count > 1 else 1):
            for j in range(1, count):
                low, high = bounds[part] - j * reach, bounds[part] + j * reach
                _term(indptr, indices, data, order, panel, blocks, weights, Y, k + j, low, high, False)


def _one_steps(indptr, indices, data, order, X, _panel, blocks, weights, Y, bounds, _depth, _reach, _asks):
    """The same for one column: a row is summed in a register."""
    terms, kind = weights.shape[0] - 1, X.dtype.type
    T, S, sums = blocks[0], blocks[1], blocks[2:]
    for i in range(order.size):
        T[i], S[i] = kind(0.5) * X[order[i], 0], kind(0)
    for k in range(1, terms + 1):
        before, adds = kind(2 if k == 2 else 1), k % 3 == 2 or k == terms
        for part in prange(bounds.size - 1):
            for i in range(UNSIGNED(bounds[part]), UNSIGNED(bounds[part + 1])):
                total = kind(0)
                for p in range(UNSIGNED(indptr[i]), UNSIGNED(indptr[i + UNSIGNED(1)])):
                    total += data[p] * T[UNSIGNED(indices[p])]
                new = total - before * S[i]
                if adds:
                    for f in range(weights.shape[1]):
                        three = weights[k, f, 0] * S[i] + weights[k, f, 1] * T[i] + weights[k, f, 2] * new
                        sums[f, i] = three if k <= 2 else sums[f, i] + three
                S[i] = new
        T, S = S, T
    for f in range(Y.shape[0]):
        for i in range(order.size):
            Y[f, order[i], 0] = sums[f, i]


_MANY, _ONE = (serial_and_parallel(steps, fastmath=FUSED) for steps in (_many_steps, _one_steps))
_many_alone = _MANY[0]


def _panels_apart(indptr, indices, data, order, X, first, room, weights, Y, bounds, depth, reach, asks):
    """As many panels of columns as there is room for, every one on a thread of its own."""
    for p in prange(room.shape[0]):
        _many_alone(indptr, indices, data, order, X, first + p, room[p], weights, Y, bounds, depth, reach, asks)


_apart = parallel(_panels_apart)
