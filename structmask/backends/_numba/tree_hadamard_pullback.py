"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in one pass over features.

For a feature r and eight columns, A sums g_r X at and below each node, Q all else of its tree as the parent sees it; B
and W do so with f_r P. With a = A + e Q and b = B + e W, all gradients add up at once: that of F_r is <P, a>, of G_r
<X, b>, of X g_r b, and of the factor e of an edge <B, Q> + <W, A>. As factors are no larger than 1, the way down may
take the node's own part away from the parent's, as in the product: Q = a_parent - e A.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_hadamard import SERIAL_WORK


@njit(nogil=True, cache=True, fastmath={"contract"})
def _up(E, first, f, g, X, P, A, B, i):
    """A[i] = g X[i] + sum of e A over the children, and B[i] from f and P."""
    x, p = X[i], P[i]
    s0, s1, s2, s3, s4, s5, s6, s7 = (
        g * x[0], g * x[1], g * x[2], g * x[3], g * x[4], g * x[5], g * x[6], g * x[7],
    )  # fmt: skip
    t0, t1, t2, t3, t4, t5, t6, t7 = (
        f * p[0], f * p[1], f * p[2], f * p[3], f * p[4], f * p[5], f * p[6], f * p[7],
    )  # fmt: skip
    for j in range(first[i], first[i + 1]):
        e, a, b = E[j], A[j], B[j]
        s0, s1, s2, s3 = s0 + e * a[0], s1 + e * a[1], s2 + e * a[2], s3 + e * a[3]
        s4, s5, s6, s7 = s4 + e * a[4], s5 + e * a[5], s6 + e * a[6], s7 + e * a[7]
        t0, t1, t2, t3 = t0 + e * b[0], t1 + e * b[1], t2 + e * b[2], t3 + e * b[3]
        t4, t5, t6, t7 = t4 + e * b[4], t5 + e * b[5], t6 + e * b[6], t7 + e * b[7]
    a, b = A[i], B[i]
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7] = s0, s1, s2, s3, s4, s5, s6, s7
    b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7] = t0, t1, t2, t3, t4, t5, t6, t7


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _down(e, g, X, P, A, B, Y, i, p):
    """A[i] = e A[p] + (1 - e^2) A[i], B[i] so too, then Y[i] += g B[i]; returns <P, A>, <X, B> and <B, Q> + <W, A>."""
    q, s, t, u, v = 1 - e * e, A[i], A[p], B[i], B[p]
    s0, s1, s2, s3, s4, s5, s6, s7 = s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
    t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
    u0, u1, u2, u3, u4, u5, u6, u7 = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
    v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    d = 2 * e
    across = (
        (u0 * (t0 - d * s0) + v0 * s0)
        + (u1 * (t1 - d * s1) + v1 * s1)
        + (u2 * (t2 - d * s2) + v2 * s2)
        + (u3 * (t3 - d * s3) + v3 * s3)
        + (u4 * (t4 - d * s4) + v4 * s4)
        + (u5 * (t5 - d * s5) + v5 * s5)
        + (u6 * (t6 - d * s6) + v6 * s6)
        + (u7 * (t7 - d * s7) + v7 * s7)
    )
    a0, a1, a2, a3, a4, a5, a6, a7 = (
        e * t0 + q * s0,
        e * t1 + q * s1,
        e * t2 + q * s2,
        e * t3 + q * s3,
        e * t4 + q * s4,
        e * t5 + q * s5,
        e * t6 + q * s6,
        e * t7 + q * s7,
    )
    b0, b1, b2, b3, b4, b5, b6, b7 = (
        e * v0 + q * u0,
        e * v1 + q * u1,
        e * v2 + q * u2,
        e * v3 + q * u3,
        e * v4 + q * u4,
        e * v5 + q * u5,
        e * v6 + q * u6,
        e * v7 + q * u7,
    )
    x, z, y = X[i], P[i], Y[i]
    of_f = z[0] * a0 + z[1] * a1 + z[2] * a2 + z[3] * a3 + z[4] * a4 + z[5] * a5 + z[6] * a6 + z[7] * a7
    of_g = x[0] * b0 + x[1] * b1 + x[2] * b2 + x[3] * b3 + x[4] * b4 + x[5] * b5 + x[6] * b6 + x[7] * b7
    y0, y1, y2, y3, y4, y5, y6, y7 = (
        y[0] + g * b0,
        y[1] + g * b1,
        y[2] + g * b2,
        y[3] + g * b3,
        y[4] + g * b4,
        y[5] + g * b5,
        y[6] + g * b6,
        y[7] + g * b7,
    )
    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = a0, a1, a2, a3, a4, a5, a6, a7
    u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7] = b0, b1, b2, b3, b4, b5, b6, b7
    y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = y0, y1, y2, y3, y4, y5, y6, y7
    return of_f, of_g, across


@njit(nogil=True, cache=True)
def _one_feature(up, first, roots, E, f, g, X, P, A, B, dX, dF, dG, dE):
    """Add what a feature gives."""
    for i in range(E.size - 1, -1, -1):
        _up(E, first, f[i], g[i], X, P, A, B, i)
    for i in range(E.size):
        of_f, of_g, across = _down(E[i], g[i], X, P, A, B, dX, i, np.uint64(up[i]))
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
