"""Lanczos's certificate is sound: no error exceeds it, whatever rounding does to the basis."""

import numpy as np
import pytest
import scipy.linalg

from structmask import Dense, Diagonal
from structmask.linalg import lanczos
from structmask.linalg.lanczos import Monotone, lanczos_function, lanczos_steps, lanczos_work
from tests.cases import real


def resolvent(s):
    return Monotone(lambda x: 1 / (1 + s * x), lambda x: s / (1 + s * x))


def exponential(t):
    return Monotone(lambda x: np.exp(-t * x), lambda x: np.where(x > 0, -np.expm1(-t * x) / np.where(x > 0, x, 1.0), t))


SPECTRA = {
    "uniform": np.linspace(0, 4, 200),
    "outlier": np.r_[np.linspace(0, 3, 199), 1e4],
    "clusters": np.repeat([0.0, 1.0, 2.0, 50.0], 50) + 1e-9 * np.arange(200),
    "decades": np.logspace(-6, 3, 200),
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("tol", [1e-3, 1e-7, 1e-10])
@pytest.mark.parametrize(
    "function", [exponential(0.1), exponential(3.0), resolvent(5.0)], ids=["short", "long", "poles"]
)
def test_error_is_below_the_tolerance(values, tol, function):
    x = real(200, 2)
    Y = lanczos_function(Diagonal(values), function, x, tol, 400)
    assert Y is not None
    error = np.linalg.norm(Y - function.f(values)[:, None] * x, axis=0)
    assert (error <= tol * np.linalg.norm(x, axis=0)).all()


def test_a_plateau_is_not_taken_for_convergence():
    """Two iterates may agree long before the method has seen the spectrum: the naive test stops, this one does not."""
    n = 400
    values = np.r_[np.zeros(1), np.full(n - 1, 1.0)] + np.linspace(0, 1e-3, n)
    function = exponential(3e3)
    x = np.ones((n, 1))
    Y = lanczos_function(Diagonal(values), function, x, 1e-6, 400)
    assert np.linalg.norm(Y - function.f(values)[:, None] * x) <= 1e-6 * np.sqrt(n)


def test_invariant_subspaces_end_it():
    """Eigenvectors, zero columns, and fewer dimensions than steps."""
    values = np.arange(5.0)
    X = np.eye(5)[:, :3]
    X[:, 2] = 0
    np.testing.assert_allclose(
        lanczos_function(Diagonal(values), exponential(1.0), X, 1e-12, 20), np.exp(-values)[:, None] * X, atol=1e-12
    )


def test_another_driver_takes_over_where_the_first_does_not_converge(monkeypatch, close):
    """LAPACK's stemr gives up on some tridiagonal matrices."""

    def unsteady(*given, lapack_driver="stemr"):
        if lapack_driver == "stemr":
            raise np.linalg.LinAlgError
        return scipy.linalg.eigh_tridiagonal(*given, lapack_driver=lapack_driver)

    monkeypatch.setattr(lanczos, "eigh_tridiagonal", unsteady)
    values, x = SPECTRA["uniform"], real(200, 2)
    Y = lanczos_function(Diagonal(values), exponential(3.0), x, 1e-10, 400)
    close(Y, np.exp(-3 * values)[:, None] * x, tolerance=1e-9)


def test_too_few_steps_are_told():
    values = np.linspace(0, 1e4, 300)
    assert lanczos_function(Diagonal(values), exponential(1.0), real(300, 1), 1e-10, 8) is None
    assert lanczos_steps(Diagonal(values), exponential(1.0), 1e-10, 8) is None
    steps = lanczos_steps(Diagonal(values), exponential(1e-3), 1e-10, 100)
    assert 8 <= steps <= 30
    assert lanczos_work(Diagonal(values), steps, 2).bytes > lanczos_work(Diagonal(values), steps, 1).bytes


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_precisions(dtype, close):
    A = real(30, 30)
    A = A @ A.T / 30
    values, V = np.linalg.eigh(A)
    X = real(30, 2).astype(dtype) * (1 + 1j if dtype.startswith("c") else 1)
    single = "float32" if dtype in ("float32", "complex64") else "float64"
    Y = lanczos_function(Dense(A.astype(single)), exponential(2.0), X.astype(dtype), 1e-5, 100)
    assert Y.dtype == dtype
    close(Y, V @ (np.exp(-2 * values)[:, None] * (V.T @ X)), tolerance=2e-5)
