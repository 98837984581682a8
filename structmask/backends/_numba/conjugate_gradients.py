"""Preconditioned conjugate gradients for one right-hand side, in one kernel: a step is a few passes over memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.elimination import substitute_one

fast = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})


@fast
def conjugate_gradients(network, preconditioner, b, x, weight, tol, limit, trial, give_up):
    """Improve x until max_i |b - S x|_i weight_i <= tol; returns the steps taken and the last such residual.

    `network` are the CSR arrays of C and the diagonal of S = diag(diagonal) - C; `preconditioner` a share of the
    inverse diagonal, and (place, indptr, pattern, multipliers, pivots): the place of each node in a symmetric
    elimination, that of its aggregate, empty without one. From `trial` steps on the rate so far tells, now and then,
    how many are left: more than `give_up`, and it stops.
    """
    n = b.size
    r, z, p, q = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    _product(network, x, q)
    size, steps, energy = 0.0, 0, 1.0
    for i in range(n):
        r[i] = b[i] - q[i]
        size = max(size, abs(r[i]) * weight[i])
    sums, history = np.empty(preconditioner[-1].size), np.empty(limit + 1)
    history[0] = size
    while size > tol and steps < limit:
        before, energy = energy, _preconditioned(preconditioner, network[3], r, z, sums)
        if not energy > 0:
            break
        ratio = energy / before
        for i in range(n):
            p[i] = z[i] + ratio * p[i] if steps > 0 else z[i]
        curvature = _product(network, p, q)
        if not curvature > 0:
            break
        step, size = energy / curvature, 0.0
        for i in range(n):
            x[i] += step * p[i]
            r[i] -= step * q[i]
            size = max(size, abs(r[i]) * weight[i])
        steps += 1
        history[steps] = size
        if steps >= trial and steps % 8 == 0 and _left(history, steps, tol) > give_up:
            break
    return steps, size


@fast
def _product(network, x, y):
    """Y = S x, and <x, y>."""
    indptr, indices, data, diagonal = network
    energy = 0.0
    for i in range(x.size):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            total += data[e] * x[indices[e]]
        y[i] = diagonal[i] * x[i] - total
        energy += x[i] * y[i]
    return energy


@fast
def _preconditioned(preconditioner, diagonal, r, z, sums):
    """Z = share diag^-1 r + P M^-1 P^T r, where P^T sums over aggregates, and <r, z>."""
    share, place, ends, pattern, multipliers, pivots = preconditioner
    energy = 0.0
    if place.size == 0:
        for i in range(r.size):
            z[i] = share * r[i] / diagonal[i]
            energy += r[i] * z[i]
        return energy
    sums[:] = 0.0
    for i in range(r.size):
        sums[place[i]] += r[i]
    substitute_one(ends, pattern, multipliers, multipliers, pivots, sums)
    for i in range(r.size):
        z[i] = share * r[i] / diagonal[i] + sums[place[i]]
        energy += r[i] * z[i]
    return energy


@fast
def _left(history, steps, tol):
    """Steps that are left at the rate of the second half."""
    if history[steps] <= tol:
        return 0.0
    half = steps // 2
    rate = (np.log(history[half]) - np.log(history[steps])) / (steps - half)
    return np.log(history[steps] / tol) / max(rate, 1e-4)
