"""Smooth windows of pairs of panels, in coefficients of Chebyshev polynomials: moments, kernels, local expansions.

A fast multipole method in one dimension, on the axis of distances; which panels meet is planned in `panel_plan`.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import (
    AHEAD,
    LANES,
    add_combination,
    add_multiple,
    ask_for,
    copy_row,
    dot_combination,
    row,
    set_row,
)
from structmask.backends._numba.panel_plan import BEGIN, CHILDREN, END, INDEX, LEFT, LEVEL, OWN, USE
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import axpy, scaled, times_add

_POINTS = 8
_U = np.uint64  # numba tests signed indices for being negative


@njit(nogil=True, cache=True, fastmath={"contract"})
def _polynomials(dist, at, count, h, index, T):
    """T[q, i] = T_q at up to eight points of a panel, mapped to [-1, 1]; the last point stands in for those missing."""
    for i in range(_POINTS):
        T[0, i] = 1.0
        T[1, i] = 2 * (dist[at + min(i, count - 1)] / h - index) - 1
    above, here = row(T, 0), row(T, 1)
    twice = scaled(2.0, here)
    for q in range(2, T.shape[0]):
        above, here = here, times_add(twice, here, scaled(-1.0, above))
        set_row(T, q, here)


@njit(nogil=True, cache=True)
def _add_eight(T, x, M, first):
    """M[first + q] += sum over i < 8 of T[q, i] x[i]."""
    x0, x1, x2, x3, x4, x5, x6, x7 = (
        row(x, 0),
        row(x, 1),
        row(x, 2),
        row(x, 3),
        row(x, 4),
        row(x, 5),
        row(x, 6),
        row(x, 7),
    )
    for q in range(_U(T.shape[0])):
        t, m = T[q], row(M, first + np.int64(q))
        m = axpy(t[3], x3, axpy(t[2], x2, axpy(t[1], x1, axpy(t[0], x0, m))))
        set_row(M, first + np.int64(q), axpy(t[7], x7, axpy(t[6], x6, axpy(t[5], x5, axpy(t[4], x4, m)))))


@njit(nogil=True, cache=True)
def _at_four(T, i, L, first, node, at, Y):
    """Y[node] += sum over q of T[q, i ...] L[first + q] for four points."""
    i0, i1, i2, i3 = node[at], node[at + 1], node[at + 2], node[at + 3]
    y0, y1, y2, y3 = row(Y, i0), row(Y, i1), row(Y, i2), row(Y, i3)
    for q in range(_U(T.shape[0])):
        t, own = T[q], row(L, first + np.int64(q))
        y0, y1, y2, y3 = axpy(t[i], own, y0), axpy(t[i + 1], own, y1), axpy(t[i + 2], own, y2), axpy(t[i + 3], own, y3)
    set_row(Y, i0, y0)
    set_row(Y, i1, y1)
    set_row(Y, i2, y2)
    set_row(Y, i3, y3)


@njit(nogil=True, cache=True)
def _gathered(panels, P, node, dist, h, X, T, x, M, first):
    """Moments of a panel from its points: M[first + q] += sum over points of T_q(point) X."""
    at, end = panels[P, BEGIN], panels[P, END]
    ask_for(X, node, at, min(at + AHEAD, end))
    while at < end:
        count = min(_POINTS, end - at)
        ask_for(X, node, min(at + AHEAD, end), min(at + AHEAD + count, end))
        _polynomials(dist, at, count, h, panels[P, INDEX], T)
        for i in range(count):
            copy_row(X, node[at + i], x, i)
        if count < _POINTS:
            x[count:] = 0.0
        _add_eight(T, x, M, first)
        at += count


@njit(nogil=True, cache=True)
def _scattered(panels, P, node, dist, h, L, first, T, t, G, Y):
    """The local expansion of a panel at its points: Y[node] += sum over q of T_q(point) L[first + q].

    With G, its inner product with the row of G instead: Y[entry, 0] += <G[node], the same>.
    """
    at, end, p = panels[P, BEGIN], panels[P, END], T.shape[0]
    V = Y if G is None else G
    ask_for(V, node, at, min(at + AHEAD, end))
    while at < end:
        count = min(_POINTS, end - at)
        ask_for(V, node, min(at + AHEAD, end), min(at + AHEAD + count, end))
        _polynomials(dist, at, count, h, panels[P, INDEX], T)
        fours = count // 4 if G is None else 0
        for four in range(fours):
            _at_four(T, 4 * four, L, first, node, at + 4 * four, Y)
        for i in range(4 * fours, count):
            for q in range(p):
                t[q] = T[q, i]
            if G is None:
                add_combination(t, p, L, first, 1, Y, node[at + i])
            else:
                Y[at + i, 0] += dot_combination(t, p, L, first, 1, G, node[at + i])
        at += count


@njit(nogil=True, cache=True)
def _moments(node, dist, panels, first, last, shifts, reach, X, T, x, M):
    """Moments of the panels of one merge, children before parents."""
    p = T.shape[0]
    for P in range(last - 1, first - 1, -1):
        own = (P - first) * p
        if panels[P, USE] == OWN:
            _gathered(panels, P, node, dist, reach / 2.0 ** panels[P, LEVEL], X, T, x, M, own)
        elif panels[P, USE] == CHILDREN:
            for child in range(2):
                C = panels[P, LEFT + child]
                for q in range(p if C >= 0 else 0):
                    add_combination(shifts[child, q], q + 1, M, (C - first) * p, 1, M, own + q)


@njit(nogil=True, cache=True)
def _local(node, dist, panels, first, last, shifts, reach, L, T, t, G, Y):
    """Local expansions of the panels of one merge, handed from parents to children, and at last to the points."""
    p = T.shape[0]
    for P in range(first, last):
        own = (P - first) * p
        if panels[P, USE] == OWN:
            _scattered(panels, P, node, dist, reach / 2.0 ** panels[P, LEVEL], L, own, T, t, G, Y)
        elif panels[P, USE] == CHILDREN:
            for child in range(2):
                C = panels[P, LEFT + child]
                for q in range(p if C >= 0 else 0):
                    for r in range(q + 1):
                        add_multiple(shifts[child, q, r], L, own + q, L, (C - first) * p + r)


@njit(nogil=True, cache=True)
def _far_field(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, begin, end, X, G, Y):
    """Y += far field of the merges begin ... end - 1, for one block of columns; with G see `_scattered`."""
    p, most = kernels.shape[1], 0
    for m in range(begin, end):
        if far_pointers[m + 1] > far_pointers[m]:
            most = max(most, panel_pointers[m + 1] - panel_pointers[m])
    M, L = np.empty((most * p, LANES)), np.empty((most * p, LANES))
    T, t, x = np.empty((p, _POINTS)), np.empty(p), np.empty((_POINTS, LANES))
    for m in range(begin, end):
        if far_pointers[m + 1] == far_pointers[m]:
            continue
        first, last = panel_pointers[m], panel_pointers[m + 1]
        M[: (last - first) * p] = 0
        L[: (last - first) * p] = 0
        _moments(node, dist, panels, first, last, shifts, reach, X, T, x, M)
        for i in range(far_pointers[m], far_pointers[m + 1]):
            P, Q, g = (far[i, 0] - first) * p, (far[i, 1] - first) * p, kernels[far[i, 2]]
            for q in range(p):
                add_combination(g[q], p, M, Q, 1, L, P + q)
                add_combination(g[q], p, M, P, 1, L, Q + q)
        _local(node, dist, panels, first, last, shifts, reach, L, T, t, G, Y)


def _all_far_fields(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, X, Y):
    merges = panel_pointers.size - 1
    for block in prange(X.shape[0]):
        x, y = X[block], Y[block]
        _far_field(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, 0, merges, x, None, y)


def _all_crossings(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, tasks, G, X, W):
    """W[entry, 0] += <G, far field of X> + <X, far field of G>; a task has the entries of its merges."""
    for task in prange(tasks.size - 1):
        begin, end = tasks[task], tasks[task + 1]
        for block in range(X.shape[0]):
            g, x = G[block], X[block]
            _far_field(
                node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, begin, end, x, g, W
            )
            _far_field(
                node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, begin, end, g, x, W
            )


far_field_serial, far_field_parallel = serial_and_parallel(_all_far_fields)
far_crossings_serial, far_crossings_parallel = serial_and_parallel(_all_crossings)


# --- windows of f -----------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def fit_errors(candidates, h, coefficients, points, values):
    """Largest |interpolant - f| and largest |f| over samples in windows [s h, (s + 2) h], s among candidates."""
    error, size = np.zeros(candidates.size), np.zeros(candidates.size)
    p = coefficients.shape[1]
    for w in range(candidates.size):
        low = candidates[w] * h
        for i in range(np.searchsorted(points, low), np.searchsorted(points, low + 2 * h)):
            x, b, c = (points[i] - low) / h - 1, 0.0, 0.0
            for q in range(p - 1, 0, -1):
                b, c = coefficients[w, q] + 2 * x * b - c, b
            difference = abs(coefficients[w, 0] + x * b - c - values[i])
            if not difference <= error[w]:
                error[w] = difference
            size[w] = max(size[w], abs(values[i]))
    return error, size
