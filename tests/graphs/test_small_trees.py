"""Masks of small trees keep their entries: the same products as by merges, to the accuracy of those."""

import numpy as np
import pytest

from structmask import as_forest, explain, masked_attention, tree_mask, use_backend
from structmask.graphs import tree_table
from tests import naive, zoo


@pytest.fixture
def keeps_entries(monkeypatch):
    monkeypatch.setattr(tree_table, "SMALL", 512)


def tables(n, dtype="d", batch=()):
    forest = as_forest(parents=zoo.tree("forest", n))
    values = np.random.default_rng(n).standard_normal((*batch, 5)).astype(dtype)
    return tree_mask(forest, values + 1j * values[..., ::-1] if dtype in "FD" else values)


def function(n, f=np.cos, scale=1.0):
    return tree_mask(as_forest(parents=zoo.tree("forest", n), lengths=zoo.lengths("real", n)), f) * scale


MASKS = {
    "table": tables,
    "tables": lambda n: tables(n, batch=(3, 1)),
    "complex table": lambda n: tables(n, "D"),
    "cos": function,
    "1/(1+d)": lambda n: function(n, lambda d: 1 / (1 + d)),
    "complex scale": lambda n: function(n, scale=2 - 1j),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("n", [0, 1, 2, 40])
@pytest.mark.parametrize("dtype", ["f", "d", "F", "D"])
def test_products_by_entries_and_by_merges_agree(name, n, dtype, monkeypatch, rng):
    M, X = MASKS[name](n), rng.standard_normal((3, 2, n, 3)).astype(dtype)
    X = X if dtype in "fd" else X + 1j * X[::-1]
    by_merges = M @ X
    monkeypatch.setattr(tree_table, "SMALL", 512)
    M = MASKS[name](n)
    by_entries = M @ X
    assert by_entries.dtype == by_merges.dtype
    assert by_entries.shape == by_merges.shape
    scale, tolerance = abs(by_merges).max(initial=1), 1e-5 if dtype in "fF" else 1e-11
    np.testing.assert_allclose(by_entries, by_merges, rtol=0, atol=tolerance * scale)
    np.testing.assert_array_equal(M @ X, by_entries)  # what is kept is not spoilt


def test_which_trees_are_small(keeps_entries):
    assert tree_table.is_small(function(512), 10**6)
    assert not tree_table.is_small(function(513), 17)
    assert tree_table.is_small(function(1024), 16)
    assert not tree_table.is_small(function(1025), 1)
    assert not tree_table.is_small(tables(512, batch=(17,)), 1)  # no more than 32 MiB are kept


def test_explain_counts_the_entries(keeps_entries):
    assert explain(function(200), columns=3).flops == 2.0 * 200**2 * 3
    with use_backend("numpy"):
        assert explain(function(200), columns=3).flops == 2.0 * 200**2 * 3


def test_gradients_and_attention_do_not_mind(keeps_entries, rng):
    X, G = rng.standard_normal((2, 30, 2))
    M = tables(30)
    want = [np.sum((G @ X.T)[M.forest.distances(*np.indices((30, 30))) == d]) for d in range(5)]
    np.testing.assert_allclose(M.pullback(G, X)["values"], want, atol=1e-12)
    q, k, v = abs(rng.standard_normal((3, 30, 4)))
    M = function(30, lambda d: np.exp(-d))
    want = naive.masked_attention(q, k, v, M.to_dense())
    np.testing.assert_allclose(masked_attention(q, k, v, mask=M, features=None), want, rtol=1e-12)
