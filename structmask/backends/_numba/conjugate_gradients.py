"""Preconditioned conjugate gradients for one right-hand side, in one kernel: a step is a few passes over memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.elimination import substitute_one

fast = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})


@fast
def conjugate_gradients(matrix, factor, b, x, weight, tol, limit, give_up):  # noqa: C901, PLR0912  one recurrence, its loops fused
    """Improve x until max_i |b - S x|_i weight_i <= tol; returns the steps taken and the last such residual.

    `matrix` is the CSR form of S, diagonal included; `factor` (indptr, pattern, multipliers, pivots) of a symmetric
    elimination, one without entries for the diagonal alone. After 40 steps, and every 20 from then on, the rate so far
    tells how many are left: more than `give_up`, and it stops.
    """
    indptr, indices, data = matrix
    ends, pattern, multipliers, pivots = factor
    n = b.size
    r, z, p, q = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        total = b[i]
        for e in range(indptr[i], indptr[i + 1]):
            total -= data[e] * x[indices[e]]
        r[i] = z[i] = total
    size, steps, energy = _weighted(r, weight), 0, 1.0
    history = np.empty(limit + 1)
    history[0] = size
    while size > tol and steps < limit:
        if steps > 0:
            for i in range(n):
                z[i] = r[i]
        substitute_one(ends, pattern, multipliers, multipliers, pivots, z)
        before, energy = energy, 0.0
        for i in range(n):
            energy += r[i] * z[i]
        if not energy > 0:
            break
        ratio = energy / before if steps > 0 else 0.0
        for i in range(n):
            p[i] = z[i] + ratio * p[i] if steps > 0 else z[i]
        curvature = 0.0
        for i in range(n):
            total = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                total += data[e] * p[indices[e]]
            q[i] = total
            curvature += p[i] * total
        if not curvature > 0:
            break
        step, size = energy / curvature, 0.0
        for i in range(n):
            x[i] += step * p[i]
            r[i] -= step * q[i]
            size = max(size, abs(r[i]) * weight[i])
        steps += 1
        history[steps] = size
        if steps % 20 == 0 and steps >= 40 and _left(history, steps, tol) > give_up:
            break
    return steps, size


@fast
def _weighted(r, weight):
    size = 0.0
    for i in range(r.size):
        size = max(size, abs(r[i]) * weight[i])
    return size


@fast
def _left(history, steps, tol):
    """Steps that are left at the rate of the second half."""
    if history[steps] <= tol:
        return 0.0
    half = steps // 2
    rate = (np.log(history[half]) - np.log(history[steps])) / (steps - half)
    return np.log(history[steps] / tol) / max(rate, 1e-4)
