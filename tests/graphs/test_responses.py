"""Responses are their formulas; bounds on ellipses, slopes and declines are what they say."""

import numpy as np
import pytest

from structmask import ConvergenceWarning, responses, spectral_filter
from structmask.graphs.formulas import Cosine, Heat, Sine, Warming
from structmask.linalg.chebyshev import certified_series, chebyshev_coefficients
from tests import naive
from tests.graphs.zoo import ADJACENCY

RESPONSES = {
    "heat": responses.heat(1.3),
    "heat-many": responses.heat(np.array([0.0, 0.2, 3.0])),
    "regularized": responses.regularized(0.8),
    "matern": responses.matern(1.5, np.array([0.5, 2.0])),
    "random-walk": responses.random_walk(3),
    "random-walk-0": responses.random_walk(0, 2.5),
    "inverse-cosine": responses.inverse_cosine(),
    "pagerank": responses.pagerank(0.15),
    "wavelets": responses.wavelets(np.array([0.0, 0.3, 2.0])),
    "cosine": Cosine(-2.0),
    "sine": Sine(np.array([2.0, 0.0])),
    "warming": Warming(np.array([0.0, 1.7])),
    "phase": Heat(np.array([1.1j, -0.2 - 0.3j])),
}


def test_formulas():
    x = np.array([0.0, 0.5, 2.0])
    for response, want in (
        (responses.heat(2.0), np.exp(-2 * x)),
        (responses.regularized(3.0), 1 / (1 + 9 * x)),
        (responses.matern(2.0, 3.0), (1 + 9 * x / 4) ** -2.0),
        (responses.matern(1.5, 1.0), (3 + x) ** -1.5 / 3**-1.5),
        (responses.random_walk(3, 2.5), (2.5 - x) ** 3),
        (responses.inverse_cosine(), np.cos(np.pi * x / 4)),
        (responses.pagerank(0.25), 0.25 / (1 - 0.75 * (1 - x))),
        (responses.wavelets(2.0), 2 * x * np.exp(1 - 2 * x)),
        (Cosine(3.0), np.cos(3 * np.sqrt(x))),
        (Sine(3.0), 3 * np.sinc(3 * np.sqrt(x) / np.pi)),
        (Warming(3.0), [3.0, (1 - np.exp(-1.5)) / 0.5, (1 - np.exp(-6.0)) / 2]),
    ):
        np.testing.assert_allclose(response(x), want, rtol=1e-14)
    assert responses.heat(np.ones((2, 3)))(x).shape == (2, 3, 3)
    assert responses.heat(2.0)(0.0) == 1.0


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize("b", [0.5, 2.0, 30.0])
def test_bounds_hold_on_ellipses(response, b):
    """The largest |h| on a boundary, where an analytic function has its maximum; infinite beyond a pole."""
    rho = np.array([1.001, 1.05, 1.3, 2.0, 5.0])
    bound = response.log_bound(b)(rho)
    angle = np.linspace(0, 2 * np.pi, 400)
    finite = 0
    for radius, log_bound in zip(rho, bound, strict=True):
        if log_bound == np.inf:
            continue
        w = radius * np.exp(1j * angle)
        z = b / 2 * (1 + (w + 1 / w) / 2)
        if isinstance(response, Warming):
            z = z[np.abs(z) > 1e-9]
            values = [np.where(t > 0, -np.expm1(-t * z) / z, 0) for t in response.time]
        else:
            values = response.formula(z.astype(complex), *response._columns())
        finite += 1
        assert np.log(np.abs(values).max() + 1e-300) <= log_bound + 1e-9
    assert finite


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize("tol", [1e-3, 1e-7, 1e-11])
def test_certified_series_is_no_further_than_it_says(response, tol):
    b = 6.0
    series = certified_series(response, response.log_bound(b), (0.0, b), tol)
    x = np.linspace(0, b, 999)
    got = np.polynomial.chebyshev.chebval(2 * x / b - 1, np.moveaxis(series.coefficients, -1, 0))
    error = np.abs(got - response(x)).max()
    rounding = 1e-13 * np.abs(response(x)).max()
    assert error <= series.error + rounding
    assert series.error <= tol + rounding
    shorter = chebyshev_coefficients(response, (0.0, b), 256)
    tails = np.abs(shorter).reshape(-1, 256)[:, ::-1].cumsum(axis=1)[:, ::-1].max(axis=0)
    assert series.coefficients.shape[-1] <= max(2, np.count_nonzero(tails > max(tol, rounding) / 2) + 1)


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_slopes_are_derivatives(response):
    x = np.linspace(0.1, 5, 7)
    for name, value in response._generators():
        step = 1e-3 * (1 if np.ndim(value) else 1.0)

        def values(h, name=name, value=value):
            return response.with_parameters({name: value + h})(x)

        want = naive.directional_derivative(values, step)
        np.testing.assert_allclose(response.derivatives(name)(x), want, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", ["heat", "regularized", "matern", "pagerank"])
def test_decline_is_the_quotient(name):
    response = {**RESPONSES, "matern": responses.matern(1.5, 2.0)}[name]
    x = np.array([0.0, 1e-9, 0.3, 4.0])
    fall = response.monotone.decline(x)
    np.testing.assert_allclose(fall[2:], (response(0.0) - response(x[2:])) / x[2:], rtol=1e-13)
    np.testing.assert_allclose(fall[:2], -response_slope(response), rtol=1e-6)
    assert RESPONSES["wavelets"].monotone is None
    assert RESPONSES["heat-many"].monotone is None


def response_slope(response, step=1e-5):
    return (-3 * response(0.0) + 4 * response(step) - response(2 * step)) / (2 * step)


@pytest.mark.parametrize("kind", ["combinatorial", "symmetric", "random_walk"])
@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_filters_are_functions_of_the_laplacian(response, kind):
    W = ADJACENCY["disconnected"]
    M = spectral_filter(W, response, kind=kind, tol=1e-9)
    want = naive.spectral_filter(W.toarray(), lambda x: response(np.maximum(x, 0)), kind)
    error = np.linalg.norm(M.to_dense() - want, 2, axis=(-2, -1)).max()
    assert error <= M.error_bound + 1e-12
    assert M.error_bound < 2e-9
    np.testing.assert_allclose(M.T.to_dense(), np.swapaxes(M.to_dense(), -1, -2), atol=1e-8)


def test_callables_have_an_estimate_only():
    W = ADJACENCY["mesh"]
    M = spectral_filter(W, lambda x: np.stack([np.cos(x), 1 / (1 + x)]), tol=1e-9)
    assert M.shape == (2, 42, 42)
    assert np.isnan(M.error_bound)
    assert 0 < M.error_estimate < 3e-9
    want = naive.spectral_filter(W.toarray(), np.cos)
    assert np.linalg.norm(M.to_dense()[0] - want, 2) < M.error_estimate
    with pytest.warns(ConvergenceWarning, match="not smooth"):
        spectral_filter(W, lambda x: np.abs(x - 3))
    with pytest.raises(TypeError, match="a response is one of"):
        spectral_filter(W, 2.0)


def test_parameters_that_make_no_sense():
    for build, message in (
        (lambda: responses.heat(-1), "time must not be negative, got -1"),
        (lambda: responses.regularized(np.inf), "scale must be finite"),
        (lambda: responses.matern(0, 1), "smoothness must be positive"),
        (lambda: responses.matern(1, np.array([1, 0])), "length must be positive"),
        (lambda: responses.random_walk(-1), "steps must not be negative"),
        (lambda: responses.pagerank(1.5), r"probability in \(0, 1\]"),
        (lambda: responses.pagerank(0), "restart must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError):
        responses.random_walk(1.5)
