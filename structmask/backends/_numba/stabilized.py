"""Van der Vorst's stabilised biconjugate gradients for one right-hand side and any matrix, in one kernel."""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.elimination import substitute_one

fast = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})


@fast
def stabilized(matrix, factor, b, x, weight, tol, limit):
    """Improve x until max_i |b - A x|_i weight_i <= tol; returns the steps taken, two products each, and that residual.

    `matrix` is the CSR form of A, diagonal included; `factor` (indptr, pattern, forward, backward, pivots) of a
    preconditioner, one without entries for the diagonal alone. It stops early where a scalar product vanishes.
    """
    n = b.size
    r, p, v, y, z, t = np.empty(n), np.zeros(n), np.zeros(n), np.empty(n), np.empty(n), np.empty(n)
    _product(matrix, x, t)
    for i in range(n):
        r[i] = b[i] - t[i]
    shadow, rho, alpha, omega = r.copy(), 1.0, 1.0, 1.0
    size, steps = _weighted(r, weight), 0
    while size > tol and steps < limit:
        following = _dot(shadow, r)
        if following == 0 or omega == 0:
            break
        beta, rho = (following / rho) * (alpha / omega), following
        for i in range(n):
            p[i] = r[i] + beta * (p[i] - omega * v[i])
            y[i] = p[i]
        substitute_one(*factor, y)
        _product(matrix, y, v)
        denominator = _dot(shadow, v)
        if denominator == 0:
            break
        alpha = rho / denominator
        for i in range(n):
            r[i] -= alpha * v[i]
            z[i] = r[i]
        substitute_one(*factor, z)
        _product(matrix, z, t)
        square = _dot(t, t)
        omega = _dot(t, r) / square if square > 0 else 0.0
        for i in range(n):
            x[i] += alpha * y[i] + omega * z[i]
            r[i] -= omega * t[i]
        size = _weighted(r, weight)
        steps += 1
    return steps, size


@fast
def _product(matrix, x, y):
    indptr, indices, data = matrix
    for i in range(y.size):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            total += data[e] * x[indices[e]]
        y[i] = total


@fast
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(nogil=True, cache=True)
def _weighted(r, weight):
    """Largest weighted entry; infinite where the recurrence has broken down."""
    size = 0.0
    for i in range(r.size):
        value = abs(r[i]) * weight[i]
        if not value < np.inf:
            return np.inf
        size = max(size, value)
    return size
