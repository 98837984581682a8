"""Elimination without subtractions of diag(A 1 + leak) - A, entries A >= 0 off the diagonal and leaks >= 0.

Eliminating node k sends what flows into it on to where it flows, A_ij += A_ik A_kj / s_k, leak_i += A_ik leak_k / s_k
with the pivot s_k = sum_j A_kj + leak_k over what is left. The factors are (I - lower) diag(pivots) (I - upper).
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

SERIAL_WORK = 1_000_000  # multiplications below which one thread is faster than waking others

compiled = njit(nogil=True, cache=True)


@compiled
def eliminate(indptr, pattern, rows, columns, leak, kept):
    """Multipliers (lower, upper) on a pattern of later neighbours, and pivots.

    `rows` and `columns` are the CSR parts of A and its transpose in the order of elimination. What falls outside the
    pattern is dropped; a share `kept` of it stays in the pivot.
    """
    n = leak.size
    lower, upper = np.empty(pattern.size), np.empty(pattern.size)
    pivots, leak = np.empty(n), leak.copy()
    row, column, mark = np.zeros(n), np.zeros(n), np.full(n, -1, np.int64)
    head, link, place = np.full(n, -1, np.int64), np.full(n, -1, np.int64), indptr[:-1].copy()
    for k in range(n):
        begin, end = indptr[k], indptr[k + 1]
        for e in range(begin, end):
            mark[pattern[e]] = k
            row[pattern[e]] = column[pattern[e]] = 0.0
        dropped = _load(k, rows, row, mark)
        _load(k, columns, column, mark)
        p = head[k]  # earlier nodes whose next neighbour is k
        while p >= 0:
            following, e = link[p], place[p]
            into, out = lower[e] * pivots[p], upper[e] * pivots[p]
            leak[k] += lower[e] * leak[p]
            for q in range(e + 1, indptr[p + 1]):
                j = pattern[q]
                if mark[j] == k:
                    row[j] += into * upper[q]
                    column[j] += lower[q] * out
                else:
                    dropped += into * upper[q]
            _advance(p, place, indptr, pattern, head, link)
            p = following
        pivot = leak[k] + kept * dropped
        for e in range(begin, end):
            pivot += row[pattern[e]]
        pivot = pivot if pivot > 0 else (dropped if dropped > 0 else 1.0)
        pivots[k] = pivot
        for e in range(begin, end):
            upper[e] = row[pattern[e]] / pivot
            lower[e] = column[pattern[e]] / pivot
        _advance(k, place, indptr, pattern, head, link, True)
    return lower, upper, pivots


@compiled
def _load(k, part, target, mark):
    """Entries of row k beyond k into a dense row; returns the sum of those outside the pattern."""
    indptr, indices, data = part
    dropped = 0.0
    for e in range(indptr[k], indptr[k + 1]):
        j = indices[e]
        if j > k:
            if mark[j] == k:
                target[j] += data[e]
            else:
                dropped += data[e]
    return dropped


@compiled
def _advance(p, place, indptr, pattern, head, link, is_new=False):
    """Hand node p to its next later neighbour."""
    if not is_new:
        place[p] += 1
    if place[p] < indptr[p + 1]:
        j = pattern[place[p]]
        link[p], head[j] = head[j], p


def substitute(
    indptr: np.ndarray,
    pattern: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    pivots: np.ndarray,
    X: np.ndarray,
) -> None:
    """The solution (n, k) by both triangular factors, in the order of elimination, written over X.

    Multipliers (lower, upper) solve with the matrix, (upper, lower) with its transpose.
    """
    k = X.shape[1]
    if k == 1:
        substitute_one(indptr, pattern, forward, backward, pivots, X[:, 0])
    elif pattern.size * k < SERIAL_WORK:
        _substitute(indptr, pattern, forward, backward, pivots, X, 0, k)
    else:
        _substitute_strips(indptr, pattern, forward, backward, pivots, X, min(k, 2 * get_num_threads()))


@compiled
def _substitute(indptr, pattern, forward, backward, pivots, X, first, last):
    n = pivots.size
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            j, a = pattern[e], forward[e]
            for c in range(first, last):
                X[j, c] += a * X[i, c]
    for i in range(n - 1, -1, -1):
        for c in range(first, last):
            X[i, c] /= pivots[i]
        for e in range(indptr[i], indptr[i + 1]):
            j, a = pattern[e], backward[e]
            for c in range(first, last):
                X[i, c] += a * X[j, c]


@compiled
def substitute_one(indptr, pattern, forward, backward, pivots, x):
    """As `substitute`, for one right-hand side (n,)."""
    n = pivots.size
    for i in range(n):
        value = x[i]
        for e in range(indptr[i], indptr[i + 1]):
            x[pattern[e]] += forward[e] * value
    for i in range(n - 1, -1, -1):
        value = x[i] / pivots[i]
        for e in range(indptr[i], indptr[i + 1]):
            value += backward[e] * x[pattern[e]]
        x[i] = value


@parallel
def _substitute_strips(indptr, pattern, forward, backward, pivots, X, strips):
    k = X.shape[1]
    for s in prange(strips):
        _substitute(indptr, pattern, forward, backward, pivots, X, k * s // strips, k * (s + 1) // strips)


@compiled
def inverse_diagonal(indptr, pattern, lower, upper, pivots):
    """Diagonal of the inverse Z, from Z_ij = sum_k upper_ik Z_kj and its mirror, last node first, on the pattern only.

    The later neighbours of a node are neighbours of each other (or dropped by nobody: the pattern must be complete).
    """
    n = pivots.size
    diagonal = np.empty(n)
    right, below = np.zeros(pattern.size), np.zeros(pattern.size)  # Z_kj and Z_jk for the later neighbours j of k
    for k in range(n - 1, -1, -1):
        begin, end = indptr[k], indptr[k + 1]
        total = 1.0 / pivots[k]
        for e in range(begin, end):
            i = pattern[e]
            right[e] += upper[e] * diagonal[i]
            below[e] += lower[e] * diagonal[i]
            q = indptr[i]
            for f in range(e + 1, end):  # Z_ij and Z_ji for later neighbours i < j of k
                j = pattern[f]
                while pattern[q] < j:
                    q += 1
                right[f] += upper[e] * right[q]
                right[e] += upper[f] * below[q]
                below[f] += lower[e] * below[q]
                below[e] += lower[f] * right[q]
        for e in range(begin, end):
            total += upper[e] * below[e]
        diagonal[k] = total
    return diagonal
