"""How a weighted sum over pairs of nodes changes with lengths of edges: a polynomial times an exponential of distances.

In the power series of `tree_jets`, A sums X at and below each node, Q all else of its tree as the parent sees it; B
and W do so with G. The coefficient of t^q of E (<B, Q> + <W, A>), E the factor of the edge, is the sum over the pairs
across it of d^q exp(-a d) (<G_i, X_j> + <G_j, X_i>) / q!. Nothing is subtracted: Q adds up what comes through the
parent and through earlier and later siblings.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.lanes import LANES, add_multiple, copy_row, dot, to_lanes
from structmask.backends._numba.scratch import borrowed
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.tree import SERIAL_SIZE
from structmask.backends._numba.tree_jets import add_product, series


@njit(nogil=True, cache=True)
def _own(X, i, A, m):
    """The series of a node by itself: X[i], and no powers of t."""
    copy_row(X, i, A, i * m)
    A[i * m + 1 : (i + 1) * m] = 0


@njit(nogil=True, cache=True)
def _below(up, roots, e, lengths, X, E, A):
    """A, for all nodes."""
    for i in range(e.size):
        _own(X, i, A, E.size)
    for i in range(e.size - 1, roots - 1, -1):
        series(e[i], lengths[i], E)
        add_product(E, A, i * E.size, A, up[i] * E.size)


@njit(nogil=True, cache=True)
def _elsewhere(above, begin, end, e, lengths, E, A, run, Q):
    """Q of the children begin ... end - 1 of a node, whose own series with what comes from above it stands in A."""
    m = E.size
    for q in range(m):
        copy_row(A, above * m + q, run, q)
    for j in range(end - 1, begin - 1, -1):
        for q in range(m):
            copy_row(run, q, Q, (j - begin) * m + q)
        series(e[j], lengths[j], E)
        add_product(E, A, j * m, run, 0)
    run[:] = 0
    for j in range(begin, end):
        for q in range(m):
            add_multiple(1.0, run, q, Q, (j - begin) * m + q)
        series(e[j], lengths[j], E)
        add_product(E, A, j * m, run, 0)


@njit(nogil=True, cache=True)
def _across(E, weights, A, B, i, Q, W, j):
    """Sum over q of weights[q] times the coefficient of t^q of E (<B, Q> + <W, A>)."""
    m, total = E.size, 0.0
    for q in range(m):
        weight = 0.0
        for t in range(m - q):
            weight += weights[q + t] * E[t]
        for t in range(q + 1):
            total += weight * (dot(B, i + t, Q, j + q - t) + dot(W, j + t, A, i + q - t))
    return total


@njit(nogil=True, cache=True)
def _one_block(up, first, roots, e, lengths, weights, E, G, X, A, B, run, Q, W, out):
    """Add what eight columns give."""
    m = E.size
    _below(up, roots, e, lengths, X, E, A)
    _below(up, roots, e, lengths, G, E, B)
    for i in range(roots):
        _own(X, i, A, m)
        _own(G, i, B, m)
    for i in range(e.size):
        begin, end = first[i], first[i + 1]
        _elsewhere(i, begin, end, e, lengths, E, A, run, Q)
        _elsewhere(i, begin, end, e, lengths, E, B, run, W)
        for j in range(begin, end):
            series(e[j], lengths[j], E)
            out[j] += _across(E, weights, A, B, j * m, Q, W, (j - begin) * m)
            _own(X, j, A, m)
            _own(G, j, B, m)
            add_product(E, Q, (j - begin) * m, A, j * m)
            add_product(E, W, (j - begin) * m, B, j * m)


def _crossings(up, first, roots, e, lengths, weights, G, X, scratch, out):
    """A worker has every so-manieth block of columns, and totals of its own."""
    workers, m, n = out.shape[0], weights.size, e.size
    for worker in prange(workers):
        S, E = scratch[worker], np.empty(m)
        A, B, run, rest = S[: n * m], S[n * m : 2 * n * m], S[2 * n * m : (2 * n + 1) * m], S[(2 * n + 1) * m :]
        Q, W = rest[: rest.shape[0] // 2], rest[rest.shape[0] // 2 :]
        for b in range(worker, X.shape[0], workers):
            _one_block(up, first, roots, e, lengths, weights, E, G[b], X[b], A, B, run, Q, W, out[worker])


_crossings_serial, _crossings_parallel = serial_and_parallel(_crossings)


def tree_jet_crossings(
    order: np.ndarray,
    up: np.ndarray,
    first: np.ndarray,
    roots: int,
    e: np.ndarray,
    lengths: np.ndarray,
    weights: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
) -> np.ndarray:
    """Sums (n,), by position, over the pairs across each edge: of the coefficients of t^q, weighted.

    Factors e = exp(-a lengths) and lengths are by position; G, X (n, k), real and in double precision, in the caller's
    order. O(n k m^2) operations, O(n (k + m)) memory.
    """
    G, X, m = to_lanes(G, order), to_lanes(X, order), weights.size
    workers = 1 if m * X.size < SERIAL_SIZE else min(get_num_threads(), X.shape[0])
    run = _crossings_serial if workers == 1 else _crossings_parallel
    out, rows = np.zeros((workers, e.size)), (2 * e.size + 1 + 2 * int(np.diff(first).max(initial=0))) * m
    with borrowed(workers * rows * LANES, np.dtype(np.float64)) as buffer:
        run(up, first, roots, e, lengths, weights, G, X, buffer.reshape(workers, rows, LANES), out)
    return out.sum(axis=0)
