"""Errors are below what is promised, and solutions have the invariants of their equations."""

import warnings

import mpmath
import networkx as nx
import numpy as np
import pytest
import scipy.linalg

from structmask import (
    ConvergenceWarning,
    LowRank,
    as_adjacency,
    complete_diffusion,
    diffusion_kernel,
    explain,
    grid_diffusion,
    heat_equation,
    hypercube_diffusion,
    laplacian,
    masked_attention,
    schrodinger_equation,
    spectral_bound,
    wave_equation,
)
from tests import naive
from tests.cases import real
from tests.graphs.zoo import ADJACENCY

UNIT = 2.0**-53
KINDS = ("combinatorial", "symmetric", "random_walk")


def quiet(build, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return build(*arguments, **options)


def modes(W):
    """Eigenvalues and vectors of D - W to 30 digits, rounded: more than double precision has."""
    with mpmath.workdps(30):
        L = mpmath.matrix(naive.laplacian(W.toarray()).tolist())
        for i in range(L.rows):
            L[i, i] = -mpmath.fsum(L[i, j] for j in range(L.rows) if j != i)
        return mpmath.eigsy(L)


def test_reference_is_that_of_high_precision():
    W = ADJACENCY["weighted"]
    values, V = modes(W)
    for t in (1e-3, 1.0, 1e4):
        with mpmath.workdps(30):
            E = V * mpmath.diag([mpmath.exp(-t * x) for x in values]) * V.T
            want = np.array(E.tolist(), dtype=float)
        np.testing.assert_allclose(naive.heat_kernel(W.toarray(), t), want, rtol=0, atol=3e-16)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="the reference needs extended precision")
@pytest.mark.parametrize("t", [1e-3, 1e-2, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("name", ADJACENCY)
def test_error_is_below_the_promise_against_high_precision(name, t):
    """By every method that there is."""
    W = ADJACENCY[name]
    want, b = naive.heat_kernel(W.toarray(), t), spectral_bound(W)
    for tol in (1e-3, 1e-6, 1e-9, 1e-12):
        M = quiet(diffusion_kernel, W, t, tol=tol)
        for method in M._methods.by_name.values():
            error = np.linalg.norm(method.product(np.eye(len(want))) - want, 2)
            assert error <= tol + 20 * UNIT * (1 + t * b)
            assert error <= method.error <= M.error_bound


@pytest.mark.parametrize("name", ADJACENCY)
@pytest.mark.parametrize("kind", KINDS)
def test_error_is_below_the_promise_on_all_graphs(name, kind):
    """Of all kinds; eigenvectors in double precision are an oracle up to their own rounding."""
    W = ADJACENCY[name]
    b = spectral_bound(W, kind=kind)
    for t in (1e-3, 0.1, 10.0, 1e4):
        want = naive.spectral_filter(W.toarray(), lambda x, t=t: np.exp(-t * np.maximum(x, 0)), kind)
        for tol in (1e-3, 1e-8):
            M = quiet(diffusion_kernel, W, t, kind=kind, tol=tol)
            error, oracle = np.linalg.norm(M.to_dense() - want, 2), 2 * UNIT * t * b * len(want)
            assert error <= tol + 20 * UNIT * (1 + t * b) * M._edges.condition + oracle
            assert error <= M.error_bound + oracle


@pytest.mark.parametrize("t", [1e-3, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9, 1e-12])
def test_error_against_closed_forms(t, tol):
    cube = [[int((i ^ j).bit_count() == 1) for j in range(32)] for i in range(32)]
    for W, form in (
        (nx.path_graph(33), grid_diffusion(33, t)),
        (nx.cycle_graph(30), grid_diffusion(30, t, periodic=True)),
        (nx.grid_graph((5, 7)), grid_diffusion((7, 5), t)),
        (nx.complete_graph(20), complete_diffusion(20, t)),
        (np.array(cube), hypercube_diffusion(5, t)),
    ):
        M = quiet(diffusion_kernel, W, t, tol=tol)
        error = np.linalg.norm(M.to_dense() - form.to_dense(), 2)
        assert error <= tol + 20 * UNIT * (1 + t * spectral_bound(W))
        assert error <= M.error_bound


def test_single_precision_is_certified_in_single_precision():
    W = ADJACENCY["mesh"].astype("float32")
    M = diffusion_kernel(W, 3.0)
    want = naive.spectral_filter(W.toarray().astype(float), lambda x: np.exp(-3 * x))
    assert M.dtype == "float32"
    error = np.linalg.norm(M.to_dense() - want, 2)
    assert 1e-9 < error <= M.error_bound
    assert error <= 1e-8 + 20 * 2.0**-24 * (1 + 3 * spectral_bound(W))
    assert diffusion_kernel(W.astype(float), 3.0).error_bound < 1e-7


def test_degree_is_no_larger_than_it_must_be():
    """About sqrt(2 z log(1 / tol)) terms, z = t b / 2."""
    W = ADJACENCY["mesh"]
    for t in (1.0, 10.0, 100.0):
        degree, z = diffusion_kernel(W, t, tol=1e-8).polynomial.degree, t * spectral_bound(W) / 2
        assert degree <= np.sqrt(2 * z * np.log(2e8)) + 12


def test_tolerance_below_reach_warns():
    W = ADJACENCY["star"]
    with pytest.warns(ConvergenceWarning, match=r"tol=1.0e-12 is below the rounding of \d+ terms") as log:
        diffusion_kernel(W, 1e4, tol=1e-12)
    assert log[0].filename == __file__
    with pytest.warns(ConvergenceWarning, match="raise tol"):
        diffusion_kernel(W.astype("float32"), 1e4, tol=1e-12)


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 3])
def test_methods_agree(columns):
    """A hub stretches the spectrum: Lanczos needs fewer steps than Chebyshev, and has its own certificate."""
    G = nx.barabasi_albert_graph(3000, 8, seed=5)
    G.add_edges_from((3000, node) for node in range(3000))
    M = diffusion_kernel(G, 1.0, tol=1e-9)
    plan = explain(M, columns=1)
    assert [step.method for step in plan.steps] == ["lanczos", "chebyshev"]
    assert M._methods.lanczos.steps < M.polynomial.degree / 3
    X = real(M.shape[-1], columns)
    X[:, -1] = 0
    error = np.linalg.norm(M @ X - M.polynomial @ X, axis=0)
    assert (error <= 1e-9 * np.linalg.norm(X, axis=0)).all()
    Z = X + 1j * X[::-1]
    np.testing.assert_allclose(M @ Z, M @ Z.real + 1j * (M @ Z.imag), atol=1e-7)


def test_method_is_told():
    M = diffusion_kernel(ADJACENCY["mesh"], 1.0)
    text = str(explain(M, columns=4))
    assert text.startswith("SpectralFilter(42 x 42, float64, Heat, combinatorial) @ (4 columns)")
    assert "chebyshev" in text
    assert explain(M).flops == M.polynomial.degree * 2 * laplacian(ADJACENCY["mesh"]).nnz


def test_order_of_nodes_is_hidden(close, rng):
    """A shuffled mesh is reordered inside; results are those of the given order."""
    side = 80
    W = as_adjacency(nx.convert_node_labels_to_integers(nx.grid_graph((side, side))))
    shuffle = rng.permutation(side**2)
    M, N = diffusion_kernel(W, 2.0, tol=1e-12), diffusion_kernel(W[shuffle][:, shuffle], 2.0, tol=1e-12)
    X = rng.standard_normal((side**2, 3))
    close(N @ X[shuffle], (M @ X)[shuffle])
    close(M @ X, grid_diffusion((side, side), 2.0) @ X, tolerance=1e-11)


# --- equations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_heat_equation_is_the_exponential_of_an_augmented_matrix(kind, close):
    W = ADJACENCY["disconnected"]
    n, times = W.shape[0], np.array([[0.0, 0.3], [2.0, 7.0]])
    L, u, b = laplacian(W, kind=kind).toarray(), real(n, 2), real(n, 2, seed=1)
    got = heat_equation(W, u, times, source=b, kind=kind, tol=1e-12)
    assert got.shape == (2, 2, n, 2)
    for index, t in np.ndenumerate(times):
        for column in range(2):
            augmented = np.block([[-L, b[:, column : column + 1]], [np.zeros((1, n + 1))]])
            want = (scipy.linalg.expm(t * augmented) @ np.r_[u[:, column], 1.0])[:n]
            close(got[index][:, column], want, tolerance=1e-11)
    close(heat_equation(W, u[:, 0], 0.3, kind=kind, tol=1e-12), scipy.linalg.expm(-0.3 * L) @ u[:, 0], tolerance=1e-11)


@pytest.mark.parametrize("name", ADJACENCY)
def test_heat_is_conserved_stays_positive_and_in_range(name):
    W, tol = ADJACENCY[name], 1e-10
    u = np.abs(real(W.shape[0]))
    solution = heat_equation(W, u, [0.0, 0.1, 10.0], tol=tol)
    slack = 2 * tol * np.linalg.norm(u)
    np.testing.assert_allclose(solution.sum(axis=1), u.sum(), atol=slack * np.sqrt(u.size))
    assert solution.min() >= u.min() - slack
    assert solution.max() <= u.max() + slack
    np.testing.assert_allclose(solution[0], u, atol=slack)


@pytest.mark.parametrize("name", ["mesh", "star", "disconnected"])
def test_wave_keeps_its_energy(name):
    W, times = ADJACENCY[name], np.linspace(-5, 5, 7)
    L, u, v = laplacian(W).toarray(), real(W.shape[0]), real(W.shape[0], seed=1)
    position = wave_equation(W, u, times, velocity=v, tol=1e-11)
    # u' solves the same equation from (v, -L u)
    velocity = wave_equation(W, v, times, velocity=-L @ u, tol=1e-11)
    energy = (velocity**2).sum(axis=1) + np.einsum("ti,ij,tj->t", position, L, position)
    np.testing.assert_allclose(energy, v @ v + u @ L @ u, rtol=1e-9)
    values, V = np.linalg.eigh(L)
    root = np.sqrt(np.maximum(values, 0))
    for t, x in zip(times, position, strict=True):
        sine = t * np.sinc(t * root / np.pi)
        np.testing.assert_allclose(x, V @ (np.cos(t * root) * (V.T @ u) + sine * (V.T @ v)), atol=1e-9)


@pytest.mark.parametrize("kind", ["combinatorial", "symmetric"])
def test_schrodinger_keeps_its_norm(kind):
    W, times = ADJACENCY["power-law"], np.array([-1.0, 0.0, 3.0])
    u = real(W.shape[0], 2) + 1j * real(W.shape[0], 2, seed=1)
    solution = schrodinger_equation(W, u, times, kind=kind, tol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(solution, axis=1), np.linalg.norm(u, axis=0) * np.ones((3, 1)), rtol=1e-10
    )
    L = laplacian(W, kind=kind).toarray()
    np.testing.assert_allclose(solution[2], scipy.linalg.expm(-3j * L) @ u, atol=1e-9)


# --- gradients and attention ------------------------------------------------------------------------------------------


def test_gradient_in_time_is_minus_l_times_the_kernel(close):
    W, t = ADJACENCY["mesh"], 1.3
    L, (G, X) = laplacian(W).toarray(), (real(42, 3), real(42, 3, seed=1))
    gradient = diffusion_kernel(W, t, tol=1e-12).pullback(G, X)["response"]["time"]
    close(gradient, -np.sum(G * (L @ scipy.linalg.expm(-t * L) @ X)), tolerance=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_an_edge_is_that_of_both_directions(kind):
    W = naive.adjacency(5, [(0, 1), (1, 2), (2, 3), (3, 0), (1, 1)], [1.0, 2.0, 0.5, 3.0, 1.5])
    M, (G, X), step = diffusion_kernel(W, 0.7, kind=kind, tol=1e-13), (real(5, 2), real(5, 2, seed=1)), 1e-4
    gradient = M.pullback(G, X)["weights"]
    coordinates = M.weights.tocoo().coords
    assert gradient.shape == (5,)
    for g, i, j in zip(gradient, *coordinates, strict=True):
        values = []
        for sign in (1, -1):
            moved = W.copy()
            moved[i, j] += sign * step
            moved[j, i] = moved[i, j]
            values.append(np.sum(G * (naive.spectral_filter(moved, lambda x: np.exp(-0.7 * x), kind) @ X)))
        assert g == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("method", ["auto", "stream", "dense"])
def test_attention_through_a_diffusion_mask(method, close):
    W, n = ADJACENCY["geometric"], 50
    mask = diffusion_kernel(W, 0.5, tol=1e-12)
    q, k, v = (np.abs(real(n, 3, seed=s)) for s in range(3))
    want = naive.masked_attention(q, k, v, mask.to_dense())
    close(masked_attention(q, k, v, mask=mask, features=None, method=method), want, tolerance=1e-9)
    A = mask * LowRank(q, k)
    close(A @ v, (mask.to_dense() * (q @ k.T)) @ v, tolerance=1e-9)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused():
    W = ADJACENCY["path"]
    for time, message in ((-1.0, "time must not be negative"), (np.nan, "finite"), ([1.0, -2.0], "not be negative")):
        with pytest.raises(ValueError, match=message):
            diffusion_kernel(W, time)
    with pytest.raises(TypeError, match="time must be real"):
        diffusion_kernel(W, np.array([1j]))
    for tol in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tol must be positive"):
            diffusion_kernel(W, 1.0, tol=tol)
    with pytest.raises(ValueError, match="unknown kind 'other'"):
        diffusion_kernel(W, 1.0, kind="other")
    with pytest.raises(ValueError, match=r"undirected graph.*MarkovProcess\(...\).evolve"):
        diffusion_kernel(nx.DiGraph([(0, 1)]), 1.0)
    with pytest.raises(ValueError, match="non-negative"):
        diffusion_kernel(-W, 1.0)
    with pytest.raises(ValueError, match="finite, got nan"):
        diffusion_kernel(W * np.nan, 1.0)
    with pytest.raises(ValueError, match=r"state on this graph is an array \(40,\) or \(40, k\), got shape \(39,\)"):
        heat_equation(W, np.ones(39), 1.0)
    with pytest.raises(ValueError, match=r"a polynomial of degree .* would be needed"):
        diffusion_kernel(W, 1e18)
    M = diffusion_kernel(W, 1.0)
    with pytest.raises(ValueError, match="non-negative edge weights, got -1"):
        M.with_parameters(weights=-np.ones(M.weights.nnz))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_small_graphs(n, close):
    M = diffusion_kernel(nx.complete_graph(n), 0.7, tol=1e-12)
    assert M.shape == (n, n)
    want = complete_diffusion(n, 0.7).to_dense() if n else np.zeros((0, 0))
    close(M.to_dense(), want, tolerance=1e-11)
    close(heat_equation(nx.complete_graph(n), np.ones(n), [0.0, 2.0], tol=1e-12), np.ones((2, n)), tolerance=1e-11)
