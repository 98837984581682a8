"""Peers of `tree_mask`: "Fast Tree-Field Integrators" (NeurIPS 2024), as published and rewritten in our own words.

The published code is no package: with its folder `src` on PYTHONPATH it takes part. It is wrong on the diagonal, for
which it is not checked, and ends in a RecursionError on many trees. The rewrite follows what was published: a node
splits the tree into two sides that share it, each with a quarter of the nodes at least; nodes of a side are grouped by
their distance to it, and groups of one side meet those of the other in a matrix f(x + y); sides are split on, until
they are small enough for all pairs. Loops over the sides are loops in Python, what a side does is NumPy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

_PUBLISHED = "ftfi"  # the module of the published code

_SMALL = 16  # nodes of a side that meet all at once
_STRIP = 1 << 22  # entries of f(x + y) at a time

Neighbours = list[list[tuple[int, float]]]


def published(parents: np.ndarray, lengths: np.ndarray, f: Callable[[float], float], X: np.ndarray) -> Any:
    """A product by the published code with its plan made, or why there is none."""
    try:
        code = importlib.import_module(_PUBLISHED)
    except ImportError:
        return "- (not at hand)"
    if not hasattr(code, "TreeBasedGraphIntegrator"):  # another module of that name
        return "- (not at hand)"
    lists = [[[u, length] for u, length in near] for near in _neighbours(parents, lengths)]
    try:
        spanning = code.MinimumSpanningTreeConstructor()
        integrator = code.TreeBasedGraphIntegrator(f, is_lambda=True, graph_adj_lists=lists, tree_constructor=spanning)
    except RecursionError:
        return "- (RecursionError)"
    return lambda: integrator.integrate(X)


class TreeFieldIntegrator:
    """Products with f(dist(i, j)) of a tree, for any f; one product costs O(n log n) where distances are few."""

    def __init__(self, parents: np.ndarray, lengths: np.ndarray) -> None:
        self.whole: list[tuple[np.ndarray, np.ndarray]] = []
        self.splits: list[tuple[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = []
        neighbours = _neighbours(parents, lengths)
        waiting = [list(range(len(parents)))]
        while waiting:
            nodes = waiting.pop()
            if len(nodes) <= _SMALL:
                rows = [_distances(neighbours, v, set(nodes)) for v in nodes]
                self.whole.append((np.array(nodes), np.array([[row[u] for u in nodes] for row in rows])))
                continue
            pivot, sides = _split(neighbours, nodes)
            found = _distances(neighbours, pivot, set(nodes))
            self.splits.append((pivot, [_grouped(side, found) for side in sides]))
            waiting.extend([pivot, *side] for side in sides)

    def __call__(self, f: Callable[[Any], Any], X: np.ndarray) -> np.ndarray:
        Y = np.zeros_like(X)
        for nodes, distances in self.whole:
            Y[nodes] += f(distances).astype(X.dtype) @ X[nodes]
        at_zero = float(f(np.zeros(1))[0])
        for pivot, sides in self.splits:
            sums = [_summed(X[nodes], groups, distances.size) for nodes, distances, groups in sides]
            for (nodes, x, groups), (_, y, _), other in zip(sides, sides[::-1], sums[::-1], strict=True):
                Y[nodes] += _crossed(f, x, y, other)[groups]
            Y[pivot] -= at_zero * X[pivot]  # it is on both sides
        return Y


def _neighbours(parents: np.ndarray, lengths: np.ndarray) -> Neighbours:
    found: Neighbours = [[] for _ in parents]
    for v, (p, w) in enumerate(zip(parents.tolist(), lengths.tolist(), strict=True)):
        if p >= 0:
            found[v].append((p, w))
            found[p].append((v, w))
    return found


def _distances(neighbours: Neighbours, start: int, inside: set[int]) -> dict[int, float]:
    """Distances from a node within a part of the tree, breadth first."""
    found, queue = {start: 0.0}, [start]
    for v in queue:
        for u, w in neighbours[v]:
            if u in inside and u not in found:
                found[u] = found[v] + w
                queue.append(u)
    return found


def _split(neighbours: Neighbours, nodes: list[int]) -> tuple[int, list[list[int]]]:
    """A node of which no branch has more than half of the nodes, and its branches on two sides."""
    inside = set(nodes)
    order = list(_distances(neighbours, nodes[0], inside))
    place = {v: i for i, v in enumerate(order)}
    size = dict.fromkeys(order, 1)
    above = {v: next((u for u, _ in neighbours[v] if place.get(u, len(order)) < place[v]), -1) for v in order}
    for v in reversed(order[1:]):
        size[above[v]] += size[v]
    pivot = next(v for v in reversed(order) if 2 * size[v] >= len(order))
    branches = [list(_distances(neighbours, u, inside - {pivot})) for u, _ in neighbours[pivot] if u in inside]
    sides: list[list[int]] = [[], []]
    for branch in sorted(branches, key=len, reverse=True):
        min(sides, key=len).extend(branch)
    return pivot, sides


def _grouped(side: list[int], found: dict[int, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, the distances that occur, and the group of each node."""
    distances, groups = np.unique(np.array([found[v] for v in side]), return_inverse=True)
    return np.array(side), distances, groups


def _summed(X: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((count, X.shape[1]))
    np.add.at(out, groups, X)
    return out


def _crossed(f: Callable[[Any], Any], x: np.ndarray, y: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """f(x + y) times sums, a strip of rows at a time."""
    strip = max(1, _STRIP // max(1, y.size))
    parts = [f(x[a : a + strip, None] + y).astype(sums.dtype) @ sums for a in range(0, x.size, strip)]
    return np.concatenate(parts)
