"""Decay along paths: on every tree, with every kind of factor, and as the mask of attention."""

import numpy as np
import pytest

from structmask import LowRank, as_forest, explain, masked_attention, random_lengths, tree_decay, use_backend
from structmask.graphs import Forest
from structmask.linalg.hadamard import masked_product, masked_pullback
from tests import naive, zoo
from tests.cases import complex_, gates, real


def exponential(D, rate):
    finite = np.isfinite(D)
    return np.where(finite, np.exp(-rate * np.where(finite, D, 0.0)), 0)


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("weights", ["real", "unit", "zeros"])
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_product_is_that_of_all_distances(kind, weights, backend, close):
    for n in (1, 2, 3, 50, 400):
        parents, lengths = zoo.tree(kind, n), zoo.lengths(weights, n)
        forest, D, X = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths), real(n, 11)
        with use_backend(backend):
            for rate in (0.7, 0.01, -0.02, 0.1 + 0.3j):
                want = exponential(D, rate)
                close(tree_decay(forest, rate) @ X, want @ X, scale=(abs(want) @ abs(X)).max())


@pytest.mark.parametrize("kind", ["path", "star", "deep", "pruefer"])
def test_large_trees(kind, close):
    n = 3000
    parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
    M, D, X = tree_decay(as_forest(parents=parents, lengths=lengths), 0.3), zoo.distances(parents, lengths), real(n, 3)
    close(M @ X, exponential(D, 0.3) @ X, scale=(exponential(D, 0.3) @ abs(X)).max())
    rows = np.arange(0, n, 97)
    close(M.entries(rows, slice(None)), exponential(D, 0.3)[rows])


@pytest.mark.parametrize("factors", [gates(2, 30), real(30), complex_(30), np.zeros(30), 3 * real(30)], ids=str)
def test_any_factors(factors, close):
    parents, X = zoo.tree("recursive", 30), real(30, 3)
    M, want = tree_decay(as_forest(parents=parents), factors=factors), naive.tree_decay(parents, factors)
    close(M @ X, want @ X, scale=(abs(want) @ abs(X)).max())
    close(M.to_dense(), want)


def test_rows_of_small_entries_keep_their_digits():
    """Nothing is subtracted that could cancel: every row is accurate relative to itself."""
    parents, X = np.arange(200) - 1, 10.0 ** -np.arange(200)[:, None]
    M = tree_decay(as_forest(parents=parents), 3.0)
    np.testing.assert_allclose(M @ X, M.to_dense() @ X, rtol=1e-12)


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_polynomials_times_exponentials(kind, close):
    c = np.array([0.0, 2.0, -1.0, 0.25])
    for n in (1, 2, 300):
        parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
        forest, D, X = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths), real(n, 11)
        finite = np.isfinite(D)
        d = np.where(finite, D, 0.0)
        for rate in (0.9, 0.0, -0.05, 0.4 + 1j):
            want = np.where(finite, np.polyval(c[::-1], d) * np.exp(-rate * d), 0)
            M = tree_decay(forest, rate, polynomial=c)
            close(M @ X, want @ X, scale=(abs(want) @ abs(X)).max())
            close(M.to_dense(), want)
    with use_backend("numpy"):
        close(tree_decay(forest, 0.9, polynomial=c) @ X, tree_decay(forest, 0.9, polynomial=c).to_dense() @ X)


def test_two_complex_rates_make_a_wave(close):
    parents, lengths = zoo.tree("deep", 60), zoo.lengths("real", 60)
    forest, D, X = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths), real(60, 2)
    wave = 0.5 * (tree_decay(forest, 0.1 + 2j) + tree_decay(forest, 0.1 - 2j))
    close((wave @ X).real, (np.exp(-0.1 * D) * np.cos(2 * D)) @ X)


def test_parallel_and_serial_sweeps_agree(close):
    n = 30_000
    forest = as_forest(parents=zoo.tree("recursive", n), lengths=zoo.lengths("real", n))
    M, X = tree_decay(forest, np.array([0.1, 0.9])), real(n, 21)
    Y = M @ X
    np.testing.assert_array_equal(Y, M @ X)
    close(Y[..., :3], M @ X[:, :3])
    close((tree_decay(forest, -1e-3) @ X)[:, :3], tree_decay(forest, -1e-3) @ X[:, :3])


def test_expected_mask_is_the_mean_over_random_lengths(rng):
    parents, scale = zoo.tree("binary", 7), np.linspace(0.5, 2.0, 7)
    sample = rng.gamma(2.0, scale, size=(40_000, 7))
    mean = naive.tree_decay(parents, np.exp(-0.8 * sample)).mean(axis=0)
    factors = random_lengths.gamma(0.8, shape=2.0, scale=scale)
    np.testing.assert_allclose(tree_decay(as_forest(parents=parents), factors=factors).to_dense(), mean, atol=0.01)


def test_transforms_agree_where_distributions_do():
    s, mean = np.linspace(0, 3, 5), 1.7
    np.testing.assert_allclose(random_lengths.gamma(s, shape=1.0, scale=mean), random_lengths.exponential(s, mean=mean))
    many = random_lengths.gamma(s, shape=1e8, scale=mean / 1e8)  # the law of large numbers
    np.testing.assert_allclose(many, random_lengths.deterministic(s, length=mean), rtol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("method", ["auto", "dense", "stream", "scan"])
def test_attention(method, backend, close):
    if method == "scan" and backend == "numpy":
        pytest.skip("a compiled kernel")
    n = 90
    parents, lengths = zoo.tree("forest", n), zoo.lengths("real", n)
    mask = tree_decay(as_forest(parents=parents, lengths=lengths), np.array([0.2, 1.5]))
    F, G, X = abs(real(2, n, 4)), abs(real(n, 4, seed=1)), real(n, 3, seed=2)
    want = naive.masked_attention(F, G, X, exponential(zoo.distances(parents, lengths), mask.rate[:, None, None]))
    with use_backend(backend):
        close(masked_attention(F, G, X, mask=mask, features=None, method=method), want)
        Y, mass = masked_product(mask, F, G, X, method, with_mass=True)
        close(Y / mass[..., None], want)


def test_explain_knows_the_mask():
    mask = tree_decay(as_forest(parents=np.arange(4000) - 1), 0.1)
    assert explain(mask, columns=4).method == "product"
    assert explain(mask, columns=4).flops < 4000**2
    assert explain(mask * LowRank(real(4000, 2), real(4000, 2)), columns=2).method != "dense"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (tree_decay, TypeError, "one of them"),
        (lambda f: tree_decay(f, 1.0, factors=np.ones(3)), TypeError, "one of them"),
        (lambda f: tree_decay(f, factors=np.ones(2)), ValueError, "shape"),
        (lambda f: tree_decay(f, factors=np.float64(1)), ValueError, "shape"),
        (lambda f: tree_decay(f, "fast"), TypeError, "dtype"),
        (lambda f: tree_decay(f, factors=np.ones(3), polynomial=[1.0]), TypeError, "goes with a rate"),
        (lambda f: tree_decay(f, np.ones(2), polynomial=[1.0]), TypeError, "one rate"),
        (lambda f: tree_decay(f, 1.0, polynomial=[]), ValueError, "Q >= 1"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(as_forest(parents=[-1, 0, 1]))


@pytest.mark.parametrize("mask", ["rates", "factors", "hidden"])
def test_all_gradients_in_one_pass(mask, close):
    """Those of <P, (M * F G^T) X> for the mask, F, G and X, beside the mask's own pullback feature by feature."""
    parents, n = zoo.tree("forest", 70), 70
    M = {
        "rates": tree_decay(as_forest(parents=parents, lengths=zoo.lengths("zeros", n)), np.array([0.2, 1.5])),
        "factors": tree_decay(as_forest(parents=parents), factors=2 * gates(n) - 1),
        "hidden": tree_decay(Forest(parents, zoo.lengths("real", n), hidden=9), 0.4),
    }[mask]
    n = M.shape[-1]
    F, G, P, X = real(2, n, 5), real(n, 5, seed=1), real(2, n, 19, seed=2), real(n, 19, seed=3)
    d_mask, dF, dG, dX = M._scan_pullback(F, G, P, X)
    D = M.to_dense()
    close(dF, (D * (P @ X.T)) @ G)
    close(dG, np.swapaxes(D * (P @ X.T), -1, -2) @ F)
    close(dX, np.swapaxes(D * (F @ G.T), -1, -2) @ P)
    terms = [M.pullback(F[..., [r]] * P, np.broadcast_to(G[:, [r]] * X, P.shape)) for r in range(5)]
    for name, value in d_mask.items():
        close(value, sum(term[name] for term in terms))


@pytest.mark.parametrize("kind", ["path", "recursive", "star"])
def test_gradients_of_attention_subtract_nothing(kind):
    """Each is accurate relative to itself, however heavy one part of the tree is beside another."""
    n = 400
    weight = np.where(np.arange(n) > n // 2, 1e9, 1.0)[:, None]
    F, G, P, X = (abs(real(n, k, seed=k)) * w + 0.1 for k, w in ((3, weight), (2, weight), (5, 1), (4, 1)))
    M = tree_decay(as_forest(parents=zoo.tree(kind, n)), factors=1 - 0.01 * gates(n))
    got = M._scan_pullback(F[:, :2], G, P[:, :4], X)[0]["factors"]
    expected = sum(M.pullback(F[:, [r]] * P[:, :4], G[:, [r]] * X)["factors"] for r in range(2))
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_attention_trains_through_a_tree(close):
    """The backward pass of masked attention on one thread and on all."""
    n = 3000
    M = tree_decay(as_forest(parents=zoo.tree("recursive", n), lengths=zoo.lengths("real", n)), 0.3)
    F, G, P, X = abs(real(n, 16)), abs(real(n, 16, seed=1)), real(n, 30, seed=2), real(n, 30, seed=3)
    assert explain(M * LowRank(F, G), columns=30).method == "scan"
    d_mask, dF, dG, dX = masked_pullback(M, F, G, P, X, columns=X.shape[-1])
    close(dF, masked_product(M, P, X, G)[0])
    close(dG, masked_product(M, X, P, F)[0])
    close(dX, masked_product(M, G, F, P)[0])
    steps = [masked_product(tree_decay(M.forest, 0.3 + s), F, G, X)[0] for s in (1e-5, -1e-5)]
    close(d_mask["rate"], np.vdot(P, steps[0] - steps[1]) / 2e-5, tolerance=1e-6)
