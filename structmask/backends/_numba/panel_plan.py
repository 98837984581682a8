"""Which panels of two lists meet, and how: the plan of the fast multipole method of `panels`.

A panel is a stretch of a list whose distances lie in [i h, (i + 1) h], h = reach / 2^level. For panels i, j of two
lists, f(x + y) lives on the window [s h, (s + 2) h], s = i + j, whatever the merge. Panels are split until their window
is negligible, smooth, or so small in pairs that direct sums are as good.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROUGH, SMOOTH, NEGLIGIBLE = 0, 1, 2
BEGIN, END, LEFT, RIGHT, USE, LEVEL, INDEX = range(7)  # columns of the table of panels
UNUSED, OWN, CHILDREN = 0, 1, 2  # how a panel gets its moments: not at all, from its points, from its children
_FEW = 64  # pairs below which direct sums win
_UNSPLIT, _EMPTY = -2, -1
_NOTHING, _FAR, _NEAR, _CLOSER = range(4)


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
        return (_FAR if 3 * a * b > p * (a + b) else _NEAR), window
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
