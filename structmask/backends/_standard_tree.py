"""Sweeps over forests in the array-API standard: level by level, siblings in pairs, gathers only.

Pairs of siblings are added, then pairs of pairs, until one sum a parent is left. Read backwards, the same pairs give
every child the sum over its siblings without subtracting anything.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array


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
class Level:
    """The nodes of one depth, positions start ... end - 1, seen from their parents.

    `up` are the parents' places among the nodes of the level above; `group` gives each of those the place of its sum,
    """

    start: int
    end: int
    up: Array
    group: Array
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Levels:
    """All levels of a forest but the roots, made when first asked for, a copy in every home."""

    up: Any
    bounds: Any
    roots: int

    @cached_property
    def _host(self) -> tuple[Level, ...]:
        ends = self.bounds.tolist()
        return tuple(_level(self.up[b:c] - a, a, b, c) for a, b, c in zip(ends[:-2], ends[1:-1], ends[2:], strict=True))

    def on(self, home: str) -> tuple[int, tuple[Level, ...]]:
        """Number of roots, and the levels below them with their indices in a home."""
        copies = self.__dict__.setdefault("_copies", {"numpy": self._host})
        if home not in copies:
            copies[home] = tuple(_moved(level, home) for level in self._host)
        return self.roots, copies[home]


def tree_sums(levels: tuple[int, tuple[Level, ...]], E: Array, X: Array) -> tuple[Array, Array]:
    """S and R (..., n, k), see `tree_kernels`, for factors E (..., n) and X (..., n, k) by position."""
    xp, (roots, below) = arrays.namespace(X), levels
    batch = np.broadcast_shapes(tuple(E.shape[:-1]), tuple(X.shape[:-2]))
    X = xp.broadcast_to(X, (*batch, *X.shape[-2:]))
    e = xp.broadcast_to(E, (*batch, E.shape[-1]))[..., None]
    bounds = [(0, roots), *((level.start, level.end) for level in below)]
    S = [X[..., a:b, :] for a, b in bounds]
    brought = []  # what siblings bring to the nodes of each level
    for d in range(len(below), 0, -1):
        level = below[d - 1]
        sums, siblings = _paired(level.rounds, e[..., level.start : level.end, :] * S[d])
        S[d - 1] = S[d - 1] + xp.take(_and_zero(sums), level.group, axis=-2)
        brought.append(siblings)
    R = [xp.zeros_like(S[0])]
    for d, level in enumerate(below):
        a, b = bounds[d]
        seen = X[..., a:b, :] + e[..., a:b, :] * R[d]
        R.append(xp.take(seen, level.up, axis=-2) + brought[-1 - d])
    return xp.concat(S, axis=-2), xp.concat(R, axis=-2)


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


def _level(up: Any, above: int, start: int, end: int) -> Level:
    """The plan of one level; `up` (children,) in increasing order, places among the nodes from `above` on."""
    parents, sizes = np.unique(up, return_counts=True)
    group = np.full(start - above, parents.size)
    group[parents] = np.arange(parents.size)
    rounds = []
    while sizes.size and sizes.max() > 1:
        step, sizes = _round(sizes)
        rounds.append(step)
    return Level(start, end, up, group, tuple(rounds))


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


def _moved(level: Level, home: str) -> Level:
    def move(a: Any) -> Array:
        return arrays.move(a, home)

    rounds = tuple(Round(*map(move, (r.left, r.right, r.pair, r.partner))) for r in level.rounds)
    return Level(level.start, level.end, move(level.up), move(level.group), rounds)


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
