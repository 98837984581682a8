"""Graphs as matrices: whatever holds a graph becomes one weighted adjacency matrix W in CSR form.

W_ij is the weight of the edge from i to j, parallel edges summed; an undirected edge stands on both sides of the
diagonal, a loop once on it. Everything else in the library knows graphs as such matrices and nodes as indices.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.elementary import as_csr

_SYMMETRY = 8 * arrays.unit_roundoff("float32")  # difference of mirrored weights, relative to them, that is rounding


def as_adjacency(
    graph: Any = None,
    /,
    *,
    weight: str | None = "weight",
    nodes: int | None = None,
    edges: Any = None,
    weights: Any = None,
) -> Any:
    """Weighted adjacency matrix of a graph: W_ij is the weight of the edge from i to j.

    Parameters
    ----------
    graph : networkx or igraph graph, sparse or dense matrix (n, n), optional
        The nodes of a networkx graph are numbered in the order of ``list(graph)``. A stored zero of a sparse matrix is
        an edge of weight zero; a zero of a dense one is no edge. Directed graphs and asymmetric matrices stay as they
        are.
    weight : str or None
        The edge attribute of a networkx or igraph graph that holds weights; an edge without it has weight 1, and so has
        every edge if None.
    nodes, edges, weights : int, array (2, E), array (E,), optional
        Instead of a graph: the number of nodes and the sources and targets of edges, by default of weight 1. An
        undirected edge is listed in both directions.

    Returns
    -------
    csr_array (n, n)
        With sorted indices, in the precision of the weights (float64 for integers). Parallel edges are summed, a loop
        is counted once. It may share memory with a sparse input, which is never modified.

    Raises
    ------
    TypeError
        If the argument is no graph, weights are complex or no numbers, or any of them is on a device.
    ValueError
        If the matrix is not square, weights are not finite, or edges and nodes do not fit.

    Notes
    -----
    O(n + E) operations.

    Examples
    --------
    >>> import networkx as nx
    >>> from structmask import as_adjacency
    >>> as_adjacency(nx.path_graph(3)).toarray()
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    >>> as_adjacency(nodes=3, edges=[[0, 0, 1], [1, 1, 2]]).toarray()
    array([[0., 2., 0.],
           [0., 0., 1.],
           [0., 0., 0.]])
    """
    if (graph is None) == (edges is None):
        msg = "as_adjacency takes a graph, or edges=(sources, targets) with nodes=count, and not both"
        raise ValueError(msg)
    if graph is not None:
        if nodes is not None or weights is not None:
            msg = "nodes= and weights= belong to edges=; a graph has its own"
            raise ValueError(msg)
        return _checked(_from_graph(graph, weight))
    return _checked(_from_edges(nodes, edges, weights))


def undirected(graph: Any, purpose: str) -> Any:
    """Adjacency of a graph whose edges have no direction and no negative weight, as theory needs for a `purpose`.

    Raises
    ------
    ValueError
        If weights are negative, or differ between the two directions of an edge by more than rounding.
    """
    W = as_adjacency(graph)
    if W.nnz and W.data.min() < 0:
        msg = f"{purpose} needs non-negative edge weights, got {W.data.min():.3g}; take absolute values if that fits"
        raise ValueError(msg)
    if not is_symmetric(W):
        msg = (
            f"{purpose} needs an undirected graph, but some edge has another weight in the other direction, or none; "
            "pass W + W.T if directions do not matter; diffusion along directed edges is MarkovProcess(...).evolve"
        )
        raise ValueError(msg)
    return W


def check_on_host(**given: Any) -> None:
    """Refuses parts of a graph, by name, that live on a device: graphs are prepared on the host."""
    for name, part in given.items():
        if any(arrays.home(a) == "cupy" for a in (part, *(part[:2] if isinstance(part, tuple | list) else ()))):
            msg = (
                f"graphs are prepared on the host, but {name} is on a device; pass structmask.to_numpy of it, and move "
                "the matrix that is made of the graph with .to('cupy')"
            )
            raise TypeError(msg)


def is_symmetric(W: Any) -> bool:
    """Whether W_ij = W_ji up to rounding for all entries of a sparse matrix."""
    T = scipy.sparse.csr_array(W.T)
    if np.array_equal(W.indptr, T.indptr) and np.array_equal(W.indices, T.indices):
        difference, size = np.abs(W.data - T.data), np.abs(W.data) + np.abs(T.data)
        return bool((difference <= _SYMMETRY * size).all())
    excess = abs(W - T) - _SYMMETRY * (abs(W) + abs(T))
    return not excess.nnz or bool(excess.max() <= 0)


# --- what holds graphs ------------------------------------------------------------------------------------------------


class _Edges(NamedTuple):
    """Ends and weights of the edges of a graph with so many nodes, each undirected edge once."""

    nodes: int
    sources: Array
    targets: Array
    weights: Array
    is_directed: bool


def _from_graph(graph: Any, weight: str | None) -> Any:
    library = type(graph).__module__.partition(".")[0]
    if arrays.is_sparse(graph) and arrays.home(graph) == "numpy":
        return as_csr(graph, "as_adjacency")
    check_on_host(graph=graph)
    if library == "networkx" or hasattr(graph, "is_multigraph"):
        return _assembled(_networkx(graph, weight))
    if library == "igraph" or hasattr(graph, "get_edgelist"):
        return _assembled(_igraph(graph, weight))
    dense = arrays.as_array(_array(graph), "as_adjacency")
    if dense.ndim != 2:
        msg = f"a dense graph is a matrix (n, n), got shape {tuple(dense.shape)}"
        raise ValueError(msg)
    return scipy.sparse.csr_array(dense)


def _array(graph: Any) -> Any:
    if isinstance(graph, list | tuple | np.ndarray):
        return graph
    msg = (
        f"as_adjacency takes a networkx or igraph graph, a scipy.sparse or dense matrix, or edges=, got "
        f"{type(graph).__name__}"
    )
    raise TypeError(msg)


def _networkx(graph: Any, weight: str | None) -> _Edges:
    index = {node: i for i, node in enumerate(graph)}
    listed = list(graph.edges(data=weight, default=1)) if weight is not None else [(u, v, 1) for u, v in graph.edges()]
    sources, targets = (np.array([index[edge[end]] for edge in listed], dtype=np.int64) for end in (0, 1))
    return _Edges(len(index), sources, targets, _numbers([edge[2] for edge in listed]), bool(graph.is_directed()))


def _igraph(graph: Any, weight: str | None) -> _Edges:
    ends = np.array(graph.get_edgelist(), dtype=np.int64).reshape(-1, 2)
    has_weights = weight is not None and weight in graph.es.attributes()
    values = [1 if w is None else w for w in graph.es[weight]] if has_weights else [1] * len(ends)
    return _Edges(graph.vcount(), ends[:, 0], ends[:, 1], _numbers(values), bool(graph.is_directed()))


def _numbers(values: list[Any]) -> Array:
    return arrays.as_array(np.asarray(values) if values else np.zeros(0), "edge weights")


def _assembled(edges: _Edges) -> Any:
    """Edges as a matrix, undirected ones in both directions."""
    n, sources, targets, weights, is_directed = edges
    if not is_directed:
        mirrored = sources != targets
        sources, targets = np.r_[sources, targets[mirrored]], np.r_[targets, sources[mirrored]]
        weights = np.r_[weights, weights[mirrored]]
    return as_csr(scipy.sparse.coo_array((weights, (sources, targets)), shape=(n, n)), "as_adjacency")


def _from_edges(nodes: Any, edges: Any, weights: Any) -> Any:
    if nodes is None:
        msg = "edges= needs nodes=, the number of nodes: isolated ones have no edge to tell of them"
        raise ValueError(msg)
    check_on_host(edges=edges, weights=weights)
    n, ends = operator.index(nodes), np.asarray(edges)
    if ends.size == 0:
        ends = np.zeros((2, 0), dtype=np.int64)
    if ends.ndim != 2 or ends.shape[0] != 2 or ends.dtype.kind not in "iu":
        msg = f"edges needs integers (2, E), sources above targets, got shape {ends.shape}, dtype {ends.dtype}"
        raise ValueError(msg)
    if n < 0:
        msg = f"a graph has no negative number of nodes, got nodes={n}"
        raise ValueError(msg)
    if ends.size and (ends.min() < 0 or ends.max() >= n):
        msg = f"edges name nodes 0 ... nodes - 1, nodes={n}, but reach from {ends.min()} to {ends.max()}"
        raise ValueError(msg)
    values = np.ones(ends.shape[1]) if weights is None else arrays.as_array(weights, "weights")
    if values.shape != ends.shape[1:]:
        msg = f"{ends.shape[1]} edges need as many weights, got shape {tuple(values.shape)}"
        raise ValueError(msg)
    return _assembled(_Edges(n, ends[0], ends[1], values, is_directed=True))


def _checked(W: Any) -> Any:
    if W.shape[0] != W.shape[1]:
        msg = f"an adjacency matrix is square, got shape {W.shape}"
        raise ValueError(msg)
    if W.dtype.kind == "c":
        msg = f"edge weights are real numbers, got {W.dtype}"
        raise TypeError(msg)
    if not np.isfinite(W.data).all():
        msg = "edge weights must be finite, got nan or infinity; leave out edges that are not there"
        raise ValueError(msg)
    return W
