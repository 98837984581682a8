"""Functions of the distance that are short sums of exponentials: found, told from others, and multiplied by sweeps."""

import numpy as np
import pytest

from structmask import as_forest, explain, tree_mask
from structmask.graphs import exponentials
from structmask.graphs.windows import Windows
from tests import zoo

SUMS = {
    "cos": (np.cos, 1),
    "sin": (np.sin, 1),
    "exp": (lambda d: np.exp(-d), 1),
    "slow exp": (lambda d: np.exp(-1e-3 * d), 1),
    "one": (np.ones_like, 1),
    "damped": (lambda d: np.exp(-0.01 * d) * np.cos(3 * d + 1), 1),
    "two waves": (lambda d: np.cos(d) + 0.5 * np.cos(1.7 * d), 2),
    "wave and decay": (lambda d: np.cos(5 * d) - 2 * np.exp(-d / 7), 2),
    "decays": (lambda d: np.exp(-d) - 0.5 * np.exp(-d / 3) + 0.25 * np.exp(-d / 40), 3),
}
OTHERS = {
    "zero": np.zeros_like,
    "1/(1+d)": lambda d: 1 / (1 + d),
    "1/(1+d^2)": lambda d: 1 / (1 + d * d),
    "bell": lambda d: np.exp(-d * d),
    "step": lambda d: d <= 3,
    "line": lambda d: 1 + d,
    "grows": lambda d: np.exp(d / 1000),
    "chirp": lambda d: np.cos(d * d),
    "rough": lambda d: np.cos(1e6 * d * d),
    "cut": lambda d: np.where(d < 15, np.cos(d), 0),
    "not at zero": lambda d: np.where(d > 0, np.exp(-d), 0.5),
    "alternates": lambda d: np.exp(-d) * (1 + 1e-6 * np.sin(d * d)),
    "cancels": lambda d: (np.exp(-d) - np.exp(-(1 + 1e-7) * d)) * 1e7,
}


@pytest.fixture(autouse=True)
def looks_for_sums(monkeypatch):
    monkeypatch.setattr(exponentials, "MOST", 4)


def windows(f, reach, tolerance=1e-12):
    return Windows(f, reach / 2, reach, tolerance, 1000, 12)


@pytest.mark.parametrize("reach", [20.0, 6000.0, 3e5])
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_found(name, reach):
    f, terms = SUMS[name]
    found, d = exponentials.exponentials(windows(f, reach)), np.random.default_rng(0).random(1000) * reach
    assert found.z.size == terms
    np.testing.assert_allclose(found(d), f(d), rtol=0, atol=1e-14 * max(10, reach))  # what d is rounded by
    assert abs(found(np.zeros(1))[0] - f(np.zeros(1))[0]) < 1e-13


@pytest.mark.parametrize("reach", [20.0, 6000.0])
@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not(name, reach):
    assert exponentials.exponentials(windows(OTHERS[name], reach)) is None


def test_the_tolerance_decides():
    def nearly(d):
        return np.cos(d) + 1e-5 * np.cos(d * d)

    assert exponentials.exponentials(windows(nearly, 20.0, 1e-12)) is None
    assert exponentials.exponentials(windows(np.cos, 20.0, 1e-3)) is not None


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("kind", ["path", "star", "recursive", "forest", "binary"])
def test_products_agree_with_distances(name, kind, rng):
    f, n = SUMS[name][0], 700
    parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
    M, X = tree_mask(as_forest(parents=parents, lengths=lengths), f), rng.standard_normal((n, 3))
    assert M.panels.exponentials is not None or kind in {"star", "forest"}  # too short to tell waves; nothing to merge
    distances = zoo.distances(parents, lengths)
    dense = np.where(np.isfinite(distances), f(np.where(np.isfinite(distances), distances, 0.0)), 0.0)
    scale = abs(dense).sum(axis=1).max() * abs(X).max()
    np.testing.assert_allclose(M @ X, dense @ X, rtol=0, atol=1e-12 * scale)
    assert M.error_estimate < 1e-11


@pytest.mark.parametrize("dtype", ["f", "d", "F", "D"])
def test_any_operand(dtype, monkeypatch, rng):
    forest = as_forest(parents=zoo.tree("forest", 200), lengths=zoo.lengths("real", 200))
    X = (rng.standard_normal((2, 3, 200, 5)) + 1j * rng.standard_normal((2, 3, 200, 5))).astype(
        dtype if dtype in "FD" else dtype.upper()
    )
    X = X if dtype in "FD" else X.real.copy()
    M = tree_mask(forest, np.cos) * (2 - 1j if dtype in "FD" else 2.0)
    found = M @ X
    monkeypatch.setattr(exponentials, "MOST", 0)
    want = tree_mask(as_forest(parents=zoo.tree("forest", 200), lengths=zoo.lengths("real", 200)), np.cos)
    want = (want * (2 - 1j if dtype in "FD" else 2.0)) @ X
    assert found.dtype == want.dtype
    np.testing.assert_allclose(found, want, rtol=0, atol=(1e-5 if dtype in "fF" else 1e-11) * abs(want).max())


def test_explain_counts_sweeps():
    forest = as_forest(parents=np.arange(5000) - 1, lengths=np.full(5000, 0.7))
    assert explain(tree_mask(forest, np.cos)).flops < 1e6


def test_lengths_keep_their_gradient(rng):
    n = 40
    parents, lengths = zoo.tree("recursive", n), zoo.lengths("real", n)
    X, G = rng.standard_normal((2, n, 2))
    M = tree_mask(as_forest(parents=parents, lengths=lengths), np.cos, derivative=lambda d: -np.sin(d))
    found, v, h = M.pullback(G, X)["lengths"], 7, 1e-5
    ends = []
    for step in (h, -h):
        moved = lengths.copy()
        moved[v] += step
        ends.append(np.sum(G * (tree_mask(as_forest(parents=parents, lengths=moved), np.cos) @ X)))
    assert abs(found[v] - (ends[0] - ends[1]) / (2 * h)) < 1e-7 * abs(found).max()
