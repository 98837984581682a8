"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in one pass over features.

For a feature r and eight columns, A sums g_r X at and below each node, Q all else of its tree as the parent sees it; B
and W do so with f_r P. With a = A + e Q and b = B + e W, all gradients add up at once: that of F_r is <P, a>, of G_r
<X, b>, of X g_r b, and of the factor e of an edge <B, Q> + <W, A>. As factors are no larger than 1, the way down may
take the node's own part away from the parent's, as in the product: Q = a_parent - e A.
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
def _down(e, g, X, P, A, B, Y, i, p):
    """A[i] = e A[p] + (1 - e^2) A[i], B[i] so too, then Y[i] += g B[i]; returns <P, A>, <X, B> and <B, Q> + <W, A>."""
    s, t, u, v = row(A, i), row(A, p), row(B, i), row(B, p)
    across = inner(u, axpy(-e, s, t)) + inner(s, axpy(-e, u, v))
    s, u = axpy(e, t, scaled(1 - e * e, s)), axpy(e, v, scaled(1 - e * e, u))
    set_row(A, i, s)
    set_row(B, i, u)
    set_row(Y, i, axpy(g, u, row(Y, i)))
    return inner(row(P, i), s), inner(row(X, i), u), across


@njit(nogil=True, cache=True)
def _one_feature(up, first, roots, E, f, g, X, P, A, B, dX, dF, dG, dE):
    """Add what a feature gives."""
    for i in range(E.size - 1, -1, -1):
        _up(E, first, f[i], g[i], X, P, A, B, i)
    for i in range(E.size):
        of_f, of_g, across = _down(E[i], g[i], X, P, A, B, dX, i, up[i])
        dF[i] += of_f
        dG[i] += of_g
        if i >= roots:
            dE[i] += across


def _pullback(order, up, first, roots, E, F, G, P, X, scratch, dX, dF, dG, dE):
    """Tasks are (head, part): a part has every so-manieth block of eight columns, and totals of its own."""
    n, parts, workers = order.size, dF.shape[1], scratch.shape[0]
    tasks = dF.shape[0] * parts
    for worker in prange(workers):
        S = scratch[worker]
        x, p, t = S[0], S[1], S[2]
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
                    _one_feature(up, first, roots, e, F[h, r], G[h, r], x, p, S[3], S[4], t, of_f, of_g, of_e)
                for i in range(n):
                    for c in range(width):
                        dX[h, order[i], b + c] = t[i, c]


_pullback_serial, _pullback_parallel = serial_and_parallel(_pullback)


def tree_hadamard_pullback(
    order: np.ndarray,
    up: np.ndarray,
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
    with borrowed(workers * 5 * n * LANES, np.dtype(np.float64)) as buffer:
        run(order, up, first, roots, E, F, G, P, X, buffer.reshape(workers, 5, n, LANES), dX, dF, dG, dE)
    return dF.sum(axis=1), dG.sum(axis=1), dX, dE.sum(axis=1)
