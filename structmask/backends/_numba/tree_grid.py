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
def _binomials(q):
    """(-1)^i binom(q - 1, i): weights of barycentric interpolation at 0, 1, ..., q - 1."""
    c = np.ones(q)
    for i in range(1, q):
        c[i] = -c[i - 1] * (q - i) / i
    return c


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _lagrange_weights(x, N, c, weights):
    """Weights of the q grid points around x (clamped to 0 ... N - 1) that interpolate there; the first of them."""
    q = c.size
    first = min(max(int(x) - (q - 1) // 2, 0), N - q)
    y, total = x - first, 0.0
    for i in range(q):
        weights[i] = c[i] / (y - i)
        total += weights[i]
    at = int(y)
    if y == at:  # on the grid, a division by zero
        weights[:] = 0.0
        weights[at] = 1.0
        return first
    total = 1 / total
    for i in range(q):
        weights[i] *= total
    return first


@njit(nogil=True, cache=True)
def interpolated(x, grid, q):
    """Local interpolation of q points of a grid of values at positions x, in grid steps."""
    out, c, weights = np.zeros(x.size), _binomials(q), np.empty(q)
    for i in range(x.size):
        first = _lagrange_weights(x[i], grid.size, c, weights)
        for r in range(q):
            out[i] += weights[r] * grid[first + r]
    return out


@parallel
def to_grids(node, dist, merges, step, q, swapped, X, out):
    """Moments of interpolation of both lists of every merge; swapped: in the other's place, and in reverse."""
    B = X.shape[0]
    N = out.shape[1] // B
    for task in prange(out.shape[0]):  # by lists, not by blocks, whose rows share cache lines
        m, side, c, weights = np.int64(task) // 2, np.int64(task) % 2, _binomials(q), np.empty(q)
        grid = out[2 * m + (1 - side if swapped else side)]
        grid[:] = 0.0
        for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
            first = _lagrange_weights(dist[e] / step, N, c, weights)
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
        c, weights, y = _binomials(q), np.empty(q), Y[block]
        for m in range(merges.shape[0]):
            for side in range(2):
                grid = grids[2 * m + side]
                for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
                    first = _lagrange_weights(dist[e] / step, N, c, weights)
                    add_combination(weights, q, grid, first * B + block, B, y, node[e])


@parallel
def dots_with_grids(node, dist, merges, step, q, grids, G, W):
    """W[entry] += <G[node], the grid of the list interpolated there>; the lists of all merges are different entries."""
    B = G.shape[0]
    N = grids.shape[1] // B
    for task in prange(2 * merges.shape[0]):
        m, side, c, weights = np.int64(task) // 2, np.int64(task) % 2, _binomials(q), np.empty(q)
        for e in range(merges[m, 2 * side], merges[m, 2 * side + 1]):
            first = _lagrange_weights(dist[e] / step, N, c, weights)
            for block in range(B):
                W[e] += dot_combination(weights, q, grids[task], first * B + block, B, G[block], node[e])
