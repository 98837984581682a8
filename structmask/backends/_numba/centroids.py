"""The merge plan of a forest: lists of nodes with their distance to a centroid, in pairs that meet every pair of nodes.

A component loses its centroid, and falls into branches of at most half its size. Lists of the branches and of the
centroid itself are merged two by two, smallest first; each merge is recorded, and says that all pairs of its two lists
have distance (entry of one) + (entry of the other). Components of few nodes are left whole.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def adjacency(parents, lengths):
    """Neighbours in CSR form, and the lengths of the edges to them; parents come before children."""
    n = parents.size
    pointers = np.zeros(n + 1, np.int64)
    for v in range(n):
        if parents[v] >= 0:
            pointers[v + 1] += 1
            pointers[parents[v] + 1] += 1
    for v in range(n):
        pointers[v + 1] += pointers[v]
    place, ends, lengths_to = pointers[:-1].copy(), np.empty(pointers[n], np.int32), np.empty(pointers[n])
    for v in range(n):
        p = parents[v]
        if p >= 0:
            for a, b in ((v, p), (p, v)):
                ends[place[a]], lengths_to[place[a]] = b, lengths[v]
                place[a] += 1
    return pointers, ends, lengths_to


@njit(nogil=True, cache=True)
def component(graph, gone, start, above, queue):
    """Nodes reachable from one, in breadth-first order, in the queue; their number."""
    pointers, ends, _ = graph
    queue[0], above[start], count, head = start, -1, 1, 0
    while head < count:
        v = queue[head]
        head += 1
        for e in range(pointers[v], pointers[v + 1]):
            u = ends[e]
            if u != above[v] and not gone[u]:
                above[u], queue[count] = v, u
                count += 1
    return count


@njit(nogil=True, cache=True)
def _centroid(graph, gone, above, queue, count, size):
    """The node whose removal leaves no more than half of the component together."""
    pointers, ends, _ = graph
    for i in range(count):
        size[queue[i]] = 1
    for i in range(count - 1, 0, -1):
        size[above[queue[i]]] += size[queue[i]]
    c, moved = queue[0], True
    while moved:
        moved = False
        for e in range(pointers[c], pointers[c + 1]):
            v = ends[e]
            if not gone[v] and v != above[c] and 2 * size[v] > count:
                c, moved = v, True
                break
    return c


@njit(nogil=True, cache=True)
def _branch(graph, gone, above, node, dist, at):
    """Complete the list whose first entry stands at `at`, in order of distance; its end."""
    pointers, ends, lengths = graph
    head, end, ordered = at, at + 1, True
    while head < end:
        v, d = node[head], dist[head]
        head += 1
        for e in range(pointers[v], pointers[v + 1]):
            u = ends[e]
            if u != above[v] and not gone[u]:
                above[u], node[end], dist[end] = v, u, d + lengths[e]
                ordered = ordered and dist[end] >= dist[end - 1]
                end += 1
    if not ordered:
        order = np.argsort(dist[at:end])
        node[at:end], dist[at:end] = node[at:end][order], dist[at:end][order]
    return end


@njit(nogil=True, cache=True)
def _joined(node, dist, a, a_end, b, b_end, at):
    """Two ordered lists as one, written at `at`."""
    while a < a_end or b < b_end:
        if b >= b_end or (a < a_end and dist[a] <= dist[b]):
            node[at], dist[at], a = node[a], dist[a], a + 1
        else:
            node[at], dist[at], b = node[b], dist[b], b + 1
        at += 1


@njit(nogil=True, cache=True)
def _room(a, size):
    """The same array, or a longer one with the same beginning."""
    if size <= a.size:
        return a
    longer = np.empty(max(2 * a.size, size), a.dtype)
    longer[: a.size] = a
    return longer


@njit(nogil=True, cache=True)
def _merged(begins, ends, lists, node, dist, at, merges, done):
    """Merge lists in the order of their lengths, shortest first; originals and results are two queues."""
    order = np.argsort(ends[:lists] - begins[:lists])
    made, made_end = np.empty(lists, np.int64), np.empty(lists, np.int64)
    original, first, last = 0, 0, 0
    for step in range(lists - 1):
        for side in range(2):
            shorter = original < lists and (
                first >= last or ends[order[original]] - begins[order[original]] <= made_end[first] - made[first]
            )
            if shorter:
                begin, end, original = begins[order[original]], ends[order[original]], original + 1
            else:
                begin, end, first = made[first], made_end[first], first + 1
            merges[done, 2 * side], merges[done, 2 * side + 1] = begin, end
        a, a_end, b, b_end = merges[done]
        done += 1
        if step < lists - 2:
            size = a_end - a + b_end - b
            node, dist = _room(node, at + size), _room(dist, at + size)
            _joined(node, dist, a, a_end, b, b_end, at)
            made[last], made_end[last], last, at = at, at + size, last + 1, at + size
    return node, dist, at, done


@njit(nogil=True, cache=True)
def _whole(graph, above, queue, count, place, blocks, used):
    """Record a small component: its nodes, the place of the parent of each in it, and the length of that edge."""
    pointers, ends, lengths = graph
    for i in range(count):
        v = queue[i]
        place[v] = i
        blocks[0][used + i], blocks[1][used + i], blocks[2][used + i] = v, -1, 0.0
        if i > 0:
            blocks[1][used + i] = place[above[v]]
            for e in range(pointers[v], pointers[v + 1]):
                if ends[e] == above[v]:
                    blocks[2][used + i] = lengths[e]


@njit(nogil=True, cache=True)
def merge_plan(parents: np.ndarray, lengths: np.ndarray, largest_block: int):
    """Lists, merges of them, and the components left whole.

    Parameters
    ----------
    parents, lengths : arrays (n,)
        A forest whose parents (-1 at roots) come before their children.
    largest_block : int
        Components of at most so many nodes are left whole.

    Returns
    -------
    node, dist : arrays
        All lists one after the other, each in order of distance.
    merges : array (m, 4)
        Begin and end of the two lists of each merge.
    begins : array
        Where the lists of each centroid begin, and the end of all; its own, a single node, comes first.
    block_node, block_parent, block_length, block_pointers : arrays
        Nodes of the components left whole, breadth first; their parents, as places within; lengths of those edges.
    """
    n = parents.size
    graph = adjacency(parents, lengths)
    pointers, ends, lengths_to = graph
    node, dist, at = np.empty(4 * n + 64, np.int32), np.empty(4 * n + 64), 0
    merges, done = np.empty((n + 1, 4), np.int64), 0
    blocks, used = (np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)), 0
    block_pointers, block_count = np.zeros(n + 1, np.int64), 0
    gone, above, queue = np.zeros(n, np.bool_), np.full(n, -1, np.int32), np.empty(n + 1, np.int32)
    size, place, stack, top = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n + 1, np.int32), 0
    begins, centroids = np.zeros(n + 1, np.int64), 0
    list_begin, list_end = np.empty(n + 2, np.int64), np.empty(n + 2, np.int64)
    for v in range(n):
        if parents[v] < 0:
            stack[top], top = v, top + 1
    while top > 0:
        top -= 1
        count = component(graph, gone, stack[top], above, queue)
        if count <= largest_block:
            _whole(graph, above, queue, count, place, blocks, used)
            gone[queue[:count]] = True
            used, block_count = used + count, block_count + 1
            block_pointers[block_count] = used
            continue
        c = _centroid(graph, gone, above, queue, count, size)
        gone[c] = True
        node, dist = _room(node, at + count), _room(dist, at + count)
        node[at], dist[at], list_begin[0], list_end[0], lists, at = c, 0.0, at, at + 1, 1, at + 1
        for e in range(pointers[c], pointers[c + 1]):
            v = ends[e]
            if not gone[v]:
                node[at], dist[at], above[v], list_begin[lists] = v, lengths_to[e], c, at
                at = _branch(graph, gone, above, node, dist, at)
                list_end[lists], lists = at, lists + 1
                stack[top], top = v, top + 1
        node, dist, at, done = _merged(list_begin, list_end, lists, node, dist, at, merges, done)
        centroids += 1
        begins[centroids] = at
    return (
        node[:at].copy(),
        dist[:at].copy(),
        merges[:done].copy(),
        begins[: centroids + 1].copy(),
        blocks[0][:used].copy(),
        blocks[1][:used].copy(),
        blocks[2][:used].copy(),
        block_pointers[: block_count + 1].copy(),
    )
