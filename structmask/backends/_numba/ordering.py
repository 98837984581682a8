"""Minimum degree: an elimination order of a symmetric pattern that fills little, with the pattern of its factor.

Eliminated nodes stay as *elements*: the clique of their neighbours, named once. A node's list holds the neighbours
that no element covers, then its elements; it never grows beyond its first length, since every new element replaces a
neighbour or an element that it absorbs. Degrees are the upper bounds of Amestoy, Davis and Duff.
"""

from __future__ import annotations

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True)


@compiled
def minimum_degree(indptr, indices, limit):  # noqa: C901, PLR0912, PLR0915  one state, changed in place by every part
    """Order (n,), and the later neighbours (old labels) of each pivot in CSR form; empty order beyond `limit` of them.

    The pattern is symmetric, without a diagonal.
    """
    n = indptr.size - 1
    start, lists = indptr, indices.copy()
    neighbours, elements = np.empty(n, np.int64), np.zeros(n, np.int64)  # lengths of the two parts of a list
    degree = np.empty(n, np.int64)
    for i in range(n):
        neighbours[i] = degree[i] = indptr[i + 1] - indptr[i]
    head, after, before = np.full(n + 1, -1, np.int32), np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    for i in range(n - 1, -1, -1):
        _insert(i, degree[i], head, after, before)
    pool = np.empty(max(16, indices.size), np.int32)  # members of elements, one after the other
    begin, size = np.zeros(n, np.int64), np.zeros(n, np.int64)
    is_alive, is_absorbed = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    mark, outside, stamp = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.full(n, -1, np.int64)
    order, used, lowest, work = np.empty(n, np.int32), 0, 0, 0
    for step in range(n):
        while head[lowest] < 0:
            lowest += 1
        p = head[lowest]
        _remove(p, degree[p], head, after, before)
        order[step], is_alive[p] = p, False
        first = used
        if used + degree[p] + 1 > pool.size:
            grown = np.empty(2 * pool.size + degree[p], np.int32)
            grown[:used] = pool[:used]
            pool = grown
        # its neighbours: those listed, and the members of its elements, which it absorbs
        a, b = start[p], start[p] + neighbours[p]
        for e in range(a, b):
            j = lists[e]
            mark[j] = step
            pool[used] = j
            used += 1
        for e in range(b, b + elements[p]):
            element = lists[e]
            for q in range(begin[element], begin[element] + size[element]):
                j = pool[q]
                if is_alive[j] and mark[j] != step:
                    mark[j] = step
                    pool[used] = j
                    used += 1
            is_absorbed[element] = True
        begin[p], size[p] = first, used - first
        if used > limit or work > 64 * limit:
            return order[:0], begin, pool[:0]
        # outside[e]: how many members of an element are no neighbours of p
        for q in range(first, used):
            i = pool[q]
            b = start[i] + neighbours[i]
            for e in range(b, b + elements[i]):
                element = lists[e]
                if stamp[element] != step:
                    stamp[element], outside[element] = step, size[element]
                outside[element] -= 1
        for q in range(first, used):
            i = pool[q]
            a, b, length = start[i], start[i] + neighbours[i], elements[i]
            work += neighbours[i] + length
            write, bound = a, 0
            for e in range(a, b):
                j = lists[e]
                if j != p and mark[j] != step:
                    lists[write] = j
                    write += 1
            neighbours[i] = write - a
            bound += write - a
            kept = write
            for e in range(b, b + length):
                element = lists[e]
                if not is_absorbed[element] and outside[element] > 0:
                    lists[write] = element
                    write += 1
                    bound += outside[element]
            lists[write] = p
            elements[i] = write + 1 - kept
            bound = min(bound + size[p] - 1, degree[i] + size[p] - 1, n - step - 2)
            _remove(i, degree[i], head, after, before)
            degree[i] = bound
            _insert(i, bound, head, after, before)
            lowest = min(lowest, bound)
    ends = np.zeros(n + 1, np.int64)
    for step in range(n):
        ends[step + 1] = ends[step] + size[order[step]]
    return order, ends, pool[:used]


@compiled
def _insert(i, degree, head, after, before):
    """Put a node into the list of its degree."""
    after[i], before[i] = head[degree], -1
    if head[degree] >= 0:
        before[head[degree]] = i
    head[degree] = i


@compiled
def _remove(i, degree, head, after, before):
    """Take a node out of the list of its degree."""
    if before[i] >= 0:
        after[before[i]] = after[i]
    else:
        head[degree] = after[i]
    if after[i] >= 0:
        before[after[i]] = before[i]
