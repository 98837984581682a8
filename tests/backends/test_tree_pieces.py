"""Forests in pieces: they hold together, and products and gradients by pieces are those of the whole."""

import numpy as np
import pytest

from structmask import as_forest, tree_decay
from structmask.backends._numba import tree_pieces
from tests import zoo
from tests.cases import real

KINDS = ("path", "star", "caterpillar", "recursive", "binary", "deep", "forest")


@pytest.fixture(params=[1, 2, 5, 16])
def size(monkeypatch, request):
    """Nodes of a piece."""
    monkeypatch.setattr(tree_pieces, "WHOLE", 0)
    monkeypatch.setattr(tree_pieces, "SIZE", request.param)
    return request.param


def parents_of(found, n):
    """Positions of parents, put together from the pieces; open nodes are told apart by the leaves they come from."""
    parents, opened = np.full(n, -1), {}
    for b in range(found.roots.size):
        begin, end = found.start[b], found.start[b + 1]
        node, first = found.position[begin:end].copy(), found.first[begin + b : end + b + 1]
        is_open = found.opens[b + 1] - found.opens[b]
        node[:is_open] = [opened[found.opens[b] + k] for k in range(is_open)]
        leaves = found.leaf[found.opens[b + 1] :]
        assert first[0] == found.roots[b]
        assert first[-1] == end - begin
        for i in range(end - begin):
            for j in range(first[i], first[i + 1]):
                if node[j] >= 0:
                    parents[node[j]] = node[i]
                else:
                    later = found.opens[b + 2] - found.opens[b + 1]
                    opened[found.opens[b + 1] + list(leaves[:later]).index(j)] = node[i]
    return parents


@pytest.mark.parametrize("n", [1, 2, 3, 40, 301])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_the_forest(size, kind, n):
    forest = as_forest(parents=zoo.tree(kind, n))
    found = tree_pieces.pieces(forest.first, forest.up, forest.roots)
    np.testing.assert_array_equal(np.sort(found.position[found.position >= 0]), np.arange(n))
    expected = forest.up.copy()
    expected[: forest.roots] = -1
    np.testing.assert_array_equal(parents_of(found, n), expected)
    assert (np.diff(found.opens) <= np.log2(n) + 1).all()
    assert (np.diff(found.start) <= size + 2 * (np.log2(n) + 1)).all()


def test_a_small_forest_is_one_piece():
    forest = as_forest(parents=zoo.tree("recursive", 50))
    found = tree_pieces.pieces(forest.first, forest.up, forest.roots)
    np.testing.assert_array_equal(found.position, np.arange(50))
    assert found.leaf.size == 0


@pytest.mark.parametrize(("r", "k"), [(1, 1), (9, 5), (17, 19)])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_gradients_by_pieces(size, kind, r, k, close):
    n = 75
    M = tree_decay(as_forest(parents=zoo.tree(kind, n)), factors=2 * np.random.default_rng(size).random((2, n)) - 1)
    F, G, P, X = real(2, n, r), real(n, r, seed=1), real(2, n, k, seed=2), real(n, k, seed=3)
    D, R, Q = M.to_dense(), F @ G.T, P @ X.T
    close(M._scan(F, G, X), (D * R) @ X)
    d_mask, dF, dG, dX = M._scan_pullback(F, G, P, X)
    close(dF, (D * Q) @ G)
    close(dG, np.swapaxes(D * Q, -1, -2) @ F)
    close(dX, np.swapaxes(D * R, -1, -2) @ P)
    terms = [M.pullback(F[..., [s]] * P, np.broadcast_to(G[:, [s]] * X, P.shape))["factors"] for s in range(r)]
    close(d_mask["factors"], sum(terms))


def test_long_trees_in_their_own_pieces(close):
    """Cut as the library does, on all threads, in single precision."""
    n = 9000
    M = tree_decay(as_forest(parents=zoo.tree("recursive", n)), 0.3)
    F, G, X = (a.astype(np.float32) for a in (real(n, 9), real(n, 9, seed=1), real(n, 20, seed=2)))
    expected = sum(F[:, [s]] * (M @ (G[:, [s]] * X).astype(float)) for s in range(9))
    got = M._scan(F, G, X)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
