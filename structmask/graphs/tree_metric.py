"""Trees that approximate the metric of a graph, so that any graph has tree masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from structmask.backends.tree_kernels import least_elements
from structmask.graphs.adjacency import undirected
from structmask.graphs.tree import Floats, Forest, Ints
from structmask.graphs.tree_building import as_forest

_KINDS = ("minimum_spanning", "frt")


def tree_metric(graph: Any, /, *, kind: str = "minimum_spanning", rng: Any = None) -> Forest:
    """Tree (or forest) whose distances approximate those of a graph, its edge weights being lengths.

    Parameters
    ----------
    graph : graph
        Anything `as_adjacency` takes, without directions; weights are lengths and not negative.
    kind : {"minimum_spanning", "frt"}
        A spanning tree of least total length, or a random tree of Fakcharoenphol, Rao and Talwar: no distance
        shrinks, and each grows by a factor of O(log n) in expectation. Averages of the masks of several such trees
        blur what a single one cuts.
    rng : int, Generator or None
        For "frt": the seed.

    Returns
    -------
    Forest
        On the nodes of the graph. An "frt" tree has further nodes above them, which its masks do not show.

    Notes
    -----
    O(E log n) operations; for "frt" in expectation another factor of log n.

    References
    ----------
    Fakcharoenphol, Rao, Talwar, "A tight bound on approximating arbitrary metrics by tree metrics" (2004).

    Examples
    --------
    >>> import networkx as nx
    >>> from structmask import tree_decay, tree_metric
    >>> ring = nx.cycle_graph(6)
    >>> tree_decay(tree_metric(ring), 1.0).shape
    (6, 6)
    >>> trees = [tree_metric(ring, kind="frt", rng=seed) for seed in range(4)]
    >>> mask = sum(tree_decay(tree, 0.1) for tree in trees) / 4
    >>> mask.shape
    (6, 6)
    """
    if kind not in _KINDS:
        msg = f"unknown kind {kind!r}; choose one of {', '.join(map(repr, _KINDS))}"
        raise ValueError(msg)
    lengths = scipy.sparse.csr_array(undirected(graph, "tree_metric"), dtype=np.float64)
    return _minimum_spanning(lengths) if kind == "minimum_spanning" else _frt(lengths, np.random.default_rng(rng))


class Distortion(NamedTuple):
    """How many times longer distances are in a tree than in a graph: over the pairs measured.

    Attributes
    ----------
    least, mean, largest : float
        Of the ratios. A tree that never shortens has `least` >= 1.
    """

    least: float
    mean: float
    largest: float


def distortion(tree: Forest, graph: Any, /, *, sources: int = 32, rng: Any = None) -> Distortion:
    """Measure how a tree distorts the distances of a graph.

    Parameters
    ----------
    tree : Forest
        On the nodes of the graph, as `tree_metric` makes it.
    graph : graph
        Its weights are lengths.
    sources : int
        Distances from so many random nodes (or from all, if there are fewer) to all others are compared.
    rng : int, Generator or None
        The seed of that choice.

    Returns
    -------
    Distortion
        All nan if there is no pair to compare.

    Examples
    --------
    >>> import networkx as nx
    >>> from structmask import distortion, tree_metric
    >>> ring = nx.cycle_graph(6)
    >>> distortion(tree_metric(ring), ring).largest  # the ends of the edge that was left out
    5.0
    """
    lengths = scipy.sparse.csr_array(undirected(graph, "distortion"), dtype=np.float64)
    n = lengths.shape[0]
    if tree.visible != n:
        msg = f"the tree has {tree.visible} nodes, the graph {n}; compare it with the graph it was made for"
        raise ValueError(msg)
    chosen = np.sort(np.random.default_rng(rng).permutation(n)[:sources])
    exact = csgraph.dijkstra(lengths, directed=False, indices=chosen).reshape(-1, n)
    found = tree.distances(chosen[:, None], np.arange(n)[None, :])
    compared = np.isfinite(exact) & (exact > 0)
    ratios = found[compared] / exact[compared]
    if not ratios.size:
        return Distortion(*[float("nan")] * 3)
    return Distortion(float(ratios.min()), float(ratios.mean()), float(ratios.max()))


def _minimum_spanning(lengths: scipy.sparse.csr_array) -> Forest:
    """By ranks in place of lengths, for scipy takes a length of zero for no edge."""
    upper = scipy.sparse.triu(lengths, 1, format="coo")
    order = np.argsort(upper.data, kind="stable")
    ranks = np.empty(order.size)
    ranks[order] = np.arange(1, order.size + 1)
    coords = tuple(ends.astype(np.int32) for ends in upper.coords)  # all that this search takes in some releases
    kept = csgraph.minimum_spanning_tree(scipy.sparse.csr_array((ranks, coords), shape=upper.shape)).tocoo()
    data = upper.data[order[kept.data.astype(np.int64) - 1]]
    return as_forest(scipy.sparse.coo_array((data, kept.coords), shape=upper.shape))


# --- random trees -----------------------------------------------------------------------------------------------------


def _frt(lengths: scipy.sparse.csr_array, rng: np.random.Generator) -> Forest:
    """Clusters by the first node of a random order within a radius, for radii that halve; inside those of before."""
    n = lengths.shape[0]
    pointers, ranks, distances = least_elements(lengths, rng.permutation(n))
    radius = 2.0 ** rng.random()  # log-uniform in [1, 2)
    positive = lengths.data[lengths.data > 0]
    furthest, nearest = distances.max(initial=0.0), positive.min() if positive.size else 1.0
    top = int(np.ceil(np.log2(furthest))) if furthest > 0 else 0
    bottom = min(int(np.floor(np.log2(nearest))) - 1, top)
    cluster, clusters = np.zeros(n, np.int64), []
    for level in range(top, bottom - 1, -1):
        centre = _first_within(pointers, ranks, distances, radius * 2.0**level)
        cluster = np.unique(cluster * n + centre, return_inverse=True)[1]
        clusters.append((radius * 2.0**level, cluster))
    return _hierarchy(n, clusters)


def _first_within(pointers: Ints, ranks: Ints, distances: Floats, radius: float) -> Ints:
    """For each node the least rank within a radius: in its list ranks increase and distances decrease."""
    inside = np.where(distances <= radius, ranks, np.iinfo(np.int64).max)
    return np.minimum.reduceat(inside, pointers[:-1]) if inside.size else inside


def _hierarchy(n: int, clusters: list[tuple[float, Ints]]) -> Forest:
    """The tree of nested partitions (height, cluster of each node), from coarse to fine, nodes at height 0.

    Clusters of one node are that node, and one that its parent does not split is left out. The last partition holds
    together what has distance zero: its clusters have height 0.
    """
    above, heights, sizes_of = [], [np.zeros(n)], np.zeros(0, np.int64)
    holder = np.full(n, -1)  # the lowest cluster so far in which a node lies
    for number, (height, cluster) in enumerate(clusters):
        last = number == len(clusters) - 1
        first, sizes = np.unique(cluster, return_index=True, return_counts=True)[1:]
        within = holder[first]
        same = (within >= 0) & (sizes == np.append(sizes_of, 0)[np.maximum(within - n, -1)]) & (not last)
        fresh = np.flatnonzero(~same & (sizes > 1))
        names = np.full(first.size, -1)
        names[fresh] = n + sizes_of.size + np.arange(fresh.size)
        above.append(within[fresh])
        heights.append(np.full(fresh.size, 0.0 if last else height))
        sizes_of = np.append(sizes_of, sizes[fresh])
        holder = np.where(names[cluster] >= 0, names[cluster], holder)
    parents, height_of = np.concatenate([holder, *above]).astype(np.int64), np.concatenate(heights)
    lengths = np.where(parents >= 0, height_of[parents] - height_of, 0.0)
    return Forest(parents, lengths, hidden=int(sizes_of.size))
