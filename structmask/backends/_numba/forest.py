"""Elimination of a forest without subtractions, see `elimination`: leaves first, nothing fills in, one search.

Breadth first from a root the children of consecutive nodes are consecutive: whatever follows the search runs through
memory in one direction. The search itself waits for memory alone, which is why rows are fetched before it comes to
them, and why NumPy allocates its arrays: in large pages, where the system has them. Nodes that are not kept count as
seen from the beginning, and steps to them as leaks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.vectors import prefetch

_AHEAD, _SOON = 16, 6  # nodes whose rows are fetched, and whose neighbours' places are

compiled = njit(nogil=True, cache=True)


def eliminate_forest(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, leak: np.ndarray, is_kept: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """Order, later neighbours in CSR form, multipliers (lower, upper) and pivots; None if there is a cycle.

    On the kept nodes, and in their own numbering. `leak` (n,) is what leaves beside the steps to the others.
    """
    n, nodes_kept = leak.size, int(np.count_nonzero(is_kept))
    nodes, parents, order, later = (np.empty(nodes_kept, np.int32) for _ in range(4))
    begin, end, ends = (np.empty(nodes_kept + 1, np.int64) for _ in range(3))
    down, up, ground, lower, upper, pivots = (np.empty(nodes_kept) for _ in range(6))
    seen = np.zeros(n // 64 + 1, np.uint64)
    seen.view(np.uint8)[: (n + 7) // 8] = np.packbits(~is_kept, bitorder="little")
    if not _searched(indptr, indices, data, is_kept, seen, nodes, parents, begin, end, down, up, ground):
        return None
    place = np.cumsum(is_kept, dtype=np.int32)
    used = _swept(nodes, parents, down, up, leak, ground, place, (order, ends, later, lower, upper, pivots))
    return order, ends, later[:used], lower[:used], upper[:used], pivots


@compiled
def _searched(  # noqa: C901  one search, and what it fetches
    indptr, indices, data, is_kept, seen, nodes, parents, begin, end, down, up, ground
):
    """Nodes breadth first, the places of their parents, the rates from there, back and away; whether it is a forest.

    A step and the one against it are met when their two ends are.
    """
    used = here = 0
    for root in range(is_kept.size):
        if _is_seen(seen, root):
            continue
        parents[used], nodes[used], begin[used], end[used] = -1, root, indptr[root], indptr[root + 1]
        used += 1
        while here < used:
            if here + _AHEAD < used:
                prefetch(indices, begin[here + _AHEAD])
                prefetch(data, begin[here + _AHEAD])
            if here + _SOON < used:
                for e in range(begin[here + _SOON], end[here + _SOON]):
                    prefetch(indptr, np.int64(indices[e]))
            above = nodes[parents[here]] if parents[here] >= 0 else -1
            is_met, away = above < 0, 0.0
            for e in range(begin[here], end[here]):
                child = indices[e]
                if child == above:
                    up[here], is_met = data[e], True
                elif not _is_seen(seen, child):
                    parents[used], down[used], nodes[used] = here, data[e], child
                    begin[used], end[used] = indptr[child], indptr[child + 1]
                    used += 1
                elif is_kept[child]:
                    return False
                else:
                    away += data[e]
            if not is_met:
                return False
            ground[here] = away
            here += 1
    return True


@compiled
def _is_seen(seen, node):
    """Whether a node was seen before; it is from now on."""
    word, bit = node >> 6, np.uint64(1) << np.uint64(node & 63)
    before = seen[word] & bit
    seen[word] |= bit
    return before != 0


@compiled
def _swept(nodes, parents, down, up, leak, ground, place, factor):
    """The factor, from the last place of the search to the first; returns how many multipliers it has.

    The kept node i is number place[i] - 1 of them.
    """
    order, ends, later, lower, upper, pivots = factor
    n, used = nodes.size, 0
    for i in range(n):
        ground[i] += leak[nodes[i]]
    ends[0] = 0
    for i in range(n):
        here = n - 1 - i
        order[i], p, pivots[i] = place[nodes[here]] - 1, parents[here], ground[here]
        if p >= 0:
            pivots[i] += up[here]
            later[used], upper[used], lower[used] = n - 1 - p, up[here] / pivots[i], down[here] / pivots[i]
            ground[p] += lower[used] * ground[here]
            used += 1
        ends[i + 1] = used
    return used
