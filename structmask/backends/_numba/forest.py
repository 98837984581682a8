"""Elimination of a forest without subtractions, see `elimination`: leaves first, nothing fills in, one search.

Breadth first from a root the children of consecutive nodes are consecutive: whatever follows the search runs through
memory in one direction. The search itself waits for memory alone, which is why it reads ahead, and why NumPy allocates
its arrays: in large pages, where the system has them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_AHEAD = 16  # nodes whose rows are on their way

compiled = njit(nogil=True, cache=True)


def eliminate_forest(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, leak: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """Order, later neighbours in CSR form, multipliers (lower, upper) and pivots; None if there is a cycle."""
    n = leak.size
    nodes, parents, order, later = (np.empty(n, np.int32) for _ in range(4))
    begin, end, ends = (np.empty(n + 1, np.int64) for _ in range(3))
    down, up, ground, lower, upper, pivots = (np.empty(n) for _ in range(6))
    if not _searched(indptr, indices, data, nodes, parents, begin, end, down, up):
        return None
    used = _swept(nodes, parents, down, up, leak, ground, (order, ends, later, lower, upper, pivots))
    return order, ends, later[:used], lower[:used], upper[:used], pivots


@compiled
def _searched(indptr, indices, data, nodes, parents, begin, end, down, up):
    """Nodes breadth first, the places of their parents, and the rates from there and back; whether it is a forest.

    A step and the one against it are met when their two ends are.
    """
    n, used, here, ahead = nodes.size, 0, 0, 0.0
    seen = np.zeros(n // 64 + 1, np.uint64)
    for root in range(n):
        if _is_seen(seen, root):
            continue
        parents[used], nodes[used], begin[used], end[used] = -1, root, indptr[root], indptr[root + 1]
        used += 1
        while here < used:
            if here + _AHEAD < used:
                e = begin[here + _AHEAD]
                if e < data.size:
                    ahead += indices[e] + data[e]
            above = nodes[parents[here]] if parents[here] >= 0 else -1
            is_met = above < 0
            for e in range(begin[here], end[here]):
                child = indices[e]
                if child == above:
                    up[here], is_met = data[e], True
                elif _is_seen(seen, child):
                    return False
                else:
                    parents[used], down[used], nodes[used] = here, data[e], child
                    begin[used], end[used] = indptr[child], indptr[child + 1]
                    used += 1
            if not is_met:
                return False
            here += 1
    up[0] = ahead  # the root has none: this only keeps what was read ahead from being left out
    return True


@compiled
def _is_seen(seen, node):
    """Whether a node was seen before; it is from now on."""
    word, bit = node >> 6, np.uint64(1) << np.uint64(node & 63)
    before = seen[word] & bit
    seen[word] |= bit
    return before != 0


@compiled
def _swept(nodes, parents, down, up, leak, ground, factor):
    """The factor, from the last place of the search to the first; returns how many multipliers it has."""
    order, ends, later, lower, upper, pivots = factor
    n, used = nodes.size, 0
    for i in range(n):
        ground[i] = leak[nodes[i]]
    ends[0] = 0
    for i in range(n):
        here = n - 1 - i
        order[i], p, pivots[i] = nodes[here], parents[here], ground[here]
        if p >= 0:
            pivots[i] += up[here]
            later[used], upper[used], lower[used] = n - 1 - p, up[here] / pivots[i], down[here] / pivots[i]
            ground[p] += lower[used] * ground[here]
            used += 1
        ends[i + 1] = used
    return used
