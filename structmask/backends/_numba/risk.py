"""The row test of a masked product whose rounding is absolute over a column, in two passes over its operands.

With max_c X_jc^2 for every X_jc^2 they flag too many rows rather than too few. Only where they flag any, the norms of
all pairs of columns are formed, and the rows looked at again.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

_BLOCK = 2048  # rows whose squares stay in cache
_SERIAL_WORK = 1 << 21  # entries that one thread reads in less than the time it takes to share them


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _add_norms(G, X, first, last, norms, sums):
    """Add sum_j G_jr^2 max_c X_jc^2 to norms (r) and sum_j G_jr^2 to sums (r)."""
    for j in range(first, last):
        largest = X.dtype.type(0)
        for c in range(X.shape[1]):
            largest = max(largest, X[j, c] ** 2)
        for f in range(G.shape[1]):
            square = G[j, f] ** 2
            sums[f] += square
            norms[f] += square * largest


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _add_levels(F, Y, mass, first, last, levels):
    """Add sum_i (Y_ic / |F_i|)^2 to levels (k + 1), the last for the mass."""
    k = Y.shape[1]
    for i in range(first, last):
        weight = F.dtype.type(0)
        for f in range(F.shape[1]):
            weight += F[i, f] ** 2
        inverse = 1 / weight if weight > 0 else weight
        for c in range(k):
            levels[c] += Y[i, c] ** 2 * inverse
        levels[k] += mass[i] ** 2 * inverse


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _flag(F, Y, mass, first, last, spread, spread_mass, level, level_mass, tolerance, bad):
    """Rows whose squared error, spread over features plus level over all, exceeds the tolerated part of the row."""
    for i in range(first, last):
        weight = error = error_mass = F.dtype.type(0)
        for f in range(F.shape[1]):
            square = F[i, f] ** 2
            weight += square
            error += square * spread[f]
            error_mass += square * spread_mass[f]
        largest = F.dtype.type(0)
        for c in range(Y.shape[1]):
            largest = max(largest, Y[i, c] ** 2)
        if error + weight * level > tolerance * largest or error_mass + weight * level_mass > tolerance * mass[i] ** 2:
            bad[i] = True


@njit(nogil=True, cache=True)
def _first_pass(F, G, X, Y, mass, parts, task, norms, sums, levels):
    b, part = task // parts, task % parts
    m, n = F.shape[1], G.shape[1]
    _add_norms(G[b], X[b], n * part // parts, n * (part + 1) // parts, norms[task], sums[task])
    _add_levels(F[b], Y[b], mass[b], m * part // parts, m * (part + 1) // parts, levels[task])


@parallel
def _first_parallel(F, G, X, Y, mass, parts, norms, sums, levels):
    for task in prange(F.shape[0] * parts):
        _first_pass(F, G, X, Y, mass, parts, task, norms, sums, levels)


@njit(nogil=True, cache=True)
def _first_serial(F, G, X, Y, mass, parts, norms, sums, levels):
    for task in range(F.shape[0] * parts):
        _first_pass(F, G, X, Y, mass, parts, task, norms, sums, levels)


def rows_at_risk(
    F: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    mass: np.ndarray,
    limits: tuple[float, float, float],
) -> np.ndarray:
    """Rows (heads, m) of the product Y or of its row sums that rounding may have spoilt.

    F (heads, m, r), G (heads, n, r), X (heads, n, k), Y (heads, m, k), mass (heads, m); `limits` are the unit and the
    column of the rounding and the tolerance, the estimate is that of `structmask.linalg.rounding`. What is NaN is not
    at risk.
    """
    unit, column, tolerance = limits
    (heads, m, r), k = F.shape, X.shape[2]
    serial = heads * (m + G.shape[1]) * (r + k) < _SERIAL_WORK
    parts = 1 if serial else get_num_threads()
    norms, sums = np.zeros((2, heads * parts, r), F.dtype)
    levels = np.zeros((heads * parts, k + 1), F.dtype)
    run = _first_serial if serial else _first_parallel
    run(F, G, X, Y, mass, parts, norms, sums, levels)
    largest, alone = (a.reshape(heads, parts, r).sum(axis=1) for a in (norms, sums))
    level = levels.reshape(heads, parts, k + 1).sum(axis=1) * (unit**2 / m)
    bad = np.zeros((heads, m), np.bool_)

    def flag(b: int, most: np.ndarray) -> None:
        spread, spread_mass = (_of_pairs(a) * F.dtype.type(column**2) for a in (most, alone[b]))
        of_rows = (level[b, :k].max(), level[b, k], F.dtype.type(tolerance**2))
        _flag(F[b], Y[b], mass[b], 0, m, spread, spread_mass, *of_rows, bad[b])

    for b in range(heads):
        flag(b, largest[b])
        if bad[b].any():
            bad[b] = False
            flag(b, _largest_norms(G[b], X[b]))
    return bad


def _largest_norms(G: np.ndarray, X: np.ndarray) -> np.ndarray:
    """max_c sum_j G_jr^2 X_jc^2, a block of rows at a time."""
    total = np.zeros((G.shape[1], X.shape[1]), G.dtype)
    for j in range(0, len(G), _BLOCK):
        total += np.square(G[j : j + _BLOCK]).T @ np.square(X[j : j + _BLOCK])
    return total.max(axis=1)


def _of_pairs(norms: np.ndarray) -> np.ndarray:
    """The larger of each pair of neighbours."""
    paired = norms.copy()
    even = norms.size - norms.size % 2
    paired[:even] = np.repeat(norms[:even].reshape(-1, 2).max(axis=1), 2)
    return paired
