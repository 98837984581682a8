"""Sweeps over forests in the array-API standard: along heavy paths by linear scans, between them by pairs of siblings.

The heavy child of a node has the most below it; chains of heavy children are paths, and above a node are at most
log2(n) edges to other, light, children. So the paths of one light depth follow one another in one scan, however deep
the tree. Light siblings are added in pairs, then pairs of pairs, until one sum a parent is left; read backwards, the
same pairs give every child the sum over its siblings without subtracting anything.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend


@dataclass(frozen=True)
class Round:
    """Pairs among m sums: entry t of the next round is left[t] + right[t]; index m stands for zero.

    For entry q of this round, `pair` is its pair and `partner` the other one in it.
    """

    left: Array
    right: Array
    pair: Array
    partner: Array


@dataclass(frozen=True)
class Depth:
    """The paths of one light depth, places start ... end - 1; places within a depth count from its start.

    `heads` are the places where paths begin, `is_head` marks them, `path` is the number of the path at each place.
    `up` are the heads' parents, places in the depth above; `group` gives each place above the sum of its light
    children, from `rounds`.
    """

    start: int
    end: int
    heads: Array
    is_head: Array
    path: Array
    up: Array
    group: Array
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Paths:
    """The heavy paths of a forest, made when first asked for, a copy in every home."""

    up: Any
    first: Any
    roots: int

    @cached_property
    def _host(self) -> tuple[Array, Array, tuple[Depth, ...]]:
        order, is_head, bounds = _heavy_paths()(self.up, self.first, self.roots)
        place = np.empty(order.size, dtype=np.int64)
        place[order] = np.arange(order.size)
        ends = bounds.tolist()
        starts = zip([0, *ends[:-2]], ends[:-1], ends[1:], strict=True)
        depths = tuple(_depth(place[self.up[order[b:c]]] - a, is_head[b:c], (a, b, c)) for a, b, c in starts)
        return order, place, depths

    def on(self, home: str) -> tuple[Array, Array, tuple[Depth, ...]]:
        """Positions by place, places by position, and all depths with their indices in a home."""
        copies, key = self.__dict__.setdefault("_copies", {("numpy", 0): self._host}), (home, arrays.device_of(home))
        if key not in copies:
            order, place, depths = self._host
            copies[key] = arrays.move(order, home), arrays.move(place, home), tuple(_moved(d, home) for d in depths)
        found: tuple[Array, Array, tuple[Depth, ...]] = copies[key]
        return found


def tree_sums(paths: tuple[Array, Array, tuple[Depth, ...]], E: Array, X: Array) -> tuple[Array, Array]:
    """S and R (..., n, k), see `tree_kernels`, for factors E (..., n) and X (..., n, k) by position."""
    xp, (order, place, depths) = arrays.namespace(X), paths
    batch = np.broadcast_shapes(tuple(E.shape[:-1]), tuple(X.shape[:-2]))
    X = xp.take(xp.broadcast_to(X, (*batch, *X.shape[-2:])), order, axis=-2)
    E = xp.take(xp.broadcast_to(E, (*batch, E.shape[-1])), order, axis=-1)
    parts = [_Part(depth, E, X) for depth in depths]
    for part, below in zip(reversed(parts), [None, *reversed(parts[1:])], strict=True):
        part.rise(below)
    for part, above in zip(parts, [None, *parts[:-1]], strict=True):
        part.sink(above)
    S, R = (xp.concat([X[..., :0, :], *found], axis=-2) for found in ([p.S for p in parts], [p.R for p in parts]))
    return xp.take(S, place, axis=-2), xp.take(R, place, axis=-2)


class _Part:
    """Sums at the places of one light depth: T holds X and light children, S also the heavy child."""

    S: Array
    R: Array

    def __init__(self, depth: Depth, E: Array, X: Array) -> None:
        self.depth, self.xp = depth, arrays.namespace(X)
        self.X, self.e = X[..., depth.start : depth.end, :], E[..., depth.start : depth.end]
        self.along = self.xp.where(depth.is_head, 0 * self.e, self.e)  # factors of edges within paths

    def rise(self, below: _Part | None) -> None:
        """S_v = T_v + e_h S_h, from the ends of paths up."""
        self.T, self.siblings = self.X, None
        if below is not None:
            heads = self.xp.take(below.e[..., None] * below.S, below.depth.heads, axis=-2)
            sums, below.siblings = _paired(below.depth.rounds, heads)
            self.T = self.X + self.xp.take(_and_zero(sums), below.depth.group, axis=-2)
        self.S = kernels.linear_scan(self.T, self.along, upper=True)

    def sink(self, above: _Part | None) -> None:
        """R_v = T_u + e_u R_u below a node u of the path; at a head, X_u + e_u R_u and what other children bring."""
        xp, zero = self.xp, self.xp.zeros_like(self.X[..., :1, :])
        entering = xp.concat([zero, self.T], axis=-2)[..., : self.T.shape[-2], :]
        if above is not None:
            seen = above.X + above.e[..., None] * above.R + above.heavy()
            brought = xp.take(seen, self.depth.up, axis=-2) + self.siblings
            brought = xp.take(brought, self.depth.path, axis=-2)
        else:
            brought = xp.zeros_like(entering)
        entering = xp.where(self.depth.is_head[:, None], brought, entering)
        before = xp.concat([0 * self.e[..., :1], self.e], axis=-1)[..., : self.e.shape[-1]]
        self.R = kernels.linear_scan(entering, xp.where(self.depth.is_head, 0 * before, before), upper=False)

    def heavy(self) -> Array:
        """What the heavy child of each node brings."""
        brought = self.along[..., None] * self.S
        return self.xp.concat([brought[..., 1:, :], self.xp.zeros_like(brought[..., :1, :])], axis=-2)


def _paired(rounds: tuple[Round, ...], values: Array) -> tuple[Array, Array]:
    """Sums over the children of each parent, and for each child the sum over its siblings."""
    xp, stages = arrays.namespace(values), [values]
    for step in rounds:
        last = _and_zero(stages[-1])
        stages.append(xp.take(last, step.left, axis=-2) + xp.take(last, step.right, axis=-2))
    others = xp.zeros_like(stages[-1])
    for step, stage in zip(reversed(rounds), reversed(stages[:-1]), strict=True):
        others = xp.take(others, step.pair, axis=-2) + xp.take(_and_zero(stage), step.partner, axis=-2)
    return stages[-1], others


def _and_zero(a: Array) -> Array:
    xp = arrays.namespace(a)
    return xp.concat([a, xp.zeros((*a.shape[:-2], 1, a.shape[-1]), dtype=a.dtype)], axis=-2)


def _depth(up: Any, is_head: Any, bounds: tuple[int, int, int]) -> Depth:
    """The plan of one light depth; `up` (places,) are parents, places among those from bounds[0] on."""
    above, start, end = bounds
    heads = np.flatnonzero(is_head)
    parents, sizes = np.unique(up[heads], return_counts=True) if start else (heads[:0], heads[:0])
    group = np.full(start - above, parents.size)
    group[parents] = np.arange(parents.size)
    rounds = []
    while sizes.size and sizes.max() > 1:
        step, sizes = _round(sizes)
        rounds.append(step)
    return Depth(start, end, heads, is_head, np.cumsum(is_head) - 1, up[heads], group, tuple(rounds))


def _round(sizes: Any) -> tuple[Round, Any]:
    """Neighbours of groups of given sizes in pairs, and the sizes of the groups of pairs."""
    m, halves = int(sizes.sum()), -(-sizes // 2)
    begins, first = np.cumsum(sizes) - sizes, np.cumsum(halves) - halves
    place = np.arange(m) - np.repeat(begins, sizes)
    partner = np.arange(m) + np.where(place % 2 == 0, 1, -1)
    alone = (place % 2 == 0) & (place + 1 == np.repeat(sizes, sizes))
    partner[alone] = m
    pair = np.repeat(first, sizes) + place // 2
    left = np.flatnonzero(place % 2 == 0)
    return Round(left, partner[left], pair, partner), halves


def _moved(depth: Depth, home: str) -> Depth:
    def move(a: Any) -> Array:
        return arrays.move(a, home)

    rounds = tuple(Round(*map(move, (r.left, r.right, r.pair, r.partner))) for r in depth.rounds)
    heads, is_head, path, up, group = map(move, (depth.heads, depth.is_head, depth.path, depth.up, depth.group))
    return Depth(depth.start, depth.end, heads, is_head, path, up, group, rounds)


def _heavy_paths() -> Any:
    if get_backend() == "numpy":
        return heavy_paths
    from structmask.backends._numba.plain_trees import heavy_paths as compiled

    return compiled


def heavy_paths(up: Any, first: Any, roots: int) -> tuple[Any, Any, Any]:
    """Positions in the order of paths, whether a path begins there, and where each light depth begins and ends.

    `up` and `first` as in `Forest`. The paths of a depth come in the order of their parents. O(n). Compiled as it is
    where that is wanted.
    """
    n = up.size
    size, heavy = np.ones(n, dtype=np.int64), np.full(n, -1)
    for i in range(n - 1, roots - 1, -1):
        size[up[i]] += size[i]
    for i in range(roots, n):
        if heavy[up[i]] < 0 or size[i] > size[heavy[up[i]]]:
            heavy[up[i]] = i
    order, is_head, bounds = np.empty(n, dtype=np.int64), np.zeros(n, dtype=np.bool_), [0]
    heads, following = np.arange(n), np.empty(n, dtype=np.int64)
    count, place = roots, 0
    while count > 0:
        others = 0
        for head in heads[:count]:
            is_head[place] = True
            i = head
            while i >= 0:
                order[place] = i
                place += 1
                for child in range(first[i], first[i + 1]):
                    if child != heavy[i]:
                        following[others] = child
                        others += 1
                i = heavy[i]
        heads, following, count = following, heads, others
        bounds.append(place)
    return order, is_head, np.array(bounds)


def least_elements(pointers: Any, ends: Any, lengths: Any, order: Any) -> tuple[Any, Any, Any]:
    """Nodes, ranks and distances: (v, r, d) where node order[r] is closer to v, at distance d, than all of lower rank.

    Shortest paths from the nodes in order, each search stopping where a lower rank is as close: O(log n) entries a node
    in expectation over random orders. Compiled as it is where that is wanted.
    """
    best = np.full(pointers.size - 1, np.inf)
    nodes, ranks, distances = [0], [0], [0.0]
    for rank in range(order.size):
        heap = [(0.0, order[rank])]
        while heap:
            d, v = heapq.heappop(heap)
            if d >= best[v]:
                continue
            best[v] = d
            nodes.append(v)
            ranks.append(rank)
            distances.append(d)
            for e in range(pointers[v], pointers[v + 1]):
                if d + lengths[e] < best[ends[e]]:
                    heapq.heappush(heap, (d + lengths[e], ends[e]))
    return np.array(nodes)[1:], np.array(ranks)[1:], np.array(distances)[1:]
