"""Laplacians are their definition, and no eigenvalue exceeds the bound."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as matrices

from structmask import as_adjacency, laplacian, spectral_bound
from tests import naive

KINDS = ("combinatorial", "symmetric", "random_walk")

weighted = st.integers(1, 7).flatmap(
    lambda n: matrices(float, (n, n), elements=st.sampled_from([0.0, 0.0, 1.0, 1e-3, 1e3, 2.5]))
)


@given(weighted, st.sampled_from(KINDS))
def test_laplacian_is_its_definition(half, kind):
    W = half + half.T
    L = laplacian(W, kind=kind)
    assert isinstance(L, scipy.sparse.csr_array)
    assert L.has_canonical_format
    assert (L.diagonal() != 0).sum() <= L.nnz
    np.testing.assert_allclose(L.toarray(), naive.laplacian(W, kind), rtol=1e-13, atol=1e-13)


@given(weighted, st.sampled_from(KINDS))
def test_spectrum_lies_between_zero_and_the_bound(half, kind):
    W = half + half.T
    bound = spectral_bound(W, kind=kind)
    values = np.linalg.eigvals(naive.laplacian(W, kind)).real
    assert -1e-12 * bound <= values.min()
    assert values.max() <= bound * (1 + 1e-13)
    without = W - np.diag(np.diag(W))
    d = without.sum(axis=1)
    if kind == "combinatorial" and without.any():
        assert bound <= max((d[:, None] + d)[without > 0]) * (1 + 1e-12)  # Anderson and Morley


@pytest.mark.parametrize(
    ("graph", "largest", "width"),
    [
        (nx.star_graph(200), 201.0, 1.001),
        (nx.complete_bipartite_graph(3, 40), 43.0, 1.001),
        (nx.cycle_graph(40), 4.0, 1.001),
        (nx.barabasi_albert_graph(300, 2, seed=1), None, 1.05),
    ],
    ids=range(4),
)
def test_bound_is_tight_where_hubs_rule(graph, largest, width):
    if largest is None:
        largest = np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray())[-1]
    assert largest <= spectral_bound(graph) <= width * largest


def test_isolated_nodes_and_loops():
    W = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    np.testing.assert_array_equal(laplacian(W).toarray()[:2, :2], [[1, -1], [-1, 1]])
    assert not laplacian(W).toarray()[2:].any()
    np.testing.assert_allclose(laplacian(W, kind="random_walk").toarray()[0], [1 / 3, -1 / 3, 0, 0])
    assert not laplacian(W, kind="random_walk").toarray()[2:].any()
    assert spectral_bound(W) == pytest.approx(2.0)
    huge = np.array([[1e20, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(laplacian(huge).toarray(), [[1, -1], [-1, 1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nodes", [0, 1, 2])
def test_small_graphs(nodes, kind):
    L = laplacian(nx.complete_graph(nodes), kind=kind)
    np.testing.assert_array_equal(L.toarray(), np.eye(nodes) * (nodes == 2) - (np.ones((nodes, nodes)) - np.eye(nodes)))
    assert spectral_bound(nx.complete_graph(nodes), kind=kind) == pytest.approx(2)


@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_input_are_kept(kind):
    W = as_adjacency(nx.path_graph(5)).astype("float32")
    for part in (W.data, W.indices, W.indptr):
        part.setflags(write=False)
    assert laplacian(W, kind=kind).dtype == "float32"
    assert laplacian(W.astype(int), kind=kind).dtype == "float64"
    np.testing.assert_array_equal(W.toarray(), nx.to_numpy_array(nx.path_graph(5)))


def test_errors():
    with pytest.raises(ValueError, match=r"unknown kind 'signless'.*'combinatorial', 'symmetric', 'random_walk'"):
        laplacian(np.eye(2), kind="signless")
    with pytest.raises(ValueError, match="unknown kind"):
        spectral_bound(np.eye(2), kind="signless")
    for function in (laplacian, spectral_bound):
        with pytest.raises(ValueError, match="undirected"):
            function(nx.DiGraph([(0, 1)]))
        with pytest.raises(ValueError, match="non-negative"):
            function(np.array([[0.0, -1.0], [-1.0, 0.0]]))
