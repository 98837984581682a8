"""Random graphs with and without a planted motif, and the masks that attention over their nodes may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import scipy.sparse

from structmask import BlockDiagonal, Diagonal, LowRank, Sparse, StructuredMatrix, diffusion_kernel, random_walk_kernel

Adjacency: TypeAlias = scipy.sparse.csr_array

MOTIFS: dict[str, Callable[[], nx.Graph]] = {
    "caveman": partial(nx.connected_caveman_graph, 4, 4),
    "cycle": partial(nx.cycle_graph, 20),
    "grid": partial(nx.grid_2d_graph, 4, 5),
    "ladder": partial(nx.ladder_graph, 10),
}


def planted(motif: nx.Graph, base: int, p: float, p_join: float, rng: np.random.Generator) -> Adjacency:
    """An Erdős–Rényi graph, and the motif joined to it by random edges."""
    return _joined(_random(base, p, rng), nx.to_scipy_sparse_array(motif, weight=None), p_join, rng)


def unplanted(motif: nx.Graph, base: int, p: float, p_join: float, rng: np.random.Generator) -> Adjacency:
    """The same with a random graph that has as many nodes and edges as the motif in its place."""
    n, edges = motif.number_of_nodes(), motif.number_of_edges()
    pairs = np.stack(np.triu_indices(n, 1))
    chosen = pairs[:, rng.choice(pairs.shape[1], edges, replace=False)]
    upper = scipy.sparse.coo_array((np.ones(edges), chosen), shape=(n, n))
    return _joined(_random(base, p, rng), upper + upper.T, p_join, rng)


def degree_features(A: Adjacency, count: int = 5) -> np.ndarray:
    """The largest degrees among each node's neighbours, in falling order, zeros where there are fewer."""
    degrees = np.diff(A.indptr)
    features = np.zeros((A.shape[0], count), dtype=np.float32)
    for node in range(A.shape[0]):
        found = np.sort(degrees[A.indices[A.indptr[node] : A.indptr[node + 1]]])[::-1][:count]
        features[node, : len(found)] = found
    return features


def side_by_side(found: Sequence[Adjacency]) -> Adjacency:
    """Graphs as one, whose parts are not connected."""
    return scipy.sparse.csr_array(scipy.sparse.block_diag(found))


def no_mask(found: Sequence[Adjacency]) -> StructuredMatrix:
    """Every node sees all nodes of its graph."""
    ones = [np.ones((A.shape[0], 1)) for A in found]
    return BlockDiagonal([LowRank(one, one) for one in ones])


def alone(found: Sequence[Adjacency]) -> StructuredMatrix:
    """A node sees itself only."""
    return Diagonal(np.ones(sum(A.shape[0] for A in found)))


def neighbours(found: Sequence[Adjacency]) -> StructuredMatrix:
    """A node sees itself and its neighbours."""
    A = side_by_side(found)
    return Sparse(A + scipy.sparse.eye_array(A.shape[0], format="csr"))


def walks_exact(found: Sequence[Adjacency], length: int = 4) -> StructuredMatrix:
    """Expected meetings of random walks, normalised (GKAT)."""
    return random_walk_kernel(side_by_side(found), length)


def walks_sampled(found: Sequence[Adjacency], length: int = 4, walks: int = 50) -> StructuredMatrix:
    """Meetings of sampled walks (GKAT as published); the same graphs have the same walks."""
    A = side_by_side(found)
    return random_walk_kernel(A, length, walks=walks, rng=A.nnz)


def diffusion(found: Sequence[Adjacency], time: float = 1.0) -> StructuredMatrix:
    """Heat kernel exp(-time L)."""
    return diffusion_kernel(side_by_side(found), time)


def gcn(found: Sequence[Adjacency]) -> StructuredMatrix:
    """D^-1/2 (A + I) D^-1/2, the propagation matrix of graph convolutions."""
    scale = Diagonal(1 / np.sqrt(1 + np.diff(side_by_side(found).indptr)))
    return scale @ neighbours(found) @ scale


def blocks(found: Sequence[Adjacency], mask: Callable[[Sequence[Adjacency]], StructuredMatrix]) -> np.ndarray:
    """The masks of graphs, (graphs, nodes, nodes), zeros where a graph is shorter than the longest.

    The mask of the graphs side by side has theirs as diagonal blocks, and one product with identity matrices, one below
    the other, gives them all.
    """
    sizes = [A.shape[0] for A in found]
    eyes = np.concatenate([np.eye(n, max(sizes)) for n in sizes])
    product = mask(found) @ eyes
    made = np.zeros((len(found), max(sizes), max(sizes)), dtype=np.float32)
    for index, rows in enumerate(np.split(product, np.cumsum(sizes)[:-1])):
        made[index, : len(rows), : len(rows)] = np.maximum(rows[:, : len(rows)], 0)  # rounding may be below zero
    return made


def _random(n: int, p: float, rng: np.random.Generator) -> Adjacency:
    upper = np.triu(rng.random((n, n)) < p, 1)
    return scipy.sparse.csr_array((upper + upper.T).astype(float))


def _joined(base: Adjacency, part: Any, p: float, rng: np.random.Generator) -> Adjacency:
    """Both graphs with random edges between them; isolated nodes are left out."""
    between = scipy.sparse.csr_array((rng.random((base.shape[0], part.shape[0])) < p).astype(float))
    A = scipy.sparse.block_array([[base, between], [between.T, part]], format="csr")
    A.eliminate_zeros()
    kept = np.flatnonzero(np.diff(A.indptr))
    return scipy.sparse.csr_array(A[kept][:, kept])
