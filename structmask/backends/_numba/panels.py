"""Panels on the axis of distances: a fast multipole method in one dimension, for two lists of one merge.

A panel is a stretch of a list whose distances lie in [i h, (i + 1) h], h = reach / 2^level. For panels i, j of two
lists, f(x + y) lives on the window [s h, (s + 2) h], s = i + j, whatever the merge. `interactions` splits panels until
their window is negligible, smooth, or so small in pairs that direct sums are as good; `far_field` applies the smooth
windows, in coefficients of Chebyshev polynomials.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import LANES, add_combination, add_multiple, copy_row
from structmask.backends._numba.threads import serial_and_parallel

ROUGH, SMOOTH, NEGLIGIBLE = 0, 1, 2
BEGIN, END, LEFT, RIGHT, USE, LEVEL, INDEX = range(7)  # columns of the table of panels
UNUSED, OWN, CHILDREN = 0, 1, 2  # how a panel gets its moments: not at all, from its points, from its children
_FEW = 64  # pairs below which direct sums win
_UNSPLIT, _EMPTY = -2, -1
_NOTHING, _FAR, _NEAR, _CLOSER = range(4)
_POINTS = 8


@njit(nogil=True, cache=True)
def _room(table, rows):
    if rows <= table.shape[0]:
        return table
    longer = np.empty((max(2 * table.shape[0], rows), table.shape[1]), table.dtype)
    longer[: table.shape[0]] = table
    return longer


@njit(nogil=True, cache=True)
def _new_panel(panels, at, begin, end, level, index):
    panels = _room(panels, at + 1)
    panels[at] = (begin, end, _UNSPLIT, _UNSPLIT, UNUSED, level, index)
    return panels, at + 1


@njit(nogil=True, cache=True)
def _split(panels, count, P, dist, reach):
    """The children of a panel, those that have points."""
    level, index = panels[P, LEVEL] + 1, 2 * panels[P, INDEX]
    begin, end = panels[P, BEGIN], panels[P, END]
    middle = begin + np.searchsorted(dist[begin:end], (index + 1) * reach / 2.0**level)
    for child in range(2):
        a, b = (begin, middle) if child == 0 else (middle, end)
        panels[P, LEFT + child] = count if b > a else _EMPTY
        if b > a:
            panels, count = _new_panel(panels, count, a, b, level, index + child)
    return panels, count


@njit(nogil=True, cache=True)
def _verdict(panels, P, Q, state, offset, deepest, p):
    """What becomes of a pair of panels, and the number of its window."""
    level = panels[P, LEVEL]
    window = offset[level] + panels[P, INDEX] + panels[Q, INDEX]
    if state[window] == NEGLIGIBLE:
        return _NOTHING, window
    a, b = panels[P, END] - panels[P, BEGIN], panels[Q, END] - panels[Q, BEGIN]
    if state[window] == SMOOTH:
        return (_FAR if a * b > p * (a + b) else _NEAR), window
    few = level == deepest or a * b <= _FEW or a + b <= 2 * p
    return (_NEAR if few else _CLOSER), window


@njit(nogil=True, cache=True)
def _first_panels(panels, at, dist, merge, reach, deepest):
    """One panel for each list of a merge, on the deepest level where one is enough."""
    a, a_end, b, b_end = merge
    furthest, level = max(dist[a_end - 1], dist[b_end - 1]), 0
    while level < deepest and furthest < reach / 2.0 ** (level + 1):
        level += 1
    panels, at = _new_panel(panels, at, a, a_end, level, 0)
    return _new_panel(panels, at, b, b_end, level, 0)


@njit(nogil=True, cache=True)
def _children(panels, P, Q, stack, top):
    """Put the pairs of children of two panels on the stack."""
    for child in range(4):
        i, j = panels[P, LEFT + child // 2], panels[Q, LEFT + child % 2]
        if i >= 0 and j >= 0:
            stack = _room(stack, top + 1)
            stack[top], top = (i, j), top + 1
    return stack, top


@njit(nogil=True, cache=True)
def _flag(panels, begin, end, p):
    """Where children are cheaper than points, a panel takes its moments from them, and they need theirs."""
    for P in range(begin, end):
        if panels[P, USE] != UNUSED and panels[P, LEFT] != _UNSPLIT and panels[P, END] - panels[P, BEGIN] > 2 * p:
            panels[P, USE] = CHILDREN
            for child in (panels[P, LEFT], panels[P, RIGHT]):
                if child >= 0 and panels[child, USE] == UNUSED:
                    panels[child, USE] = OWN


@njit(nogil=True, cache=True)
def interactions(dist, merges, skipped, reach, state, offset, deepest, p):
    """How the two lists of every merge meet.

    Parameters
    ----------
    dist, merges : arrays
        As in `centroids.merge_plan`.
    skipped : bool array
        Merges that are done otherwise.
    reach : float
        Largest distance in any list.
    state, offset : arrays
        Window (level, s) is ROUGH, SMOOTH or NEGLIGIBLE, as state[offset[level] + s] says.
    deepest : int
        Level of the smallest panels.
    p : int
        Number of coefficients of a panel.

    Returns
    -------
    panels : array (_, 7)
    far : array (_, 3)
        Two panels and the kernel of their window.
    near : array (_, 4)
        Begin and end of two stretches for direct sums.
    kernels : array (_, 2)
        Level and s of each kernel.
    panel_pointers, far_pointers : arrays
        Where those of each merge begin.
    """
    panels, panel_count = np.empty((1024, 7), np.int64), 0
    far, far_count = np.empty((1024, 3), np.int64), 0
    near, near_count = np.empty((1024, 4), np.int64), 0
    kernels, kernel_count = np.empty((64, 2), np.int64), 0
    known = np.full(state.size, -1, np.int64)
    panel_pointers, far_pointers = np.zeros(len(merges) + 1, np.int64), np.zeros(len(merges) + 1, np.int64)
    stack = np.empty((4096, 2), np.int64)
    for m in range(len(merges)):
        panel_pointers[m], far_pointers[m] = panel_count, far_count
        if skipped[m]:
            continue
        stack[0, 0], stack[0, 1], top = panel_count, panel_count + 1, 1
        panels, panel_count = _first_panels(panels, panel_count, dist, merges[m], reach, deepest)
        while top > 0:
            top -= 1
            P, Q = stack[top]
            verdict, window = _verdict(panels, P, Q, state, offset, deepest, p)
            if verdict == _FAR:
                if known[window] < 0:
                    kernels = _room(kernels, kernel_count + 1)
                    kernels[kernel_count] = (panels[P, LEVEL], panels[P, INDEX] + panels[Q, INDEX])
                    known[window], kernel_count = kernel_count, kernel_count + 1
                far = _room(far, far_count + 1)
                far[far_count], far_count = (P, Q, known[window]), far_count + 1
                panels[P, USE], panels[Q, USE] = OWN, OWN
            elif verdict == _NEAR:
                near = _room(near, near_count + 1)
                near[near_count] = (panels[P, BEGIN], panels[P, END], panels[Q, BEGIN], panels[Q, END])
                near_count += 1
            elif verdict == _CLOSER:
                for panel in (P, Q):
                    if panels[panel, LEFT] == _UNSPLIT:
                        panels, panel_count = _split(panels, panel_count, panel, dist, reach)
                stack, top = _children(panels, P, Q, stack, top)
        _flag(panels, panel_pointers[m], panel_count, p)
    panel_pointers[-1], far_pointers[-1] = panel_count, far_count
    return (
        panels[:panel_count].copy(),
        far[:far_count].copy(),
        near[:near_count].copy(),
        kernels[:kernel_count].copy(),
        panel_pointers,
        far_pointers,
    )


@njit(nogil=True, cache=True, fastmath={"contract"})
def _polynomials(dist, at, count, h, index, T):
    """T[q, i] = T_q at up to eight points of a panel, mapped to [-1, 1]; the last point stands in for those missing."""
    for i in range(_POINTS):
        T[0, i] = 1.0
        T[1, i] = 2 * (dist[at + min(i, count - 1)] / h - index) - 1
    a0, a1, a2, a3, a4, a5, a6, a7 = 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0
    b0, b1, b2, b3, b4, b5, b6, b7 = T[1, 0], T[1, 1], T[1, 2], T[1, 3], T[1, 4], T[1, 5], T[1, 6], T[1, 7]
    x0, x1, x2, x3, x4, x5, x6, x7 = 2 * b0, 2 * b1, 2 * b2, 2 * b3, 2 * b4, 2 * b5, 2 * b6, 2 * b7
    for q in range(2, T.shape[0]):
        a0, a1, a2, a3 = x0 * b0 - a0, x1 * b1 - a1, x2 * b2 - a2, x3 * b3 - a3
        a4, a5, a6, a7 = x4 * b4 - a4, x5 * b5 - a5, x6 * b6 - a6, x7 * b7 - a7
        t = T[q]
        t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] = a0, a1, a2, a3, a4, a5, a6, a7
        a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = (
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
        )


@njit(nogil=True, cache=True)
def _gathered(panels, P, node, dist, h, X, T, x, M, row):
    """Moments of a panel from its points: M[row + q] += sum over points of T_q(point) X."""
    at, end = panels[P, BEGIN], panels[P, END]
    while at < end:
        count = min(_POINTS, end - at)
        _polynomials(dist, at, count, h, panels[P, INDEX], T)
        for i in range(count):
            copy_row(X, node[at + i], x, i)
        for q in range(T.shape[0]):
            add_combination(T[q], count, x, 0, 1, M, row + q)
        at += count


@njit(nogil=True, cache=True)
def _scattered(panels, P, node, dist, h, L, row, T, t, Y):
    """The local expansion of a panel at its points: Y += sum over q of T_q(point) L[row + q]."""
    at, end, p = panels[P, BEGIN], panels[P, END], T.shape[0]
    while at < end:
        count = min(_POINTS, end - at)
        _polynomials(dist, at, count, h, panels[P, INDEX], T)
        for i in range(count):
            for q in range(p):
                t[q] = T[q, i]
            add_combination(t, p, L, row, 1, Y, node[at + i])
        at += count


@njit(nogil=True, cache=True)
def _moments(node, dist, panels, first, last, shifts, reach, X, T, x, M):
    """Moments of the panels of one merge, children before parents."""
    p = T.shape[0]
    for P in range(last - 1, first - 1, -1):
        row = (P - first) * p
        if panels[P, USE] == OWN:
            _gathered(panels, P, node, dist, reach / 2.0 ** panels[P, LEVEL], X, T, x, M, row)
        elif panels[P, USE] == CHILDREN:
            for child in range(2):
                C = panels[P, LEFT + child]
                for q in range(p if C >= 0 else 0):
                    add_combination(shifts[child, q], q + 1, M, (C - first) * p, 1, M, row + q)


@njit(nogil=True, cache=True)
def _local(node, dist, panels, first, last, shifts, reach, L, T, t, Y):
    """Local expansions of the panels of one merge, handed from parents to children, and at last to the points."""
    p = T.shape[0]
    for P in range(first, last):
        row = (P - first) * p
        if panels[P, USE] == OWN:
            _scattered(panels, P, node, dist, reach / 2.0 ** panels[P, LEVEL], L, row, T, t, Y)
        elif panels[P, USE] == CHILDREN:
            for child in range(2):
                C = panels[P, LEFT + child]
                for q in range(p if C >= 0 else 0):
                    for r in range(q + 1):
                        add_multiple(shifts[child, q, r], L, row + q, L, (C - first) * p + r)


@njit(nogil=True, cache=True)
def _far_field(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, X, Y):
    """Y += far field, for one block of columns."""
    p, most = kernels.shape[1], 0
    for m in range(panel_pointers.size - 1):
        if far_pointers[m + 1] > far_pointers[m]:
            most = max(most, panel_pointers[m + 1] - panel_pointers[m])
    M, L = np.empty((most * p, LANES)), np.empty((most * p, LANES))
    T, t, x = np.empty((p, _POINTS)), np.empty(p), np.empty((_POINTS, LANES))
    for m in range(panel_pointers.size - 1):
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
        _local(node, dist, panels, first, last, shifts, reach, L, T, t, Y)


def _all_far_fields(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, X, Y):
    for block in prange(X.shape[0]):
        _far_field(node, dist, panels, far, kernels, shifts, panel_pointers, far_pointers, reach, X[block], Y[block])


far_field_serial, far_field_parallel = serial_and_parallel(_all_far_fields)


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
