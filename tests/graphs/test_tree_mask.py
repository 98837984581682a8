"""Any function of the distance: tables, panels, grids, steps, on every tree; gradients; what is refused."""

import warnings

import numpy as np
import pytest

from structmask import (
    ConvergenceWarning,
    LowRank,
    as_forest,
    explain,
    masked_attention,
    tree_decay,
    tree_mask,
    use_backend,
)
from structmask.graphs import TreeFunction, TreeTable
from structmask.graphs.merges import Merges
from structmask.linalg.hadamard import masked_product
from tests import naive, zoo
from tests.cases import complex_, real

FUNCTIONS = {
    "exp": lambda d: np.exp(-d),
    "inverse": lambda d: 1 / (1 + d),
    "inverse square": lambda d: 1 / (1 + d * d),
    "bell": lambda d: np.exp(-d * d),
    "cos": np.cos,
    "polynomial": lambda d: d - 0.3 * d**2 + 0.01 * d**3,
    "near": lambda d: d <= 3,
}


SIZES = {1: "real", 2: "zeros", 3: "unit", 50: "real", 300: "zeros", 400: "whole", 800: "real"}


def dense(D, f):
    finite = np.isfinite(D)
    return np.where(finite, f(np.where(finite, D, 0.0)), 0).astype(float)


def assert_product(M, want, X, tolerance=1e-12):
    """Errors relative to max |f| sum |x|, the norm of the estimate, and to the largest row."""
    error = np.abs(M @ X - want @ X).max(axis=0)
    assert (error <= tolerance * (abs(want) @ abs(X)).max(axis=0)).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_any_function_on_any_tree(kind, name):
    f = FUNCTIONS[name]
    for n, weights in SIZES.items():
        parents, lengths = zoo.tree(kind, n), zoo.lengths(weights, n)
        D, X = zoo.distances(parents, lengths), real(n, 3)
        M = tree_mask(as_forest(parents=parents, lengths=lengths), f)
        assert_product(M, dense(D, f), X)
        assert isinstance(M, TreeTable if M.forest.is_integer else TreeFunction)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["path", "star", "deep", "recursive"])
def test_large_trees(kind, name):
    n, f = 3000, FUNCTIONS[name]
    parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
    forest, X = as_forest(parents=parents, lengths=lengths), real(n, 2)
    M, want = tree_mask(forest, f), dense(zoo.distances(parents, lengths), f)
    assert_product(M, want, X)
    rows = np.arange(0, n, 211)
    np.testing.assert_allclose(M.entries(rows, slice(None)), want[rows], rtol=0, atol=1e-12 * abs(want).max())


@pytest.mark.parametrize("kind", zoo.KINDS)
@pytest.mark.parametrize("weights", ["unit", "whole"])
def test_random_tables(kind, weights):
    for n in (1, 2, 60, 1000):
        parents, lengths = zoo.tree(kind, n), zoo.lengths(weights, n)
        forest, D, X = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths), real(n, 3)
        for values in (real(int(forest.diameter) + 1), real(4)):
            padded = np.append(values, np.zeros(int(forest.diameter) + 2))
            want = dense(D, lambda d, padded=padded: padded[d.astype(int)])
            M = tree_mask(forest, values)
            assert_product(M, want, X)
            G = real(n, 3, seed=1)
            index = np.where(np.isfinite(D), D, padded.size - 1).astype(int)
            table = np.bincount(index.ravel(), weights=(G @ X.T).ravel(), minlength=values.size)[: values.size]
            np.testing.assert_allclose(M.pullback(G, X)["values"], table, atol=1e-12 * np.sum(abs(G) @ abs(X.T)))


def test_every_pair_of_nodes_is_met_once():
    for kind in zoo.KINDS:
        n = 300
        parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
        plan, D = Merges.of(as_forest(parents=parents, lengths=lengths)), zoo.distances(parents, lengths)
        met = np.zeros((n, n), int)
        for a, a_end, b, b_end in plan.merges:
            u, v = plan.order[plan.node[a:a_end]], plan.order[plan.node[b:b_end]]
            np.testing.assert_allclose(plan.dist[a:a_end, None] + plan.dist[b:b_end], D[np.ix_(u, v)], rtol=1e-13)
            met[np.ix_(u, v)] += 1
        for s, e in zip(plan.whole_pointers[:-1], plan.whole_pointers[1:], strict=True):
            block = plan.order[plan.whole_node[s:e]]
            met[np.ix_(block, block)] += np.tri(e - s, k=-1, dtype=int)
        np.testing.assert_array_equal(met + met.T, np.isfinite(D) & ~np.eye(n, dtype=bool))
        assert plan.reach >= D[np.isfinite(D)].max() * (1 - 1e-15)


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
@pytest.mark.parametrize("name", ["inverse", "bell", "cos", "polynomial"])
def test_tolerance_is_kept_and_estimated(name, tol):
    n, f = 1500, FUNCTIONS[name]
    for kind in ("path", "deep"):
        parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
        want = dense(zoo.distances(parents, lengths), f)
        absolute = tol * abs(want).max()
        M, X = tree_mask(as_forest(parents=parents, lengths=lengths), f, tol=absolute), real(n, 4)
        error = abs(M @ X - want @ X).max()
        assert error <= M.error_estimate * abs(X).sum(axis=0).max()
        assert absolute <= M.error_estimate <= 1.1 * absolute
        assert np.isnan(M.error_bound)


def test_small_tails_are_not_forgotten():
    """Many entries below tol add up: a test of windows relative to max |f| alone is off by far more than this."""
    n = 20_000
    M = tree_mask(as_forest(parents=np.arange(n) - 1, lengths=np.full(n, 1.5)), lambda d: 1 / (1 + d * d), tol=1e-6)
    i = np.arange(n)
    want = [(1 / (1 + (1.5 * (i - row)) ** 2)).sum() for row in (0, n // 2, n - 1)]
    np.testing.assert_allclose((M @ np.ones(n))[[0, n // 2, n - 1]], want, rtol=1e-7)


def test_peaks_between_samples_of_a_coarse_grid_are_seen():
    n = 4000
    forest = as_forest(parents=np.arange(n) - 1, lengths=np.full(n, 30.5))
    M = tree_mask(forest, lambda d: np.exp(-d * d))
    X = real(n, 2)
    np.testing.assert_allclose(M @ X, X, atol=1e-12)  # the identity, to rounding: distances are at least 30


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("values", [real(6), real(2, 6), complex_(40)], ids=["short", "heads", "complex"])
def test_columns_of_all_kinds(values, backend, close):
    n = 150
    parents, lengths = zoo.tree("forest", n), zoo.lengths("whole", n)
    M, D = tree_mask(as_forest(parents=parents, lengths=lengths), values), zoo.distances(parents, lengths)
    padded = np.concatenate([values, np.zeros((*values.shape[:-1], 200))], axis=-1)
    want = np.where(np.isfinite(D), padded[..., np.where(np.isfinite(D), D, 199).astype(int)], 0)
    with use_backend(backend):
        for X in (real(n, 11), complex_(n, 3), real(3, 1, n, 2), real(2, n, 9)):
            close(M @ X, want @ X, scale=(abs(want) @ abs(X)).max())


@pytest.mark.parametrize("mask", ["table", "function"])
@pytest.mark.parametrize("method", ["auto", "dense", "stream"])
def test_attention(method, mask, close):
    n = 140
    parents, lengths = zoo.tree("recursive", n), zoo.lengths("real" if mask == "function" else "whole", n)
    M, D = tree_mask(as_forest(parents=parents, lengths=lengths), FUNCTIONS["inverse"]), zoo.distances(parents, lengths)
    F, G, X = abs(real(2, n, 4)), abs(real(n, 4, seed=1)), real(n, 3, seed=2)
    want = naive.masked_attention(F, G, X, dense(D, FUNCTIONS["inverse"]))
    close(masked_attention(F, G, X, mask=M, features=None, method=method), want)
    single = [np.float32(a) for a in (F, G, X)]
    close(masked_attention(*single, mask=M, features=None, method=method), want)
    Y, mass = masked_product(M, F, G, X, method, with_mass=True)
    close(Y / mass[..., None], want)


SLOPES = {
    "inverse": lambda d: -1 / (1 + d) ** 2,
    "bell": lambda d: -2 * d * np.exp(-d * d),
    "cos": lambda d: -np.sin(d),
    "polynomial": lambda d: 1 - 0.6 * d + 0.03 * d**2,
    "near": lambda d: 0 * d,
}


def assert_length_gradient(M, parents, D, slope, tolerance):
    """A length enters the distances of the pairs on both sides of its edge."""
    n, P = len(parents), dense(D, slope)
    X, G = real(n, 9), real(n, 9, seed=1)
    pairs, below = P * (G @ X.T + X @ G.T), naive.subtrees(parents)
    want = [pairs[np.ix_(inside, ~inside)].sum() if p >= 0 else 0.0 for p, inside in zip(parents, below, strict=True)]
    scale = max(1.0, abs(P).max()) * np.sum(abs(G) @ abs(X.T))
    np.testing.assert_allclose(M.pullback(G, X)["lengths"], want, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_gradient_of_lengths(kind):
    """On zero and real lengths, from samples, and from a derivative that is given."""
    for n, weights in {1: "real", 2: "real", 60: "zeros", 150: "real"}.items():
        parents, lengths = zoo.tree(kind, n), zoo.lengths(weights, n)
        forest, D = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths)
        for name in ("inverse", "bell") if n > 2 else ("cos", "polynomial", "near"):
            assert_length_gradient(TreeFunction(forest, FUNCTIONS[name]), parents, D, SLOPES[name], 1e-12)
    M = tree_mask(forest, np.cos, derivative=SLOPES["cos"])
    assert_length_gradient(M, parents, D, SLOPES["cos"], 1e-14)


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_gradient_of_lengths_of_polynomials_times_exponentials(kind):
    """By sweeps, on one thread and on several, and by rows where a rate grows."""
    c, p = np.array([0.5, -1.0, 0.3, 0.2]), np.polynomial.Polynomial([0.5, -1.0, 0.3, 0.2])
    for n, weights in {1: "real", 2: "real", 60: "zeros", 150: "real"}.items():
        parents, lengths = zoo.tree(kind, n), zoo.lengths(weights, n)
        forest, D = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths)
        for rate in (0.7, 0.0) if n > 2 else (0.7, -0.1):

            def slope(d, a=rate):
                return (p.deriv()(d) - a * p(d)) * np.exp(-a * d)

            assert_length_gradient(tree_decay(forest, rate, polynomial=c), parents, D, slope, 1e-14)


def test_gradient_of_lengths_of_polynomials_is_shared_out_by_columns(close):
    forest = as_forest(parents=zoo.tree("forest", 9000), lengths=zoo.lengths("real", 9000))
    M, G, X = tree_decay(forest, 0.7, polynomial=[0.5, -1.0, 0.3]), real(9000, 20), real(9000, 20, seed=1)
    parts = [M.pullback(G[:, a : a + 4], X[:, a : a + 4])["lengths"] for a in range(0, 20, 4)]
    close(M.pullback(G, X)["lengths"], sum(parts))


def test_gradient_of_lengths_on_grids_of_rough_functions_and_by_rows():
    f, slope = lambda d: np.cos(30 * d), lambda d: -30 * np.sin(30 * d)
    for kind in ("star", "deep"):
        parents, lengths = zoo.tree(kind, 700), zoo.lengths("real", 700)
        forest, D = as_forest(parents=parents, lengths=lengths), zoo.distances(parents, lengths)
        assert_length_gradient(TreeFunction(forest, f), parents, D, slope, 1e-12)
    parents, lengths = zoo.tree("forest", 50), zoo.lengths("real", 50)
    M, D = tree_mask(as_forest(parents=parents, lengths=lengths), f), zoo.distances(parents, lengths)
    with use_backend("numpy"):
        assert_length_gradient(M, parents, D, slope, 1e-12)


def test_polynomials_have_their_own_derivative_and_whole_lengths_can_be_parameters():
    p, parents = np.polynomial.Polynomial([0.0, 1.0, -0.25]), zoo.tree("deep", 80)
    forest = as_forest(parents=parents)
    assert_length_gradient(TreeFunction(forest, p), parents, zoo.distances(parents, forest.lengths), p.deriv(), 1e-15)
    assert isinstance(tree_mask(forest, p), TreeTable)
    assert isinstance(tree_mask(forest, p, derivative=p.deriv()), TreeFunction)
    with pytest.raises(TypeError, match="derivative"):
        tree_mask(forest, [1.0, 0.5], derivative=p)


def test_lengths_are_replaced_and_checked():
    parents, lengths = zoo.tree("recursive", 60), zoo.lengths("real", 60)
    M, new = tree_mask(as_forest(parents=parents, lengths=lengths), FUNCTIONS["bell"]), 2 * lengths
    moved = M.with_parameters(lengths=new)
    np.testing.assert_allclose(moved.to_dense(), dense(zoo.distances(parents, new), FUNCTIONS["bell"]), atol=1e-14)
    np.testing.assert_array_equal(M.parameters["lengths"][np.array(parents) >= 0], lengths[np.array(parents) >= 0])
    with pytest.raises(ValueError, match="at least 0"):
        M.with_parameters(lengths=-new)
    with pytest.raises(ValueError, match="shape"):
        M.with_parameters(lengths=new[:3])


def test_a_function_without_a_derivative_warns():
    M = TreeFunction(as_forest(parents=[-1, 0, 0], lengths=[0, 1e6, 1e6]), lambda d: np.cos(1e6 * d))
    with pytest.warns(ConvergenceWarning, match="pass derivative="):
        M.pullback(np.ones(3), np.ones(3))


def test_parallel_and_serial_products_agree(close):
    n = 3000
    forest = as_forest(parents=zoo.tree("deep", n), lengths=zoo.lengths("real", n))
    whole = as_forest(parents=zoo.tree("path", n))
    for M in (tree_mask(forest, FUNCTIONS["inverse"]), tree_mask(forest, np.cos), tree_mask(whole, real(n))):
        X = real(n, 21)
        np.testing.assert_array_equal(M @ X, M @ X)
        close(M @ X, np.concatenate([M @ X[:, :2], M @ X[:, 2:13], M @ X[:, 13:]], axis=1))


def test_explain_tells_what_a_product_costs():
    n = 4000
    forest = as_forest(parents=np.arange(n) - 1, lengths=zoo.lengths("real", n))
    smooth, rough = (explain(tree_mask(forest, f), columns=8) for f in (FUNCTIONS["bell"], lambda d: np.sin(40 * d)))
    assert smooth.method == "product"
    assert smooth.flops < rough.flops
    assert smooth.flops < 8 * n**2 / 10
    assert explain(tree_mask(forest, FUNCTIONS["bell"]) * LowRank(real(n, 2), real(n, 2)), columns=2).steps


def test_a_tolerance_below_rounding_warns():
    forest = as_forest(parents=np.arange(200) - 1, lengths=zoo.lengths("real", 200))
    with pytest.warns(ConvergenceWarning, match="rounding"):
        tree_mask(forest, FUNCTIONS["inverse"], tol=1e-20) @ np.ones(200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        M = tree_mask(forest, FUNCTIONS["inverse"], tol=1e-10)
        assert M.parameters.keys() == M.pullback(np.ones(200), M @ np.ones(200)).keys() == {"scale", "lengths"}


@pytest.mark.parametrize(
    ("lengths", "function", "error", "message"),
    [
        ([0, 0.5, 1], [1.0, 2.0], ValueError, "whole numbers"),
        ([0, 1, 1], 3.0, ValueError, "scalar"),
        ([0, 0.5, 1], lambda d: 1.0, TypeError, "array of distances"),  # noqa: ARG005  not vectorised
        ([0, 1, 1], lambda d: np.exp(1j * d), TypeError, "two masks"),
        ([0, 1, 1], lambda d: 1 / d, ValueError, "finite"),
        ([0, 1, 1], "text", TypeError, "dtype"),
    ],
)
def test_bad_arguments_are_refused(lengths, function, error, message):
    with pytest.raises(error, match=message):
        tree_mask(as_forest(parents=[-1, 0, 1], lengths=lengths), function)


def test_a_function_that_is_not_finite_is_refused():
    n = 100
    forest = as_forest(parents=np.arange(n) - 1, lengths=zoo.lengths("real", n))
    with pytest.raises(ValueError, match="is inf at 0"):
        tree_mask(forest, lambda d: 1 / d)
    with pytest.raises(ValueError, match="not finite"):
        tree_mask(forest, lambda d: np.where(d < 3, 1.0, np.nan)) @ np.ones(n)
    with pytest.raises(ValueError, match="tol must be positive"):
        tree_mask(forest, np.cos, tol=0.0)
