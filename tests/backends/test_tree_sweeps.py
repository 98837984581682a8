"""Products with tree masks on the CPU: rows gathered for all threads, or swept where they are, the same numbers."""

import numpy as np
import pytest
from numba import get_num_threads, set_num_threads

from structmask import as_forest, tree_decay
from structmask.backends._numba import tree
from tests import zoo

KINDS = ["path", "star", "recursive", "forest", "binary"]


RATES = np.array([0.1, 2.0])


def decay(kind, n, rates=0.4):
    return tree_decay(as_forest(parents=zoo.tree(kind, n), lengths=zoo.lengths("real", n)), rates)


def distances(kind, n):
    return zoo.distances(zoo.tree(kind, n), zoo.lengths("real", n))


@pytest.fixture
def every_way(monkeypatch):
    """Products with (..., k) columns: on all threads, on one, and with too few columns for threads of their own."""

    def products(mask, X):
        monkeypatch.setattr(tree, "SERIAL_SIZE", 0)
        yield mask @ X
        monkeypatch.setattr(tree, "get_num_threads", lambda: 1000)
        yield mask @ X
        monkeypatch.setattr(tree, "SERIAL_SIZE", 10**9)
        yield mask @ X

    return products


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 60, 900])
@pytest.mark.parametrize(("dtype", "tolerance"), [("d", 1e-13), ("f", 2e-6)])
def test_all_ways_agree_with_distances(kind, n, dtype, tolerance, every_way, rng):
    mask, kernel = decay(kind, n, RATES), np.exp(-RATES[:, None, None] * distances(kind, n))
    for k in (8, 16, 21):
        X = rng.standard_normal((2, n, k)).astype(dtype)
        want, found = kernel @ X.astype(float), list(every_way(mask, X))
        np.testing.assert_allclose(found[0], want, rtol=0, atol=tolerance * abs(want).max())
        assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize("kind", ["path", "recursive"])
def test_large_results_go_past_the_caches(kind, rng):
    """Those of more than 8 MiB; the same as a few columns at a time."""
    n = 70_001
    mask, X = decay(kind, n), rng.standard_normal((n, 24))
    Y = mask @ X
    assert Y.nbytes > 1 << 23
    parts = [mask @ X[:, first : first + 8] for first in (0, 8, 16)]
    np.testing.assert_array_equal(Y, np.concatenate(parts, axis=1))
    before = get_num_threads()
    set_num_threads(1)
    try:
        np.testing.assert_array_equal(mask @ X, Y)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only"])
def test_any_layout(layout, rng):
    mask, X = decay("recursive", 50), rng.standard_normal((50, 16))
    given = {"F": np.asfortranarray(X), "strided": np.repeat(X, 2, axis=1)[:, ::2]}.get(layout, X)
    if layout == "read-only":
        given.flags.writeable = False
    np.testing.assert_array_equal(mask @ given, mask @ X.copy())


def test_nan_stays_in_its_tree_and_column(rng):
    mask, X = decay("forest", 40), rng.standard_normal((40, 16))
    X[3, 5] = np.nan
    Y, touched = mask @ X, np.isfinite(distances("forest", 40)[:, 3])
    assert np.isnan(Y[touched, 5]).all()
    clean = np.isfinite(Y)
    clean[touched, 5] = True
    assert clean.all()
