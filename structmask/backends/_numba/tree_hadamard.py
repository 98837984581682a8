"""Products with (decay mask of a forest) * (F G^T): both sweeps for eight features of eight columns at once, in cache.

The forest comes in pieces (`tree_pieces`). On the way up only what open nodes collect is kept of a piece; on the way
down its sweep up is made again, then the one down, and a row goes out with all features. So nothing larger than a
piece is ever swept, and no column of a feature is written to memory.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, row, set_row
from structmask.backends._numba.scratch import borrowed_arrays
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_pieces import Pieces
from structmask.backends._numba.vectors import axpy, scaled, zero

SERIAL_WORK = 1_000_000  # products of a node, a feature and a column below which one thread is as fast
_FEATURES = 8  # at a time
_NODE = _FEATURES + 2  # rows of a node: what features sum up to, operand, result
_V, _Y = _FEATURES, _FEATURES + 1


@njit(nogil=True, cache=True)
def piece_of(pieces, b):
    """Positions of the nodes of piece b, children, leaves for later pieces; numbers of roots and open nodes."""
    begin, end = pieces.start[b], pieces.start[b + 1]
    leaves = pieces.leaf[pieces.opens[b + 1] : pieces.opens[b + 2 if b + 1 < pieces.roots.size else b + 1]]
    is_open = pieces.opens[b + 1] - pieces.opens[b]
    return pieces.position[begin:end], pieces.first[begin + b : end + b + 1], leaves, pieces.roots[b], is_open


@njit(nogil=True, cache=True)
def factors_of(position, roots, E, e):
    """Factors of a piece by its own order: 0 at its roots, 1 at leaves for later pieces."""
    for i in range(position.size):
        e[i] = 0.0 if i < roots else E[position[i]] if position[i] >= 0 else 1.0


@njit(nogil=True, cache=True)
def by_piece(position, order, X, first, last, blocks):
    """Columns first ... last - 1 of X at the nodes of a piece, in blocks (B, nodes, width); zeros elsewhere."""
    width = blocks.shape[2]
    for i in range(position.size):
        for b in range(blocks.shape[0]):
            for c in range(width):
                column = first + b * width + c
                inside = position[i] >= 0 and column < last
                blocks[b, i, c] = X[order[position[i]], column] if inside else 0.0


@njit(nogil=True, cache=True)
def _collected(E, begin, end, g, R, i, count):
    """S[i, r] = g[i, r] V[i] and the decayed sums of the children begin ... end - 1."""
    v = row(R, _NODE * i + _V)
    for r in range(count):
        s = scaled(g[i, r], v)
        for j in range(begin, end):
            s = axpy(E[j], row(R, _NODE * j + r), s)
        set_row(R, _NODE * i + r, s)


@njit(nogil=True, cache=True)
def _passed_on(e, above, f, R, i, count):
    """S[i, r] += e (S[above, r] - e S[i, r]), what comes from elsewhere, and Y[i] += f[i, r] S[i, r]."""
    y = row(R, _NODE * i + _Y)
    for r in range(count):
        below = row(R, _NODE * i + r)
        s = axpy(e, axpy(-e, below, row(R, _NODE * above + r)), below)
        set_row(R, _NODE * i + r, s)
        y = axpy(f[i, r], s, y)
    set_row(R, _NODE * i + _Y, y)


@njit(nogil=True, cache=True)
def _at_root(f, R, i, count):
    """Y[i] += f[i, r] S[i, r]: a root has all of its tree below."""
    y = row(R, _NODE * i + _Y)
    for r in range(count):
        y = axpy(f[i, r], row(R, _NODE * i + r), y)
    set_row(R, _NODE * i + _Y, y)


@njit(nogil=True, cache=True)
def copy_rows(source, first, target, place, count):
    """Some rows side by side."""
    for r in range(count):
        set_row(target, place + r, row(source, first + r))


@njit(nogil=True, cache=True)
def _up(position, first, leaves, is_open, E, g, R, carried, count):
    """Up for some features. What later pieces have collected is `carried`."""
    for k in range(leaves.size):
        copy_rows(carried, _FEATURES * k, R, _NODE * leaves[k], count)
    for i in range(E.size - 1, -1, -1):
        if position[i] >= 0 or i < is_open:
            _collected(E, first[i], first[i + 1], g, R, i, count)


@njit(nogil=True, cache=True)
def _down(first, leaves, roots, is_open, E, f, R, given, carried, count):
    """Down for some features. What earlier pieces left to open nodes is `given`, what is left to later ones carried."""
    for i in range(is_open, roots):
        _at_root(f, R, i, count)
    for i in range(is_open):
        copy_rows(given, _FEATURES * i, R, _NODE * i, count)
    for i in range(E.size):
        for j in range(first[i], first[i + 1]):
            _passed_on(E[j], i, f, R, j, count)
    for k in range(leaves.size):
        copy_rows(R, _NODE * leaves[k], carried, _FEATURES * k, count)


@njit(nogil=True, cache=True)
def _columns(position, order, X, first, width, R):
    """Eight columns of X into the rows of a piece, and zero results."""
    for i in range(position.size):
        for c in range(LANES):
            R[_NODE * i + _V, c] = X[order[position[i]], first + c] if position[i] >= 0 and c < width else 0.0
        set_row(R, _NODE * i + _Y, zero(R))


@njit(nogil=True, cache=True)
def _rows_of(position, order, R, first, width, Y):
    """Eight columns of the result to where they belong."""
    for i in range(position.size):
        if position[i] >= 0:
            for c in range(width):
                Y[order[position[i]], first + c] = R[_NODE * i + _Y, c]


@njit(nogil=True, cache=True)
def _piece(pieces, b, down, order, E, F, G, X, begin, end, e, f, g, R, carries, Y):
    """A piece up, keeping what its open nodes collect, or up and down."""
    position, first, leaves, roots, is_open = piece_of(pieces, b)
    (k, r), n = (X.shape[1], F.shape[1]), position.size
    factors_of(position, roots, E, e)
    by_piece(position, order, G, 0, r, g[:, :n])
    if down:
        by_piece(position, order, F, 0, r, f[:, :n])
    for block in range(begin, end):
        width = min(LANES, k - block * LANES)
        _columns(position, order, X, block * LANES, width, R)
        for part in range(f.shape[0]):
            count, own = min(_FEATURES, r - part * _FEATURES), carries[block - begin, part]
            here, later = own[_FEATURES * pieces.opens[b] :], own[_FEATURES * pieces.opens[b + 1] :]
            _up(position, first, leaves, is_open, e[:n], g[part], R, later, count)
            if down:
                _down(first, leaves, roots, is_open, e[:n], f[part], R, here, later, count)
            else:
                for i in range(is_open):
                    copy_rows(R, _NODE * i, here, _FEATURES * i, count)
        if down:
            _rows_of(position, order, R, block * LANES, width, Y)


@njit(nogil=True, cache=True)
def _task(pieces, order, E, F, G, X, begin, end, e, f, g, R, carries, Y):
    """The blocks begin ... end - 1 of eight columns; `carries` has eight rows for each block, feature and open node."""
    count = pieces.roots.size
    for b in range(count - 1, 0, -1):
        _piece(pieces, b, False, order, E, F, G, X, begin, end, e, f, g, R, carries, Y)
    for b in range(count):
        _piece(pieces, b, True, order, E, F, G, X, begin, end, e, f, g, R, carries, Y)


def _hadamard(pieces, order, E, F, G, X, shares, rows, factors, features, carries, Y):
    """Tasks are (head, share of the columns)."""
    tasks, workers, blocks = X.shape[0] * shares, rows.shape[0], -(-X.shape[2] // LANES)
    for worker in prange(workers):
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, share = task // shares, task % shares
            own = E[h if E.shape[0] > 1 else 0]
            begin, end = blocks * share // shares, blocks * (share + 1) // shares
            f, g = features[worker, 0], features[worker, 1]
            _task(
                pieces, order, own, F[h], G[h], X[h], begin, end, factors[worker], f, g, rows[worker], carries[worker],
                Y[h],
            )  # fmt: skip


_hadamard_serial, _hadamard_parallel = serial_and_parallel(_hadamard)


def tree_hadamard(
    pieces: Pieces, order: np.ndarray, E: np.ndarray, F: np.ndarray, G: np.ndarray, X: np.ndarray
) -> np.ndarray:
    """(M * F G^T) X (B, n, k) for the decay mask M of real factors E (1 or B, n), by position, none larger than 1.

    F, G (B, n, r) and X (B, n, k), of one dtype, are in the caller's order; all is computed in double precision.
    """
    (B, _, k), r = X.shape, F.shape[2]
    blocks, parts, largest = -(-k // LANES), -(-r // _FEATURES), int(np.diff(pieces.start).max())
    threads = 1 if r * X.size < SERIAL_WORK else get_num_threads()
    shares = min(blocks, -(-threads // B))
    workers = min(threads, B * shares)
    run = _hadamard_serial if workers == 1 else _hadamard_parallel
    rows, features = (workers, largest * _NODE, LANES), (workers, 2, parts, largest, _FEATURES)
    carries = workers, -(-blocks // shares), parts, (int(pieces.opens[-1]) + 1) * _FEATURES, LANES
    Y = np.empty_like(X)
    with borrowed_arrays(np.dtype(np.float64), (rows, (workers, largest), features, carries)) as scratch:
        run(pieces, order, E, F, G, X, shares, *scratch, Y)
    return Y
