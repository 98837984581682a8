"""Graph random features: roots of series, means of ensembles, variance, what is refused."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from structmask import Sparse, graph_random_features, laplacian, use_backend
from structmask.graphs import modulation, modulation_pullback, walk_series
from structmask.graphs.random_features import spectral_radius_bound
from structmask.linalg import PowerSeries
from tests import naive
from tests.cases import real


def normalised(graph):
    """W = I - L for the symmetric Laplacian."""
    return np.eye(len(graph)) - laplacian(graph, kind="symmetric").toarray()


RING = np.diag(np.full(5, 0.3), 1) + np.diag([0.4], -5)
GRAPHS = {
    "karate": normalised(nx.gnp_random_graph(15, 0.3, seed=4)),
    "star": normalised(nx.star_graph(8)),
    "isolated": normalised(nx.gnp_random_graph(9, 0.1, seed=1)),
    "directed": RING,
    "weights": 0.1 * np.abs(real(7, 7)) * (1 - np.eye(7)),
}
KERNELS = {
    "heat": (walk_series.heat(1.5), lambda x: np.exp(-1.5 * x)),
    "heat-long": (walk_series.heat(40.0), lambda x: np.exp(-40 * x)),
    "regularized": (walk_series.regularized(0.8), lambda x: 1 / (1 + 0.8 * x)),
    "matern": (walk_series.matern(1.5, 1.2), lambda x: (3 / 1.44 + x) ** -1.5),
    "random_walk": (walk_series.random_walk(4), lambda x: (2 - x) ** 4),
    "random_walk-odd": (walk_series.random_walk(3, 2.5), lambda x: (2.5 - x) ** 3),
    "random_walk-0": (walk_series.random_walk(0), lambda x: 1 + 0 * x),
}


# --- series -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
def test_series_and_their_roots_are_functions_of_the_laplacian(name):
    series, response = KERNELS[name]
    W = GRAPHS["karate"]
    want = naive.matrix_function(np.eye(len(W)) - W, response)
    A = Sparse(scipy.sparse.csr_array(W))
    got, root = (PowerSeries(A, c).to_dense() for c in (series.coefficients, series.modulation))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-13 * response(0.0))
    np.testing.assert_allclose(root @ root, want, rtol=0, atol=2e-13 * response(0.0))


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "heat-long"])
def test_modulation_is_found(name):
    series = KERNELS[name][0]
    f = modulation(series.coefficients)
    size = min(f.size, series.modulation.size)
    np.testing.assert_allclose(f[:size], series.modulation[:size], rtol=0, atol=1e-11 * f.sum())


@pytest.mark.parametrize(
    "a", [[2.0], [1.0, 0.4, 0.1], [1.0, -0.5], [4.0, 0.0, 0.0, 1.0], [1.0, 0.2, 0.0, 0.0, 0.0, 0.1]]
)
def test_modulation_convolved_with_itself_is_the_series(a):
    f = modulation(a, 0.9)
    got = np.convolve(f, f)
    want = np.zeros(max(got.size, len(a)))
    want[: len(a)] = a
    got = np.concatenate([got, np.zeros(want.size - got.size)])
    np.testing.assert_allclose(got * 0.9 ** np.arange(got.size), want * 0.9 ** np.arange(got.size), atol=1e-12)


@pytest.mark.parametrize(
    ("a", "message"),
    [([0.0, 1.0], "a_0 > 0"), ([-1.0], "a_0 > 0"), ([], "finite"), ([[1.0]], "finite"), ([1.0, np.nan], "finite")],
)
def test_series_without_a_positive_start_have_no_root(a, message):
    with pytest.raises(ValueError, match=message):
        modulation(a)


@pytest.mark.parametrize(
    "a", [[-1.0, 0.5, 0.25], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.3], [0.0, -1.0, 0.2], [0.0, 0.0]], ids=str
)
def test_series_with_any_first_coefficient(a):
    W, rng = RING, np.random.default_rng(0)
    exact = naive.power_series(W, a)
    samples = np.stack([graph_random_features(W, a, walks=40, stop=0.3, rng=rng).to_dense() for _ in range(60)])
    error = samples.std(axis=0) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(axis=0) - exact) <= 5 * error + 1e-12).all()
    if any(a) and (a[0] < 0 or a[1]):
        with pytest.raises(ValueError, match="one ensemble makes a positive"):
            graph_random_features(W, a, walks=4, stop=0.3, ensembles=1)


@pytest.mark.parametrize(
    ("a", "radius"), [([1.0, 2.0], 1.0), ([1.0, 0.9], 2.0), (walk_series.heat(40.0).coefficients, 1.0)]
)
def test_root_that_does_not_converge_or_loses_its_digits_is_refused(a, radius):
    with pytest.raises(ValueError, match="does not converge, or loses its digits"):
        modulation(a, radius)


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (walk_series.heat, (0.0,)),
        (walk_series.heat, (1e3,)),
        (walk_series.regularized, (-1.0,)),
        (walk_series.regularized, (1e6,)),
        (walk_series.matern, (1.0, float("inf"))),
        (walk_series.random_walk, (3,)),
        (walk_series.random_walk, (2, 1.5)),
        (walk_series.random_walk, (2.5, 3.0)),
    ],
)
def test_kernels_that_have_no_series(build, arguments):
    with pytest.raises(ValueError, match=r"must be|no number|does not end|has a series"):
        build(*arguments)


@pytest.mark.parametrize("name", GRAPHS)
def test_bound_of_the_spectral_radius(name):
    W = GRAPHS[name]
    exact = np.abs(np.linalg.eigvals(W)).max()
    assert exact * (1 - 1e-12) <= spectral_radius_bound(scipy.sparse.csr_array(W)) <= 1.1 * exact


# --- estimates --------------------------------------------------------------------------------------------------------

ENSEMBLES = 400


@pytest.mark.parametrize("repelling", [False, True], ids=["independent", "repelling"])
@pytest.mark.parametrize("name", GRAPHS)
def test_means_are_within_five_standard_errors_on_the_diagonal_too(name, repelling):
    """In random directions, which see every entry."""
    W, rng, Z = GRAPHS[name], np.random.default_rng(0), real(len(GRAPHS[name]), 3)
    for series, stop in (([1.0, 0.5, 0.2], 0.3), (walk_series.heat(1.5), 0.2)):
        a = series.coefficients if isinstance(series, walk_series.WalkSeries) else series
        want = naive.power_series(W, a)
        options = dict(walks=4, stop=stop, repelling=repelling, rng=rng)
        got = np.array([graph_random_features(W, series, **options) @ Z for _ in range(ENSEMBLES)])
        standard_error = got.std(axis=0, ddof=1) / np.sqrt(ENSEMBLES)
        assert (np.abs(got.mean(axis=0) - want @ Z) <= 5 * standard_error + 1e-12).all()


def test_one_ensemble_is_symmetric_and_too_large_on_the_diagonal():
    W, options = GRAPHS["star"], dict(walks=2, stop=0.5)
    one = [graph_random_features(W, [1.0, 0.5], ensembles=1, rng=s, **options).to_dense() for s in range(200)]
    np.testing.assert_allclose(one[0], one[0].T, rtol=0, atol=1e-15)
    want = naive.power_series(W, [1.0, 0.5])
    mean = np.mean(one, axis=0)
    assert np.diag(mean)[0] > np.diag(want)[0] + 0.01
    assert np.linalg.eigvalsh(one[0]).min() > -1e-12


def test_repelling_walks_vary_less():
    variances = []
    for repelling in (False, True):
        options = dict(walks=8, stop=0.3, repelling=repelling)
        samples = [graph_random_features(GRAPHS["star"], KERNELS["heat"][0], rng=s, **options) for s in range(80)]
        variances.append(np.var([estimate.to_dense() for estimate in samples], axis=0).sum())
    assert variances[1] < 0.8 * variances[0]


def test_same_seed_same_features_on_every_backend():
    found = []
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            found.append(graph_random_features(GRAPHS["weights"], [1.0, 0.5], walks=5, stop=0.1, rng=3))
    for a, b in ((f.left, f.right) for f in found):
        assert abs(a - b).max() > 0  # two ensembles
    np.testing.assert_array_equal(found[0].left.toarray(), found[1].left.toarray())
    np.testing.assert_array_equal(found[0].right.toarray(), found[1].right.toarray())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_without_edges_only_the_first_term_is_left(n):
    np.testing.assert_allclose(
        graph_random_features(np.zeros((n, n)), [4.0, 1.0], walks=2, stop=0.0).to_dense(), 4 * np.eye(n)
    )


def test_single_precision_stays():
    W = scipy.sparse.csr_array(GRAPHS["star"].astype("float32"))
    assert graph_random_features(W, [1.0, 0.2], walks=3, stop=0.1).dtype == "float32"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"walks": 0}, "walks counts walks"),
        ({"stop": 1.0}, r"must be in \[0, 1\)"),
        ({"ensembles": 3}, "ensembles must be 1 or 2, got 3"),
        ({"graph": -np.ones((2, 2))}, "weights >= 0"),
        ({"graph": RING, "ensembles": 1}, "makes a positive semidefinite matrix: it needs an undirected graph"),
        ({"graph": 9 * np.ones((2, 2))}, "divide the adjacency matrix by more"),
    ],
)
def test_arguments_that_are_refused(options, sentence):
    options = {"graph": GRAPHS["star"], "walks": 2, "stop": 0.5, **options}
    with pytest.raises(ValueError, match=sentence):
        graph_random_features(options.pop("graph"), [1.0, 0.5], **options)


def test_coefficients_and_parameters_of_series_are_real_numbers():
    for a in ([1j], "abc", None):
        with pytest.raises(TypeError, match="need real coefficients"):
            graph_random_features(RING, a, walks=2, stop=0.5)
    with pytest.raises(TypeError, match="time must be a real number, got '1'"):
        walk_series.heat("1")


# --- gradients --------------------------------------------------------------------------------------------------------


def naive_loads(mask, side):
    """D of the walks of a kernel by one sampling a step, each with a modulation that sees this step only."""
    walks = mask.walks[side]
    fresh = type(walks)(walks.W, walks.gain, walks.plan)
    return np.stack([fresh.features(row).toarray() for row in np.eye(walks.plan.length)], axis=-1)


@pytest.mark.parametrize("options", [{}, {"ensembles": 1}, {"repelling": True}], ids=["two", "one", "repelling"])
def test_features_are_linear_in_the_modulation(options):
    mask = graph_random_features(GRAPHS["karate"], walk_series.heat(1.5), walks=6, stop=0.3, rng=3, **options)
    f = np.random.default_rng(0).standard_normal(mask.modulation.size)
    F, G = (naive_loads(mask, side) @ f for side in (0, 1))
    changed = mask.with_parameters(modulation=f)
    np.testing.assert_allclose(changed.to_dense(), F @ G.T, rtol=1e-12, atol=1e-12)
    assert mask.walks[0].loads.nnz >= mask.left.nnz
    again = mask.with_parameters(modulation=f)  # now from the loads, which are known
    np.testing.assert_allclose(again.to_dense(), F @ G.T, rtol=1e-12, atol=1e-12)


def test_both_modulations_of_an_odd_series_have_gradients(rng):
    mask = graph_random_features(GRAPHS["weights"], [0.0, -1.0, 0.5], walks=5, stop=0.2, rng=1)
    G, X = rng.standard_normal((2, 7, 3))
    gradients = mask.pullback(G, X)
    assert set(gradients) == {"modulation", "other"}
    for name, gradient in gradients.items():
        f = mask.parameters[name]
        for step, unit in enumerate(np.eye(f.size)):
            low, high = (np.sum(G * (mask.with_parameters({name: f + h * unit}) @ X)) for h in (-1e-6, 1e-6))
            np.testing.assert_allclose(gradient[step], (high - low) / 2e-6, rtol=1e-6, atol=1e-7)


def test_wrong_modulation_is_refused():
    mask = graph_random_features(RING, [1.0, 0.5], walks=2, stop=0.5, rng=0)
    with pytest.raises(ValueError, match=r"walks have \d+ steps, so modulation has shape"):
        mask.with_parameters(modulation=np.ones(99))


@pytest.mark.parametrize(
    ("a", "radius"), [([1.0, 0.5, 0.125], 0.9), ([2.0, 1.0], 0.7), ([4.0], 1.0), ([4.0, 0.0, 0.0], 1.0)]
)
def test_gradients_of_the_series_go_through_its_root(a, radius, rng):
    d_f = rng.standard_normal(modulation(a, radius).size)
    gradient = modulation_pullback(a, d_f, radius)
    for step, unit in enumerate(np.eye(len(a))):
        ends = [modulation(np.array(a) + h * unit, radius) for h in (-1e-6, 1e-6)]
        low, high = (end[: d_f.size] @ d_f[: end.size] for end in ends)
        np.testing.assert_allclose(gradient[step], (high - low) / 2e-6, rtol=1e-6, atol=1e-8)


def test_gradient_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"a modulation of 2 terms needs shape \(2,\), got \(3,\)"):
        modulation_pullback([1.0, 2.0, 1.0], np.ones(3))
