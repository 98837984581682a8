"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in the two sweeps of the product.

Rows are eight features here. For a column c, A sums X_c g at and below each node, Q all else of its tree as its parent
sees it; B and W do so with P_c f. With a = A + e Q and b = B + e W, the rows of the product itself, all gradients add
up at once: that of f is P_c a, of g X_c b, of X_c <g, b>, and of the factor e of an edge <B, Q> + <W, A>.
Nothing is subtracted: Q adds up what comes through the parent and through earlier and later siblings. On the way down
what a node leaves to its children, its own row and what comes from above, takes the place of A.

The forest comes in pieces, as for the product. All rows of a node lie together, for a call costs as much as a row for
every array that it takes.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, row, set_row
from structmask.backends._numba.scratch import borrowed_arrays
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_hadamard import SERIAL_WORK, by_piece, copy_rows, factors_of, piece_of
from structmask.backends._numba.tree_pieces import Pieces
from structmask.backends._numba.vectors import axpy, inner, scaled, times_add, total_of, zero

_COLUMNS = 4  # at a time: their rows of a small tree stay in the second cache
_PAIR = 2 * _COLUMNS  # rows of A and B, which take turns
_F, _G, _TO_F, _TO_G, _TO_E = range(_PAIR, _PAIR + 5)  # rows of features and gradients
_NODE = _PAIR + 5  # rows of a node


@njit(nogil=True, cache=True)
def _collected(E, begin, end, R, x, p, i, count):
    """A = x[i, c] g and the decayed sums of the children begin ... end - 1, and B so from p and f."""
    f, g = row(R, _NODE * i + _F), row(R, _NODE * i + _G)
    for c in range(count):
        s, t = scaled(x[i, c], g), scaled(p[i, c], f)
        for j in range(begin, end):
            e, there = E[j], _NODE * j + 2 * c
            s, t = axpy(e, row(R, there), s), axpy(e, row(R, there + 1), t)
        set_row(R, _NODE * i + 2 * c, s)
        set_row(R, _NODE * i + 2 * c + 1, t)


@njit(nogil=True, cache=True)
def _two_share(e, d, first, above, given, R, count):
    """`_shared_out` for two children, of factors e and d."""
    for c in range(2 * count):
        all_else = row(R, _NODE * above + c)
        set_row(R, given + c, axpy(d, row(R, _NODE * (first + 1) + c), all_else))
        set_row(R, given + _NODE + c, axpy(e, row(R, _NODE * first + c), all_else))


@njit(nogil=True, cache=True)
def _shared_out(E, begin, end, above, given, R, count):
    """Q and W of the children begin ... end - 1, at least two, from what their parent leaves to all of them."""
    last = end - 1 - begin
    for c in range(2 * count):
        all_else = row(R, _NODE * above + c)
        set_row(R, given + _NODE * last + c, all_else)
        for j in range(last, 0, -1):  # those after a child
            all_else = axpy(E[begin + j], row(R, _NODE * (begin + j) + c), all_else)
            set_row(R, given + _NODE * (j - 1) + c, all_else)
        earlier = scaled(E[begin], row(R, _NODE * begin + c))
        for j in range(1, last + 1):
            set_row(R, given + _NODE * j + c, axpy(1.0, earlier, row(R, given + _NODE * j + c)))
            earlier = axpy(E[begin + j], row(R, _NODE * (begin + j) + c), earlier)


@njit(nogil=True, cache=True)
def _child(e, given, R, x, p, dx, i, count):
    """What a node gives to the gradients, its Q and W being given, and what it leaves to its children."""
    own = _NODE * i
    f, g = row(R, own + _F), row(R, own + _G)
    to_f, to_g, to_e = row(R, own + _TO_F), row(R, own + _TO_G), row(R, own + _TO_E)
    for c in range(count):
        here, there = own + 2 * c, given + 2 * c
        A, B, Q, W = row(R, here), row(R, here + 1), row(R, there), row(R, there + 1)
        b = axpy(e, W, B)
        set_row(R, here, axpy(e, Q, scaled(x[i, c], g)))
        set_row(R, here + 1, axpy(e, W, scaled(p[i, c], f)))
        to_f, to_g = axpy(p[i, c], axpy(e, Q, A), to_f), axpy(x[i, c], b, to_g)
        to_e = times_add(A, W, times_add(B, Q, to_e))
        dx[i, c] += inner(g, b)
    set_row(R, own + _TO_F, to_f)
    set_row(R, own + _TO_G, to_g)
    set_row(R, own + _TO_E, to_e)


@njit(nogil=True, cache=True)
def _up(position, first, leaves, is_open, E, R, x, p, carried, count):
    """Up for eight features and some columns. What later pieces have collected is `carried`."""
    for k in range(leaves.size):
        copy_rows(carried, _PAIR * k, R, _NODE * leaves[k], 2 * count)
    for i in range(E.size - 1, -1, -1):
        if position[i] >= 0 or i < is_open:
            _collected(E, first[i], first[i + 1], R, x, p, i, count)


@njit(nogil=True, cache=True)
def _down(first, leaves, roots, is_open, E, R, x, p, dx, left, carried, count):
    """Down for the same. What earlier pieces leave to children of open nodes is `left`, and to later ones carried."""
    n = E.size
    for c in range(_PAIR):  # above a root there is nothing
        set_row(R, _NODE * n + c, zero(R))
    for i in range(is_open, roots):
        _child(0.0, _NODE * n, R, x, p, dx, i, count)
    for i in range(is_open):
        copy_rows(left, _PAIR * i, R, _NODE * i, 2 * count)
    for i in range(n):
        begin, end = first[i], first[i + 1]
        if end == begin + 2:
            _two_share(E[begin], E[begin + 1], begin, i, _NODE * n, R, count)
        elif end > begin + 2:
            _shared_out(E, begin, end, i, _NODE * n, R, count)
        for j in range(begin, end):
            _child(E[j], _NODE * (i if end == begin + 1 else n + j - begin), R, x, p, dx, j, count)
    for k in range(leaves.size):
        copy_rows(R, _NODE * leaves[k], carried, _PAIR * k, 2 * count)


@njit(nogil=True, cache=True)
def _features(position, order, F, G, a, R):
    """Eight features from a on into the rows of a piece, and zero gradients."""
    for i in range(position.size):
        for q in range(LANES):
            inside = position[i] >= 0 and a + q < F.shape[1]
            node = order[position[i]] if inside else 0
            R[_NODE * i + _F, q], R[_NODE * i + _G, q] = (F[node, a + q], G[node, a + q]) if inside else (0.0, 0.0)
        set_row(R, _NODE * i + _TO_F, zero(R))
        set_row(R, _NODE * i + _TO_G, zero(R))


@njit(nogil=True, cache=True)
def _of_features(position, order, R, a, dF, dG):
    """Gradients of the same in the caller's order."""
    for i in range(position.size):
        if position[i] >= 0:
            node = order[position[i]]
            for q in range(min(LANES, dF.shape[1] - a)):
                dF[node, a + q], dG[node, a + q] = R[_NODE * i + _TO_F, q], R[_NODE * i + _TO_G, q]


@njit(nogil=True, cache=True)
def _of_columns(position, order, roots, R, dx, begin, end, dX, dE):
    """Gradients of some columns in the caller's order, and of factors."""
    for i in range(position.size):
        if position[i] >= 0:
            for c in range(end - begin):
                dX[order[position[i]], begin + c] = dx[c // _COLUMNS, i, c % _COLUMNS]
            dE[position[i]] = total_of(row(R, _NODE * i + _TO_E)) if i >= roots else 0.0


@njit(nogil=True, cache=True)
def _piece(pieces, b, down, order, E, F, G, P, X, columns, features, e, R, fields, carries, dF, dG, dX, dE):
    """A piece up, keeping what its open nodes collect, or up and down."""
    position, first, leaves, roots, is_open = piece_of(pieces, b)
    n, (begin, end) = position.size, columns
    x, p, dx = fields[0, :, :n], fields[1, :, :n], fields[2, :, :n]
    factors_of(position, roots, E, e)
    by_piece(position, order, X, begin, end, x)
    by_piece(position, order, P, begin, end, p)
    if down:
        dx[:] = 0.0
        for i in range(n):
            set_row(R, _NODE * i + _TO_E, zero(R))
    for block in range(features[0], features[1]):
        _features(position, order, F, G, block * LANES, R)
        for c in range(fields.shape[1]):
            own, width = carries[block - features[0], c], min(_COLUMNS, end - begin - c * _COLUMNS)
            here, later = own[_PAIR * pieces.opens[b] :], own[_PAIR * pieces.opens[b + 1] :]
            _up(position, first, leaves, is_open, e[:n], R, x[c], p[c], later, width)
            if down:
                _down(first, leaves, roots, is_open, e[:n], R, x[c], p[c], dx[c], here, later, width)
            else:
                for i in range(is_open):
                    copy_rows(R, _NODE * i, here, _PAIR * i, 2 * width)
        if down:
            _of_features(position, order, R, block * LANES, dF, dG)
    if down:
        _of_columns(position, order, roots, R, dx, begin, end, dX, dE)


@njit(nogil=True, cache=True)
def _task(pieces, order, E, F, G, P, X, columns, features, e, R, fields, carries, dF, dG, dX, dE):
    """Some columns and some blocks of features; `carries` has rows for each block, group of columns and open node."""
    count = pieces.roots.size
    for b in range(count - 1, 0, -1):
        _piece(pieces, b, False, order, E, F, G, P, X, columns, features, e, R, fields, carries, dF, dG, dX, dE)
    for b in range(count):
        _piece(pieces, b, True, order, E, F, G, P, X, columns, features, e, R, fields, carries, dF, dG, dX, dE)


def _pullback(pieces, order, E, F, G, P, X, factors, scratch, fields, carries, dF, dG, dX, dE):
    """Tasks are (head, share of the columns, part of the features), each with totals of its own."""
    groups, blocks = -(-X.shape[2] // _COLUMNS), -(-F.shape[2] // LANES)
    shares, parts, workers = dF.shape[1], dX.shape[1], scratch.shape[0]
    tasks = X.shape[0] * shares * parts
    for worker in prange(workers):
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, share, part = task // (shares * parts), task // parts % shares, task % parts
            a, b = groups * share // shares, groups * (share + 1) // shares
            columns, own = (a * _COLUMNS, min(X.shape[2], b * _COLUMNS)), E[h if E.shape[0] > 1 else 0]
            features = blocks * part // parts, blocks * (part + 1) // parts
            _task(
                pieces, order, own, F[h], G[h], P[h], X[h], columns, features, factors[worker], scratch[worker],
                fields[worker, :, : b - a], carries[worker], dF[h, share], dG[h, share], dX[h, part],
                dE[h, share, part],
            )  # fmt: skip


_pullback_serial, _pullback_parallel = serial_and_parallel(_pullback)


def tree_hadamard_pullback(
    pieces: Pieces, order: np.ndarray, E: np.ndarray, F: np.ndarray, G: np.ndarray, P: np.ndarray, X: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients for F, G (B, n, r) and X (B, n, k) in the caller's order, and for the factors (B, n) by position.

    E (1 or B, n) are real factors by position; F, G, P, X are of one dtype, and all is computed in double precision.
    O(B n r k) operations, O(n (r + k)) memory for each of B and of the threads.
    """
    (B, n, k), r = X.shape, F.shape[2]
    blocks, groups = -(-r // LANES), -(-k // _COLUMNS)
    threads = 1 if r * X.size < SERIAL_WORK else get_num_threads()
    parts = min(blocks, -(-threads // B))
    shares = min(groups, -(-threads // (B * parts)))
    workers = min(threads, B * parts * shares)
    dF, dG = (np.empty((B, shares, n, r), F.dtype) for _ in range(2))
    dX, dE = np.empty((B, parts, n, k), X.dtype), np.empty((B, shares, parts, n))
    largest, family = int(np.diff(pieces.start).max()), max(1, int(np.diff(pieces.first).max(initial=0)))
    own = -(-groups // shares)
    rows, fields = (workers, _NODE * (largest + family), LANES), (workers, 3, own, largest, _COLUMNS)
    carries = workers, -(-blocks // parts), own, (int(pieces.opens[-1]) + 1) * _PAIR, LANES
    run = _pullback_serial if workers == 1 else _pullback_parallel
    with borrowed_arrays(np.dtype(np.float64), ((workers, largest), rows, fields, carries)) as scratch:
        run(pieces, order, E, F, G, P, X, *scratch, dF, dG, dX, dE)
    return (*(_summed(d) for d in (dF, dG, dX)), dE.sum(axis=(1, 2)))


def _summed(gradient: np.ndarray) -> np.ndarray:
    """Parts added up."""
    return gradient[:, 0] if gradient.shape[1] == 1 else gradient.sum(axis=1)
