"""Lists of merges and uniform grids of distances: sums onto grids, and rows of grids back to nodes.

Between grid points a distance is interpolated by the polynomial through `points` of them around it; with one point it
must be on the grid. X, Y are blocks (B, n, 8) of columns, grids (2 m, N B, 8): of the two lists of every merge, the
rows of all blocks at one point side by side.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import add_combination, add_multiple, dot_combination
from structmask.backends._numba.threads import parallel


@njit(nogil=True, cache=True)
def lagrange_weights(x, N, weights):
    """Weights of the q grid points around x (clamped to 0 ... N - 1) that interpolate there; the first of them."""
    q = weights.size
    first = min(max(int(x) - (q - 1) // 2, 0), N - q)
    y, product = x - first, 1.0
    for i in range(q):
        weights[i] = product
        product *= (y - i) / (i + 1)
    product = 1.0
    for i in range(q - 1, -1, -1):
        weights[i] *= product
        product *= (y - i) / (i - q)
    return first


@njit(nogil=True, cache=True)
def interpolated(x, grid, q):
    """Local interpolation of q points of a grid of values at positions x, in grid steps."""
    out, weights = np.zeros(x.size), np.empty(q)
    for i in range(x.size):
        first = lagrange_weights(x[i], grid.size, weights)
        for r in range(q):
            out[i] += weights[r] * grid[first + r]
    return out


@parallel
def to_grids(node, dist, merges, step, q, swapped, X, out):
    """Moments of interpolation of both lists of every merge; swapped: in the other's place, and in reverse."""
    B = X.shape[0]
    N = out.shape[1] // B
    for task in prange(out.shape[0]):  # by lists, not by blocks, whose rows share cache lines
        m, side, weights = np.int64(task) // 2, np.int64(task) % 2, np.empty(q)
        grid = out[2 * m + (1 - side if swapped else side)]
        for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
            first = lagrange_weights(dist[e] / step, N, weights)
            for r in range(q):
                at = N - 1 - first - r if swapped else first + r
                for block in range(B):
                    add_multiple(weights[r], X[block], node[e], grid, at * B + block)


@parallel
def from_grids(node, dist, merges, step, q, grids, Y):
    """Y += the grids of both lists of every merge, interpolated at their nodes."""
    B = Y.shape[0]
    N = grids.shape[1] // B
    for block in prange(B):
        weights, y = np.empty(q), Y[block]
        for m in range(merges.shape[0]):
            for side in range(2):
                grid = grids[2 * m + side]
                for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
                    first = lagrange_weights(dist[e] / step, N, weights)
                    add_combination(weights, q, grid, first * B + block, B, y, node[e])


@parallel
def dots_with_grids(node, dist, merges, step, q, grids, G, W):
    """W[entry] += <G[node], the grid of the list interpolated there>; the lists of all merges are different entries."""
    B = G.shape[0]
    N = grids.shape[1] // B
    for task in prange(2 * merges.shape[0]):
        m, side, weights = np.int64(task) // 2, np.int64(task) % 2, np.empty(q)
        for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
            first = lagrange_weights(dist[e] / step, N, weights)
            for block in range(B):
                W[e] += dot_combination(weights, q, grids[task], first * B + block, B, G[block], node[e])
