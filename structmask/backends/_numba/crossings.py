"""How a weighted sum over pairs of nodes changes with the lengths of edges: what crosses each edge of a forest.

A pair i, j weighs f(dist) (<G_i, X_j> + <G_j, X_i>), and lies across the edges of its path. In a merge the path passes
the centroid: the weights of all pairs of a node add up at its entry, and sums over the subtrees below the centroid give
the edges theirs. G, X are blocks (B, n, 8) of columns; an edge is named by its lower end.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from structmask.backends._numba.centroids import adjacency, component
from structmask.backends._numba.lanes import dot


@njit(nogil=True, cache=True)
def _weight(G, X, u, v):
    """<G_u, X_v> + <G_v, X_u>."""
    total = 0.0
    for block in range(X.shape[0]):
        total += dot(G[block], u, X[block], v) + dot(G[block], v, X[block], u)
    return total


@njit(nogil=True, cache=True)
def _edge(parents, u, v):
    """The lower end of an edge."""
    return u if parents[u] == v else v


@njit(nogil=True, cache=True)
def whole_crossings(first, last, pointers, node, parent, values, parents, G, X, out):
    """out[edge] += the pairs across it, for the components first ... last - 1 left whole, with values of f at pairs."""
    largest, at = 1, 0
    for b in range(first, last):
        largest = max(largest, pointers[b + 1] - pointers[b])
    W, below = np.empty((largest, largest)), np.empty((largest, largest), np.bool_)
    for b in range(first, last):
        s, count = pointers[b], pointers[b + 1] - pointers[b]
        for i in range(count):
            W[i, i], below[i, :count], below[i, i] = 0.0, False, True
            for j in range(i):
                W[i, j] = W[j, i] = values[at] * _weight(G, X, node[s + i], node[s + j])
                at += 1
        for i in range(count - 1, 0, -1):  # rows become sums over subtrees
            p, total = parent[s + i], 0.0
            for j in range(count):
                total += 0.0 if below[i, j] else W[i, j]
                W[p, j] += W[i, j]
                below[p, j] = below[p, j] or below[i, j]
            out[_edge(parents, node[s + i], node[s + p])] += total


@njit(nogil=True, cache=True)
def near_crossings(pairs, node, values, G, X, W):
    """W[entry] += its pairs, for pairs of stretches of entries, with values of f at pairs."""
    at = 0
    for q in range(pairs.shape[0]):
        for i in range(pairs[q, 0], pairs[q, 1]):
            total = 0.0
            for j in range(pairs[q, 2], pairs[q, 3]):
                w = values[at] * _weight(G, X, node[i], node[j])
                total, W[j], at = total + w, W[j] + w, at + 1
            W[i] += total


@njit(nogil=True, cache=True)
def edge_sums(parents, node, begins, W, out):
    """out[edge] += sums of W over all entries whose nodes hang from the edge, centroid after centroid."""
    n = parents.size
    graph = adjacency(parents, np.empty(n))
    gone, above, queue, sums = np.zeros(n, np.bool_), np.full(n, -1, np.int32), np.empty(n + 1, np.int32), np.zeros(n)
    for m in range(begins.size - 1):
        for e in range(begins[m], begins[m + 1]):
            sums[node[e]] += W[e]
        centroid = node[begins[m]]
        for i in range(component(graph, gone, centroid, above, queue) - 1, 0, -1):
            v = queue[i]
            out[_edge(parents, v, above[v])] += sums[v]
            sums[above[v]] += sums[v]
            sums[v] = 0.0
        sums[centroid], gone[centroid] = 0.0, True
