"""Every container of a graph gives the same adjacency matrix."""

import igraph
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from structmask import as_adjacency
from structmask.graphs.adjacency import is_symmetric, undirected
from tests import naive


@st.composite
def graphs(draw):
    """Number of nodes, edges with loops and parallel ones, weights."""
    nodes = draw(st.integers(1, 6))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=12))
    weights = draw(st.lists(st.integers(1, 9), min_size=len(edges), max_size=len(edges)))
    return nodes, edges, weights


@given(graphs(), st.booleans())
def test_every_container_gives_the_same_matrix(graph, directed):
    nodes, edges, weights = graph
    want = naive.adjacency(nodes, edges, weights, directed=directed)
    multigraph = (nx.MultiDiGraph if directed else nx.MultiGraph)()
    multigraph.add_nodes_from(range(nodes))
    multigraph.add_edges_from((i, j, {"weight": w}) for (i, j), w in zip(edges, weights, strict=True))
    other = igraph.Graph(nodes, edges, directed=directed, edge_attrs={"weight": weights})
    for container in (multigraph, other, want, want.tolist(), scipy.sparse.coo_array(want)):
        W = as_adjacency(container)
        assert isinstance(W, scipy.sparse.csr_array)
        assert (W.dtype, W.has_canonical_format) == (np.float64, True)
        np.testing.assert_array_equal(W.toarray(), want)
    listed = [*edges, *((j, i) for i, j in edges if i != j)] if not directed else edges
    doubled = [*weights, *(w for (i, j), w in zip(edges, weights, strict=True) if i != j)] if not directed else weights
    W = as_adjacency(nodes=nodes, edges=np.array(listed, dtype=int).reshape(-1, 2).T, weights=doubled)
    np.testing.assert_array_equal(W.toarray(), want)


def test_networkx_nodes_are_numbered_in_the_order_of_the_graph():
    G = nx.Graph()
    G.add_weighted_edges_from([("c", "a", 2.0), ("a", "b", 3.0)], weight="length")
    np.testing.assert_array_equal(as_adjacency(G, weight="length").toarray(), [[0, 2, 0], [2, 0, 3], [0, 3, 0]])
    np.testing.assert_array_equal(as_adjacency(G).toarray(), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(as_adjacency(G, weight=None).toarray(), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(as_adjacency(igraph.Graph.from_networkx(G), weight="length").toarray()[0], [0, 2, 0])


@pytest.mark.parametrize("kind", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_sparse_formats_keep_their_precision(kind, dtype):
    dense = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 1]]).astype(dtype)
    for container in (scipy.sparse.coo_array, scipy.sparse.coo_matrix):
        W = as_adjacency(container(dense).asformat(kind))
        assert W.dtype == (dtype if dtype.startswith("float") else "float64")
        np.testing.assert_array_equal(W.toarray(), dense)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_input_is_kept_and_never_modified(index):
    unsorted = scipy.sparse.csr_array(
        (np.array([3.0, 1.0, 2.0]), np.array([2, 0, 2], dtype=index), np.array([0, 3, 3, 3], dtype=index)), shape=(3, 3)
    )
    before = [a.copy() for a in (unsorted.data, unsorted.indices, unsorted.indptr)]
    for part in (unsorted.data, unsorted.indices, unsorted.indptr):
        part.setflags(write=False)
    W = as_adjacency(unsorted)
    np.testing.assert_array_equal(W.toarray(), [[1, 0, 5], [0, 0, 0], [0, 0, 0]])
    assert W.has_canonical_format
    for now, then in zip((unsorted.data, unsorted.indices, unsorted.indptr), before, strict=True):
        np.testing.assert_array_equal(now, then)
    wide = scipy.sparse.csr_array(np.eye(3))
    wide.indices, wide.indptr = wide.indices.astype(index), wide.indptr.astype(index)
    assert as_adjacency(wide).indices.dtype == index


def test_stored_zeros_are_edges_and_dense_zeros_are_not():
    stored = scipy.sparse.coo_array((np.zeros(1), ([0], [1])), shape=(2, 2))
    assert as_adjacency(stored).nnz == 1
    assert as_adjacency(nx.Graph([(0, 1, {"weight": 0})])).nnz == 2
    assert as_adjacency(np.zeros((2, 2))).nnz == 0


def test_graphs_without_edges_or_nodes():
    for nodes in (0, 1, 3):
        for graph in (nx.empty_graph(nodes), igraph.Graph(nodes), np.zeros((nodes, nodes))):
            assert as_adjacency(graph).shape == (nodes, nodes)
        assert as_adjacency(nodes=nodes, edges=[[], []]).nnz == 0
        assert as_adjacency(nodes=nodes, edges=np.zeros((2, 0))).nnz == 0


def test_symmetry_is_told_up_to_rounding(rng):
    dense = rng.random((9, 9)) * (rng.random((9, 9)) < 0.4)
    W = as_adjacency(dense + dense.T)
    assert is_symmetric(W)
    nearly = W.copy()
    nearly.data *= 1 + 1e-15 * np.arange(W.nnz)
    assert is_symmetric(nearly)
    for change in (1e-3, -1.0):
        other = W.copy()
        other.data[np.argmax(other.indices != 0)] *= 1 + change
        assert not is_symmetric(other)
    one_way = as_adjacency(nodes=3, edges=[[0, 1], [1, 2]])
    assert not is_symmetric(one_way)
    assert is_symmetric(as_adjacency(nodes=3, edges=[[0], [1]], weights=[0.0]))  # a stored zero weighs nothing


def test_directions_and_signs_are_refused_where_theory_needs_none():
    with pytest.raises(ValueError, match=r"heat needs an undirected graph.*pass W \+ W.T.*MarkovProcess"):
        undirected(nx.DiGraph([(0, 1)]), "heat")
    with pytest.raises(ValueError, match="heat needs non-negative edge weights, got -1"):
        undirected(-np.ones((2, 2)), "heat")
    np.testing.assert_array_equal(undirected(np.ones((2, 2)), "heat").toarray(), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((), ValueError, "takes a graph, or edges="),
        ((np.eye(2), {"edges": [[0], [1]]}), ValueError, "not both"),
        ((np.eye(2), {"nodes": 2}), ValueError, "belong to edges="),
        (({"edges": [[0], [1]]},), ValueError, "needs nodes="),
        (({"nodes": 2, "edges": [[0], [2]]},), ValueError, "reach from 0 to 2"),
        (({"nodes": 2, "edges": [[0], [-1]]},), ValueError, "reach from -1 to 0"),
        (({"nodes": -1, "edges": [[], []]},), ValueError, "nodes=-1"),
        (({"nodes": 2, "edges": [[0, 1]]},), ValueError, r"integers \(2, E\).*shape \(1, 2\)"),
        (({"nodes": 2, "edges": [[0.5], [1]]},), ValueError, "dtype float64"),
        (({"nodes": 2, "edges": [[0], [1]], "weights": [1.0, 2.0]},), ValueError, r"as many weights, got shape \(2,\)"),
        ((np.ones((2, 3)),), ValueError, r"square, got shape \(2, 3\)"),
        ((np.ones(3),), ValueError, r"matrix \(n, n\), got shape \(3,\)"),
        ((np.array([[0, np.nan], [np.nan, 0]]),), ValueError, "finite, got nan"),
        ((scipy.sparse.coo_array([[0, np.inf], [0, 0]]),), ValueError, "finite"),
        ((np.eye(2) * 1j,), TypeError, "real numbers, got complex128"),
        (("path",), TypeError, "networkx or igraph graph.*got str"),
        ((nx.Graph([(0, 1, {"weight": "heavy"})]),), TypeError, "edge weights has dtype"),
    ],
    ids=range(17),
)
def test_what_is_no_graph_is_refused(arguments, kind, message):
    options = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
    positional = arguments[:-1] if options else arguments
    with pytest.raises(kind, match=message):
        as_adjacency(*positional, **options)
