"""Random graphs with and without a planted motif, and the masks that attention over their nodes may have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import scipy.sparse

from structmask import diffusion_kernel, random_walk_kernel

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


def no_mask(A: Adjacency) -> np.ndarray:
    """Every node sees all nodes."""
    return np.ones(A.shape)


def neighbours(A: Adjacency) -> np.ndarray:
    """A node sees itself and its neighbours."""
    return A.toarray() + np.eye(A.shape[0])


def walks_exact(A: Adjacency, length: int = 4) -> np.ndarray:
    """Expected meetings of random walks, normalised (GKAT)."""
    return random_walk_kernel(A, length).to_dense()


def walks_sampled(A: Adjacency, length: int = 4, walks: int = 50) -> np.ndarray:
    """Meetings of sampled walks (GKAT as published); the same graph has the same walks."""
    return random_walk_kernel(A, length, walks=walks, rng=A.nnz).to_dense()


def diffusion(A: Adjacency, time: float = 1.0) -> np.ndarray:
    """Heat kernel exp(-time L); what it is short of zero by rounding is zero."""
    return np.maximum(diffusion_kernel(A, time).to_dense(), 0)


def gcn(A: Adjacency) -> np.ndarray:
    """D^-1/2 (A + I) D^-1/2, the propagation matrix of graph convolutions."""
    scale = 1 / np.sqrt(1 + np.diff(A.indptr))
    return scale[:, None] * neighbours(A) * scale


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
