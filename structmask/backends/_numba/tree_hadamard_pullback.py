"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in the two sweeps of the product.

Rows are eight features here. For a column c, A sums X_c g at and below each node, Q all else of its tree as its parent
sees it; B and W do so with P_c f. With a = A + e Q and b = B + e W, the rows of the product itself, all gradients add
up at once: that of f is P_c a, of g X_c b, of X_c <g, b>, and of the factor e of an edge <B, Q> + <W, A>.
Nothing is subtracted: Q adds up what comes through the parent and through earlier and later siblings. On the way down
what a node leaves to its children, its own row and what comes from above, takes the place of A.

All rows of a node lie together, for a call costs as much as a row for every array that it takes.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, row, set_row
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_hadamard import SERIAL_WORK, by_position, tiles
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
def _swept(first, roots, E, R, x, p, dx, count):
    """Up and down for eight features and some columns. Above a root there is nothing."""
    n = E.size
    for i in range(n - 1, -1, -1):
        _collected(E, first[i], first[i + 1], R, x, p, i, count)
    for c in range(_PAIR):
        set_row(R, _NODE * n + c, zero(R))
    for i in range(roots):
        _child(0.0, _NODE * n, R, x, p, dx, i, count)
    for i in range(n):
        begin, end = first[i], first[i + 1]
        if end == begin + 2:
            _two_share(E[begin], E[begin + 1], begin, i, _NODE * n, R, count)
        elif end > begin + 2:
            _shared_out(E, begin, end, i, _NODE * n, R, count)
        for j in range(begin, end):
            _child(E[j], _NODE * (i if end == begin + 1 else n + j - begin), R, x, p, dx, j, count)


@njit(nogil=True, cache=True)
def _block(order, first, roots, E, F, G, a, k, x, p, R, dF, dG, dx):
    """Eight features from a on, with some blocks of columns."""
    n, r = F.shape
    width = min(LANES, r - a)
    for i in range(n):
        for q in range(LANES):
            here, there = (F[order[i], a + q], G[order[i], a + q]) if q < width else (0.0, 0.0)
            R[_NODE * i + _F, q], R[_NODE * i + _G, q] = here, there
        set_row(R, _NODE * i + _TO_F, zero(R))
        set_row(R, _NODE * i + _TO_G, zero(R))
    for b in range(x.shape[0]):
        _swept(first, roots, E, R, x[b], p[b], dx[b], min(_COLUMNS, k - b * _COLUMNS))
    for i in range(n):
        for q in range(width):
            dF[order[i], a + q], dG[order[i], a + q] = R[_NODE * i + _TO_F, q], R[_NODE * i + _TO_G, q]


@njit(nogil=True, cache=True)
def _totals(order, roots, dx, R, dX, dE):
    """Gradients of some columns in the caller's order, and of factors."""
    n, k = dX.shape
    for i in range(n):
        for c in range(k):
            dX[order[i], c] = dx[c // _COLUMNS, i, c % _COLUMNS]
        dE[i] = total_of(row(R, _NODE * i + _TO_E)) if i >= roots else 0.0


def _pullback(order, first, roots, E, F, G, P, X, p, x, scratch, dxs, dF, dG, dX, dE):
    """Tasks are (head, share of the columns, part of the features), each with totals of its own."""
    (heads, n, k), groups, blocks = X.shape, x.shape[1], -(-F.shape[2] // LANES)
    for t in prange(heads * tiles(n)):
        h, tile = t // tiles(n), t % tiles(n)
        by_position(order, P[h], tile, p[h])
        by_position(order, X[h], tile, x[h])
    shares, parts, workers = dF.shape[1], dX.shape[1], scratch.shape[0]
    tasks = heads * shares * parts
    for worker in prange(workers):
        R = scratch[worker]
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, share, part = task // (shares * parts), task // parts % shares, task % parts
            a, b = groups * share // shares, groups * (share + 1) // shares
            e, dx, begin, end = E[h if E.shape[0] > 1 else 0], dxs[worker, a:b], a * _COLUMNS, min(k, b * _COLUMNS)
            dx[:] = 0.0
            for i in range(n):
                set_row(R, _NODE * i + _TO_E, zero(R))
            for block in range(blocks * part // parts, blocks * (part + 1) // parts):
                at, to_f, to_g = block * LANES, dF[h, share], dG[h, share]
                _block(order, first, roots, e, F[h], G[h], at, end - begin, x[h, a:b], p[h, a:b], R, to_f, to_g, dx)
            _totals(order, roots, dx, R, dX[h, part, :, begin:end], dE[h, share, part])


_pullback_serial, _pullback_parallel = serial_and_parallel(_pullback)


def tree_hadamard_pullback(
    order: np.ndarray,
    first: np.ndarray,
    roots: int,
    E: np.ndarray,
    F: np.ndarray,
    G: np.ndarray,
    P: np.ndarray,
    X: np.ndarray,
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
    columns, rows = groups * n * _COLUMNS, _NODE * (n + max(1, int(np.diff(first).max(initial=0)))) * LANES
    run = _pullback_serial if workers == 1 else _pullback_parallel
    with borrowed((2 * B + workers) * columns + workers * rows, np.dtype(np.float64)) as buffer:
        scratch, rest = buffer[: workers * rows].reshape(workers, -1, LANES), buffer[workers * rows :]
        p, x = rest[: 2 * B * columns].reshape(2, B, groups, n, _COLUMNS)
        dxs = rest[2 * B * columns :].reshape(workers, groups, n, _COLUMNS)
        run(order, first, roots, E, F, G, P, X, p, x, scratch, dxs, dF, dG, dX, dE)
    return (*(_summed(d) for d in (dF, dG, dX)), dE.sum(axis=(1, 2)))


def _summed(gradient: np.ndarray) -> np.ndarray:
    """Parts added up."""
    return gradient[:, 0] if gradient.shape[1] == 1 else gradient.sum(axis=1)
