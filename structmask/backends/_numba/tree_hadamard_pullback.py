"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in one pass over features.

For a feature r and eight columns, A sums g_r X at and below each node, Q all else of its tree as the parent sees it; B
and W do so with f_r P. With a = A + e Q and b = B + e W, all gradients add up at once: that of F_r is <P, a>, of G_r
<X, b>, of X g_r b, and of the factor e of an edge <B, Q> + <W, A>.
Nothing is subtracted: Q adds up what comes through the parent and through earlier and later siblings. On the way down
it takes the place of A: a node leaves to its children its own row and what comes from above.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, row, set_row
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_hadamard import SERIAL_WORK
from structmask.backends._numba.vectors import axpy, inner, scaled


@njit(nogil=True, cache=True)
def _up(E, first, f, g, X, P, A, B, i):
    """A[i] = g X[i] + sum of e A over the children, and B[i] from f and P."""
    s, t = scaled(g, row(X, i)), scaled(f, row(P, i))
    for j in range(first[i], first[i + 1]):
        s, t = axpy(E[j], row(A, j), s), axpy(E[j], row(B, j), t)
    set_row(A, i, s)
    set_row(B, i, t)


@njit(nogil=True, cache=True)
def _node(e, f, g, X, P, A, B, q, w, Y, i):
    """Y[i] += g b, and rows for the children in A and B; returns <P, a>, <X, b> and <B, Q> + <W, A>."""
    s, u, x, p = row(A, i), row(B, i), row(X, i), row(P, i)
    a, b = axpy(e, q, s), axpy(e, w, u)
    set_row(A, i, axpy(e, q, scaled(g, x)))
    set_row(B, i, axpy(e, w, scaled(f, p)))
    set_row(Y, i, axpy(g, b, row(Y, i)))
    return inner(p, a), inner(x, b), inner(u, q) + inner(s, w)


@njit(nogil=True, cache=True)
def _family(E, begin, end, f, g, X, P, A, B, above, later, Y, of_f, of_g, of_e):
    """The children begin ... end - 1 of a node, whose rows for them are at `above`."""
    s, t = row(A, above), row(B, above)
    for j in range(end - 1, begin - 1, -1):
        set_row(later, 2 * (j - begin), s)
        set_row(later, 2 * (j - begin) + 1, t)
        s, t = axpy(E[j], row(A, j), s), axpy(E[j], row(B, j), t)
    s, t = scaled(0.0, s), scaled(0.0, t)
    for j in range(begin, end):
        q, w = axpy(1.0, s, row(later, 2 * (j - begin))), axpy(1.0, t, row(later, 2 * (j - begin) + 1))
        s, t = axpy(E[j], row(A, j), s), axpy(E[j], row(B, j), t)
        pa, xb, across = _node(E[j], f[j], g[j], X, P, A, B, q, w, Y, j)
        of_f[j] += pa
        of_g[j] += xb
        of_e[j] += across


@njit(nogil=True, cache=True)
def _one_feature(first, roots, E, f, g, X, P, A, B, later, dX, dF, dG, dE):
    """Add what a feature gives."""
    for i in range(E.size - 1, -1, -1):
        _up(E, first, f[i], g[i], X, P, A, B, i)
    for i in range(roots):
        nothing = scaled(0.0, row(A, i))
        pa, xb, _ = _node(0.0, f[i], g[i], X, P, A, B, nothing, nothing, dX, i)
        dF[i] += pa
        dG[i] += xb
    for i in range(E.size):
        if first[i] < first[i + 1]:
            _family(E, first[i], first[i + 1], f, g, X, P, A, B, i, later, dX, dF, dG, dE)


def _pullback(order, first, roots, E, F, G, P, X, scratch, dX, dF, dG, dE):
    """Tasks are (head, part): a part has every so-manieth block of eight columns, and totals of its own."""
    n, parts, workers = order.size, dF.shape[1], scratch.shape[0]
    tasks = dF.shape[0] * parts
    for worker in prange(workers):
        S = scratch[worker]
        x, p, t, A, B, later = S[:n], S[n : 2 * n], S[2 * n : 3 * n], S[3 * n : 4 * n], S[4 * n : 5 * n], S[5 * n :]
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            h, part = task // parts, task % parts
            e = E[h if E.shape[0] > 1 else 0]
            for b in range(part * LANES, X.shape[2], parts * LANES):
                width = min(LANES, X.shape[2] - b)
                t[:] = 0
                for i in range(n):
                    for c in range(LANES):
                        x[i, c] = X[h, order[i], b + c] if c < width else 0.0
                        p[i, c] = P[h, order[i], b + c] if c < width else 0.0
                for r in range(F.shape[1]):
                    of_f, of_g, of_e = dF[h, part, r], dG[h, part, r], dE[h, part]
                    _one_feature(first, roots, e, F[h, r], G[h, r], x, p, A, B, later, t, of_f, of_g, of_e)
                for i in range(n):
                    for c in range(width):
                        dX[h, order[i], b + c] = t[i, c]


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
    """Gradients for F and G (B, r, n), by position, for X (B, n, k), and for the factors (B, n), by position.

    F, G (B, r, n) are features by position, E (1 or B, n) real factors, all in double precision; P, X (B, n, k) of one
    dtype are in the caller's order. O(B n r k) operations, O(n (r + k)) memory for each of B and of the threads.
    """
    (B, r, n), blocks = F.shape, -(-X.shape[2] // LANES)
    threads = 1 if r * X.size < SERIAL_WORK else get_num_threads()
    parts = 1 if threads <= B else min(blocks, -(-threads // B))
    workers = min(threads, B * parts)
    dX, dF, dG, dE = np.empty_like(X), np.zeros((B, parts, r, n)), np.zeros((B, parts, r, n)), np.zeros((B, parts, n))
    run = _pullback_serial if workers == 1 else _pullback_parallel
    rows = 5 * n + 2 * int(np.diff(first).max(initial=0))
    with borrowed(workers * rows * LANES, np.dtype(np.float64)) as buffer:
        run(order, first, roots, E, F, G, P, X, buffer.reshape(workers, rows, LANES), dX, dF, dG, dE)
    return dF.sum(axis=1), dG.sum(axis=1), dX, dE.sum(axis=1)
