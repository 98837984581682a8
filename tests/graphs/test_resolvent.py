"""Polynomials of a resolvent: as short as theory says, certified, and right for times that no recurrence reaches."""

import networkx as nx
import numpy as np
import pytest

from structmask import ConvergenceWarning, diffusion_kernel, explain, grid_diffusion, responses, spectral_filter
from structmask.graphs import as_adjacency, resolvent
from structmask.graphs.edges import Edges
from structmask.graphs.resolvent import ResidualError, Resolvent, eigenvalues, elimination, shortest_series
from tests import naive
from tests.cases import real
from tests.graphs.zoo import ADJACENCY

UNIT = 2.0**-53
KINDS = ("combinatorial", "symmetric", "random_walk")
RESPONSES = {
    "heat": responses.heat(3.0),
    "heat-many": responses.heat(np.array([0.0, 2.0, 30.0])),
    "regularized": responses.regularized(20.0),
    "regularized-many": responses.regularized(np.array([0.0, 5.0, 20.0])),
    "pagerank": responses.pagerank(1e-3),
}


def edges(W, kind="combinatorial"):
    return Edges(diffusion_kernel(W, 0.0, kind=kind).weights, kind)


# --- series -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [1e-3, 1e-8, 1e-12])
@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_series_is_no_further_than_it_says(response, tol):
    shift, series = shortest_series(response, tol)
    x = np.r_[0.0, np.logspace(-9, 9, 4001)]
    y = 1 / (1 + shift * x)
    got = np.polynomial.chebyshev.chebval(2 * y - 1, np.moveaxis(series.coefficients, -1, 0))
    assert np.abs(got - response(x)).max() <= series.error + 1e-14
    assert series.error <= tol
    np.testing.assert_allclose(eigenvalues(y[1:3000], shift), x[1:3000], rtol=1e-6)


@pytest.mark.parametrize(("tol", "most"), [(1e-3, 9), (1e-8, 21), (1e-12, 31)])
def test_degree_is_that_of_the_best_real_pole_whatever_the_time(tol, most):
    """1 + sqrt(2) digits' worth a term."""
    assert most <= np.log(1 / tol) / np.log(1 + np.sqrt(2)) + 2
    for t in (1e-3, 1.0, 1e9):
        assert shortest_series(responses.heat(t), tol)[1].coefficients.shape[-1] <= most
    assert shortest_series(responses.regularized(1e5), tol)[1].coefficients.shape[-1] == 3


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_remainder_bounds_what_the_interpolant_is_off(response):
    y = np.linspace(1e-6, 1, 5001)
    for shift in response.shifts(*response._columns()):
        for count in (12, 24, 64):
            c = resolvent.chebyshev_coefficients(lambda y, s=shift: response(eigenvalues(y, s)), (0.0, 1.0), count)
            got = np.polynomial.chebyshev.chebval(2 * y - 1, np.moveaxis(c, -1, 0))
            error = np.abs(got - response(eigenvalues(y, shift))).max()
            assert error <= response.remainder(shift, count, *response._columns()) + 1e-13


def test_other_responses_have_none():
    assert shortest_series(responses.wavelets(1.0), 1e-6) is None
    assert shortest_series(responses.heat(0.0), 1e-6) is None
    assert shortest_series(responses.heat(np.array([1e-9, 1e9])), 1e-6) is None


# --- resolvents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ADJACENCY)
def test_resolvent_is_the_inverse_and_so_close(name, kind):
    e = edges(ADJACENCY[name], kind)
    L, n = e.wide_laplacian.toarray(), e.degrees.size
    for shift in (1e-2, 10.0):
        B = Resolvent(e.laplacian, elimination(e, shift, np.inf), (np.linalg.norm(np.abs(L), 2),))
        want, X = np.linalg.inv(np.eye(n) + shift * L), real(n, 3) + 1j * real(n, 3, seed=1)
        error = np.linalg.norm(B @ X - want @ X, axis=0) / np.linalg.norm(X, axis=0)
        assert error.max() <= B.solution_error + 100 * UNIT * B._norm
        assert B.solution_error <= 200 * UNIT * B._norm


def test_a_solution_that_misses_is_improved_then_refused():
    e = edges(ADJACENCY["mesh"])
    solver, X = elimination(e, 10.0, np.inf), real(42, 2)
    norm, right = 1 + 10 * 8.0, solver.solve(X, 81.0)
    exact = solver.factor

    class Rough:
        pattern, operations = exact.pattern, exact.operations

        def __init__(self, error):
            self.error = error

        def solve(self, B):
            return exact.solve(B) * (1 + self.error)

    solver.factor = Rough(1e-9)
    np.testing.assert_allclose(solver.solve(X, norm), right, rtol=1e-13)
    solver.factor = Rough(1e-3)
    with pytest.raises(ResidualError):
        solver.solve(X, norm)
    with pytest.raises(ResidualError):
        solver.solve(np.full((42, 1), np.nan), norm)
    M = diffusion_kernel(ADJACENCY["mesh"], 1e4)  # another method serves
    want = M @ X
    assert explain(M, columns=2).method == "rational"
    M._methods.rational.polynomial.matrix.solver.factor = Rough(1e-3)
    np.testing.assert_allclose(M @ X, want, atol=2e-8)
    G = real(42, 2, seed=1)
    assert M.pullback(G, X)["response"]["time"] == pytest.approx(-np.sum(G * (M._edges.laplacian @ want)), abs=1e-6)


# --- long times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [3e3, 1e6])
@pytest.mark.parametrize("tol", [1e-6, 1e-12])
@pytest.mark.filterwarnings("ignore:tol=")
def test_long_times_against_closed_forms(t, tol):
    for W, form, b in (
        (nx.path_graph(300), grid_diffusion(300, t), 4),
        (nx.grid_graph((30, 20)), grid_diffusion((20, 30), t), 8),
    ):
        M, X = diffusion_kernel(W, t, tol=tol), real(len(W), 3)
        X[:, 0], X[:, 1] = 1, np.arange(len(W)) == 7
        assert explain(M, columns=3).method == "rational"
        error = np.linalg.norm(M @ X - form @ X, axis=0) / np.linalg.norm(X, axis=0)
        assert error.max() <= tol + 20 * UNIT * (1 + t * b)
        assert error.max() <= M.error_bound


@pytest.mark.parametrize("response", [responses.heat(300.0), responses.regularized(30.0), responses.pagerank(1e-3)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_filter(response, kind):
    """Along the path for `weights` and the parameters: both expansions agree, and differences with them."""
    half = np.diag(np.linspace(1.0, 2.0, 39), 1)
    M, (G, X) = spectral_filter(half + half.T, response, kind=kind, tol=2e-11), (real(40, 2), real(40, 2, seed=1))
    assert explain(M, columns=2).method == "rational"
    got, (name, value) = M.pullback(G, X), next(response._generators())
    change = real(39, 1)[:, 0]

    def moved(h):
        upper = half + 0.0
        upper[np.arange(39), np.arange(1, 40)] += h * change
        return np.sum(G * (naive.spectral_filter(upper + upper.T, lambda x: response(np.maximum(x, 0)), kind) @ X))

    def timed(h):
        return np.sum(G * (M.with_parameters(response={name: value + h}) @ X))

    assert got["weights"] @ change == pytest.approx(naive.directional_derivative(moved, 1e-3), rel=1e-6, abs=1e-6)
    slope = naive.directional_derivative(timed, 1e-3 * value)
    assert got["response"][name] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_method_by_time_and_structure():
    W = ADJACENCY["path"]
    assert explain(diffusion_kernel(W, 1.0)).method == "chebyshev"
    assert "rational" in str(explain(diffusion_kernel(W, 1e4)))
    assert explain(diffusion_kernel(W, 1e4)).method == "rational"
    dense = diffusion_kernel(as_adjacency(nx.gnp_random_graph(120, 0.5, seed=1)), 50.0)  # as many entries as fill
    assert dense._methods.rational is None
    assert dense.polynomial.degree > 200
    with pytest.warns(ConvergenceWarning, match="below the rounding"):
        diffusion_kernel(W, 1e6, tol=1e-12)
