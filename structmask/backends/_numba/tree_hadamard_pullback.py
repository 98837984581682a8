"""All gradients of <P, (M * F G^T) X> for the decay mask M of a forest, in one pass over features.

For a feature r and eight columns, A sums g_r X at and below each node, Q all else of its tree as the parent sees it; B
and W do so with f_r P. With a = A + e Q and b = B + e W, all gradients add up at once: that of F_r is <P, a>, of G_r
<X, b>, of X g_r b, and of the factor e of an edge <B, Q> + <W, A>.
Nothing is subtracted: what comes to a node from elsewhere is added up over its siblings, the later ones on the way up,
the earlier ones on the way down.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree_hadamard import SERIAL_WORK


@njit(nogil=True, cache=True, fastmath={"contract"})
def _up(e, a, V, S, R, i, p):
    """S[i] += a V[i]; R[i] = S[p], the later siblings; S[p] += e S[i]."""
    v, s, t, r = V[i], S[i], S[p], R[i]
    s0, s1, s2, s3 = s[0] + a * v[0], s[1] + a * v[1], s[2] + a * v[2], s[3] + a * v[3]
    s4, s5, s6, s7 = s[4] + a * v[4], s[5] + a * v[5], s[6] + a * v[6], s[7] + a * v[7]
    t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = s0, s1, s2, s3, s4, s5, s6, s7
    r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7] = t0, t1, t2, t3, t4, t5, t6, t7
    t0, t1, t2, t3, t4, t5, t6, t7 = (
        t0 + e * s0, t1 + e * s1, t2 + e * s2, t3 + e * s3, t4 + e * s4, t5 + e * s5, t6 + e * s6, t7 + e * s7,
    )  # fmt: skip
    t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] = t0, t1, t2, t3, t4, t5, t6, t7


@njit(nogil=True, cache=True, fastmath={"contract"})
def _down(e, S, R, i, p):
    """R[i] += R[p], the parent's own, its elsewhere and earlier siblings; R[p] += e S[i]."""
    s, t, r = S[i], R[p], R[i]
    t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
    r0, r1, r2, r3, r4, r5, r6, r7 = (
        r[0] + t0, r[1] + t1, r[2] + t2, r[3] + t3, r[4] + t4, r[5] + t5, r[6] + t6, r[7] + t7,
    )  # fmt: skip
    t0, t1, t2, t3 = t0 + e * s[0], t1 + e * s[1], t2 + e * s[2], t3 + e * s[3]
    t4, t5, t6, t7 = t4 + e * s[4], t5 + e * s[5], t6 + e * s[6], t7 + e * s[7]
    r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7] = r0, r1, r2, r3, r4, r5, r6, r7
    t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] = t0, t1, t2, t3, t4, t5, t6, t7


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _full(e, a, V, S, R, Z, i):
    """<Z[i], S[i] + e R[i]>; then R[i] = a V[i] + e R[i], which the children begin with, and S[i] = 0."""
    total = 0.0
    for c in range(LANES):
        total += Z[i, c] * (S[i, c] + e * R[i, c])
    v, r, s = V[i], R[i], S[i]
    r0, r1, r2, r3 = a * v[0] + e * r[0], a * v[1] + e * r[1], a * v[2] + e * r[2], a * v[3] + e * r[3]
    r4, r5, r6, r7 = a * v[4] + e * r[4], a * v[5] + e * r[5], a * v[6] + e * r[6], a * v[7] + e * r[7]
    r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7] = r0, r1, r2, r3, r4, r5, r6, r7
    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    return total


@njit(nogil=True, cache=True, fastmath={"contract"})
def _add_full(e, g, S, R, Y, i):
    """Y[i] += g (S[i] + e R[i])."""
    s, r, y = S[i], R[i], Y[i]
    y0, y1 = y[0] + g * (s[0] + e * r[0]), y[1] + g * (s[1] + e * r[1])
    y2, y3 = y[2] + g * (s[2] + e * r[2]), y[3] + g * (s[3] + e * r[3])
    y4, y5 = y[4] + g * (s[4] + e * r[4]), y[5] + g * (s[5] + e * r[5])
    y6, y7 = y[6] + g * (s[6] + e * r[6]), y[7] + g * (s[7] + e * r[7])
    y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = y0, y1, y2, y3, y4, y5, y6, y7


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _across(A, Q, B, W, i):
    """Sum over columns of B Q + W A."""
    total = 0.0
    for c in range(LANES):
        total += B[i, c] * Q[i, c] + W[i, c] * A[i, c]
    return total


@njit(nogil=True, cache=True)
def _one_feature(up, roots, E, f, g, X, P, A, Q, B, W, dX, dF, dG, dE):
    """Add what a feature gives; A and B are zero before and after."""
    for i in range(E.size - 1, roots - 1, -1):
        p = np.uint64(up[i])
        _up(E[i], g[i], X, A, Q, i, p)
        _up(E[i], f[i], P, B, W, i, p)
    for i in range(roots):
        Q[i], W[i] = 0, 0
        for c in range(LANES):
            A[i, c] += g[i] * X[i, c]
            B[i, c] += f[i] * P[i, c]
    for i in range(E.size):
        if i >= roots:
            p = np.uint64(up[i])
            _down(E[i], A, Q, i, p)
            _down(E[i], B, W, i, p)
            dE[i] += _across(A, Q, B, W, i)
        _add_full(E[i], g[i], B, W, dX, i)
        dF[i] += _full(E[i], g[i], X, A, Q, P, i)
        dG[i] += _full(E[i], f[i], P, B, W, X, i)


def _pullback(order, up, roots, E, F, G, P, X, scratch, dX, dF, dG, dE):
    """Tasks are (head, part): a part has every so-manieth block of eight columns, and totals of its own."""
    n, parts, workers = order.size, dF.shape[1], scratch.shape[0]
    tasks = dF.shape[0] * parts
    for worker in prange(workers):
        S = scratch[worker]
        x, p, t = S[0], S[1], S[2]
        S[3], S[5] = 0, 0
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
                    _one_feature(up, roots, e, F[h, r], G[h, r], x, p, S[3], S[4], S[5], S[6], t, of_f, of_g, of_e)
                for i in range(n):
                    for c in range(width):
                        dX[h, order[i], b + c] = t[i, c]


_pullback_serial, _pullback_parallel = serial_and_parallel(_pullback)


def tree_hadamard_pullback(
    order: np.ndarray,
    up: np.ndarray,
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
    with borrowed(workers * 7 * n * LANES, np.dtype(np.float64)) as buffer:
        run(order, up, roots, E, F, G, P, X, buffer.reshape(workers, 7, n, LANES), dX, dF, dG, dE)
    return dF.sum(axis=1), dG.sum(axis=1), dX, dE.sum(axis=1)
