"""Random elimination of a grounded Laplacian diag(A 1 + ground) - A, A >= 0 symmetric, to (I - C) diag(W) (I - C^T).

Eliminating a node of total weight W connects its neighbours i, j by w_i w_j / W: a clique. Here each neighbour i, in
increasing order of weight, keeps one edge, to a heavier neighbour j drawn with probability w_j / s_i, s_i the sum of
the heavier ones, and of weight w_i s_i / W: the clique in expectation, and no fill at all.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.ordering import _insert, _remove

compiled = njit(nogil=True, cache=True)

_BUCKETS = 4096


@compiled
def approximate_cholesky(indptr, indices, data, ground, seed):
    """Order, pattern of later neighbours (old labels) in CSR form, multipliers, pivots. The seed decides alone."""
    n = ground.size
    node, weight, following, first, degree = _half_edges(indptr, indices, data, ground)
    head, after, before = np.full(_BUCKETS, -1, np.int32), np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    queue = (head, after, before, degree)
    for i in range(n - 1, -1, -1):
        _insert(i, _bucket(degree[i]), head, after, before)
    state = np.array([seed], np.uint64)
    order, ends, pivots = np.empty(n, np.int32), np.zeros(n + 1, np.int64), np.empty(n)
    pattern, values = np.empty(node.size + n, np.int32), np.empty(node.size + n)
    place = np.full(n + 1, -1, np.int32)  # of a neighbour in the star
    star, weights, edges = np.empty(n + 1, np.int32), np.empty(n + 1), np.empty(n + 1, np.int32)
    heavier, lowest, used = np.empty(n + 2), 0, 0
    for step in range(n):
        while head[lowest] < 0:
            lowest += 1
        v = head[lowest]
        _remove(v, lowest, head, after, before)
        order[step] = v
        size, lowest = _gather(v, node, weight, following, first, place, star, weights, edges, queue, lowest)
        rank = _sorted(weights, size)
        heavier[size] = 0.0
        for i in range(size - 1, -1, -1):
            heavier[i] = heavier[i + 1] + weights[rank[i]]
        total = heavier[0]
        pivots[step] = total if total > 0 else 1.0
        if used + size > pattern.size:
            pattern, values = _longer(pattern, used, size), _longer(values, used, size)
        for i in range(size):
            t = rank[i]
            j, e = star[t], edges[t]
            if j < n:
                pattern[used], values[used] = j, weights[t] / total
                used += 1
            if i == size - 1:  # the heaviest keeps no edge
                weight[e ^ 1] = 0.0
                lowest = _change(j, -1, queue, lowest)
                continue
            k = star[rank[_drawn(heavier, i + 1, size, _uniform(state))]]
            node[e ^ 1], node[e] = k, j  # j's half edge leads to k; the half edge of v becomes k's
            weight[e ^ 1] = weight[e] = weights[t] * heavier[i + 1] / total
            following[e], first[k] = first[k], e
            lowest = _change(k, 1, queue, lowest)
        ends[step + 1] = used
    return order, ends, pattern[:used].copy(), values[:used].copy(), pivots


@compiled
def _half_edges(indptr, indices, data, ground):
    """Lists of half edges; 2 c and 2 c + 1 are each other's reverse. The ground is node n, never eliminated."""
    n, count = ground.size, 0
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            count += indices[e] > i
        count += ground[i] > 0
    node, weight, following = np.empty(2 * count, np.int32), np.empty(2 * count), np.empty(2 * count, np.int32)
    first, degree, c = np.full(n + 1, -1, np.int32), np.zeros(n + 1, np.int32), 0
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1] + 1):
            j, w = (indices[e], data[e]) if e < indptr[i + 1] else (n, ground[i])
            if j <= i or not w > 0:
                continue
            for a, b in ((i, j), (j, i)):
                node[c], weight[c], following[c], first[a] = b, w, first[a], c
                degree[a] += 1
                c += 1
    return node, weight, following, first, degree


@compiled
def _gather(v, node, weight, following, first, place, star, weights, edges, queue, lowest):
    """The neighbours of v with their weights, parallel edges merged."""
    size, e = 0, first[v]
    while e >= 0:
        if weight[e] > 0:
            j = node[e]
            if place[j] >= 0:
                weights[place[j]] += weight[e]
                weight[e ^ 1] = 0.0
                lowest = _change(j, -1, queue, lowest)
            else:
                place[j], star[size], weights[size], edges[size] = size, j, weight[e], e
                size += 1
        e = following[e]
    for i in range(size):
        place[star[i]] = -1
    return size, lowest


@compiled
def _change(j, by, queue, lowest):
    """Change a degree; returns where the queue may begin."""
    head, after, before, degree = queue
    old, new = _bucket(degree[j]), _bucket(degree[j] + by)
    degree[j] += by
    if j < after.size and old != new:  # the ground is in no queue
        _remove(j, old, head, after, before)
        _insert(j, new, head, after, before)
        return min(lowest, new)
    return lowest


@compiled
def _bucket(degree):
    """Degrees share a bucket where they are large: their order matters little there."""
    return degree if degree < 512 else min(512 + degree // 64, _BUCKETS - 1)


@compiled
def _sorted(weights, size):
    """Positions in increasing order of weight."""
    if size > 32:
        return np.argsort(weights[:size])
    rank = np.arange(size)
    for i in range(1, size):
        t, j = rank[i], i - 1
        while j >= 0 and weights[rank[j]] > weights[t]:
            rank[j + 1] = rank[j]
            j -= 1
        rank[j + 1] = t
    return rank


@compiled
def _drawn(heavier, low, size, u):
    """The last position from `low` on whose suffix sum is at least u times the first one."""
    wanted, high = u * heavier[low], size - 1
    while low < high:
        middle = (low + high + 1) // 2
        if heavier[middle] >= wanted:
            low = middle
        else:
            high = middle - 1
    return low


@compiled
def _uniform(state):
    """SplitMix64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def _longer(a, used, size):
    longer = np.empty(2 * a.size + size, a.dtype)
    longer[:used] = a[:used]
    return longer
