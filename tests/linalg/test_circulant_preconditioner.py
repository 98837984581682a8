"""Circulants near structured matrices: the definition by sums, the nearest one, positivity, and what they save."""

import itertools

import numpy as np
import pytest
import scipy.fft
import scipy.sparse

from structmask import (
    Band,
    Buckets,
    Causal,
    Dense,
    Diagonal,
    ExponentialSum,
    LowRank,
    Sparse,
    Toeplitz,
    kron,
    kronecker_sum,
    solve,
    use_backend,
)
from structmask.linalg.circulant_preconditioner import WINDOWS, circulant_inverse, circulant_symbol, period
from tests import naive
from tests.cases import complex_, real


def table_of(f, n):
    return f(np.abs(np.arange(1 - n, n)).astype(float))


POSITIVE = {
    "decay": lambda k: 0.99**k,
    "matern": lambda k: (1 + np.sqrt(3) * k / 10) * np.exp(-np.sqrt(3) * k / 10),
    "long_memory": lambda k: (1 + k) ** -0.2,
    "second_difference": lambda k: 2.0 * (k == 0) - (k == 1),
    "wide_matern": lambda k: (1 + np.sqrt(3) * k / 80) * np.exp(-np.sqrt(3) * k / 80),
}


# --- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("grid", [(1,), (2,), (9,), (3, 4), (2, 3, 4)])
def test_eigenvalues_are_those_of_the_sum(window, data, grid, close):
    table = data(*(2 * n - 1 for n in grid))
    symbol = circulant_symbol(Toeplitz(table, levels=len(grid)), WINDOWS[window])
    assert symbol.grid == grid
    close(symbol.values, naive.circulant_eigenvalues(table, tuple(map(period, grid)), window), tolerance=1e-12)


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("operand", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize(("grid", "columns"), [((9,), 1), ((9,), 5), ((3, 4), 2), ((2, 3, 4), 5)])
def test_preconditioner_is_a_corner_of_the_inverse_of_a_circulant(data, operand, grid, columns, close):
    table = data(*(2 * n - 1 for n in grid))
    table[tuple(n - 1 for n in grid)] += 30
    P, _ = circulant_inverse(Toeplitz(table, levels=len(grid)), WINDOWS, hermitian=False)
    lengths = tuple(map(period, grid))
    C = naive.circulant(naive.circulant_eigenvalues(table, lengths, "strang"))
    inside = np.ravel_multi_index(np.meshgrid(*map(np.arange, grid), indexing="ij"), lengths).ravel()
    R = operand(2, np.prod(grid), columns)
    close(P(R), np.linalg.inv(C)[np.ix_(inside, inside)] @ R, tolerance=1e-12)
    with use_backend("numpy"):
        close(P(R), np.linalg.inv(C)[np.ix_(inside, inside)] @ R, tolerance=1e-12)


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_chan_has_the_rayleigh_quotients_of_plane_waves(data, close):
    """Hence positivity: eigenvalues of T. Chan's circulant are means of those of the matrix, at any period."""
    n = 12
    table = data(2 * n - 1)
    waves = np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(period(n))) / period(n))
    quotients = np.einsum("ij,ik,kj->j", waves.conj(), naive.toeplitz(table), waves) / n
    close(circulant_symbol(Toeplitz(table), WINDOWS["chan"]).values, quotients, tolerance=1e-12)


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("window", ["parzen", "chan"])
def test_positive_windows_keep_positive_symbols_positive(name, window):
    for n in (3, 10, 200):
        values = circulant_symbol(Toeplitz(table_of(POSITIVE[name], n)), WINDOWS[window]).values
        assert values.real.min() > 0
        assert abs(values.imag).max() <= 1e-12 * values.real.max()


# --- structures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
def test_circulants_follow_the_algebra(window, close):
    w, n = WINDOWS[window], 7
    a, b, d = Toeplitz(real(2 * n - 1)), Band(real(5, seed=1), n), Diagonal(real(n, seed=2))
    p, q = (circulant_symbol(matrix, w).values for matrix in (a, b))
    low = LowRank(real(n, 2), real(n, 2, seed=1))
    close(circulant_symbol(a + d, w).values, p + d.d.mean())
    close(circulant_symbol(d + a + low, w).values, p + d.d.mean())
    close(circulant_symbol(a @ b, w).values, p * q)
    close(circulant_symbol((a @ b) * 3.0, w).values, 3 * p * q)
    close(circulant_symbol(kron(a, b, d), w).values, (p[:, None] * q)[..., None] * d.d.mean())
    close(circulant_symbol(kronecker_sum(a, b), w).values, p[:, None] + q)
    two = circulant_symbol(Toeplitz(real(2 * n - 1, 2 * n - 1), levels=2), w).values
    close(circulant_symbol(kron(a, b) + Toeplitz(real(13, 13), levels=2), w).values, p[:, None] * q + two)
    batch = Toeplitz(real(2, 1, 2 * n - 1))
    heads = circulant_symbol(batch + Diagonal(real(3, n)), w).values
    assert heads.shape == (2, 3, period(n))
    close(heads[1, 2], circulant_symbol(Toeplitz(batch.offsets[1, 0]), w).values + real(3, n)[2].mean())


@pytest.mark.parametrize(
    "a",
    [Buckets([0.5, 3.0, 0.2], [0, 1], 9), ExponentialSum([1.0, 0.2], [0.5, 0.9], 9), Band(real(5), 9)],
    ids=["buckets", "exponential_sum", "band"],
)
def test_structures_that_are_toeplitz_matrices_have_the_circulant_of_their_table(a, close):
    for window in WINDOWS.values():
        table = Toeplitz(np.r_[a.to_dense()[0, :0:-1], a.to_dense()[:, 0]])
        close(circulant_symbol(a, window).values, circulant_symbol(table, window).values)


def test_structures_without_a_circulant():
    n = 6
    a, sparse = Toeplitz(real(2 * n - 1)), Sparse(scipy.sparse.eye_array(n))
    other = Toeplitz(real(5, 3), levels=2)
    for matrix in (sparse, a + sparse, Causal(n, decay=real(n)) @ a, kron(a, sparse), a + other, Dense(np.eye(n))):
        assert circulant_inverse(matrix, WINDOWS, hermitian=False) is None
    assert circulant_inverse(Diagonal(np.ones(n)), WINDOWS, hermitian=True) is None
    assert circulant_inverse(Toeplitz(np.zeros(2 * n - 1)), WINDOWS, hermitian=True) is None
    with pytest.raises(ValueError, match="no circulant near it: 'chan' takes Toeplitz, Band"):
        solve(sparse, np.ones(n), preconditioner="chan")


# --- choice and effect ------------------------------------------------------------------------------------------------


def count(a, b, preconditioner, tol=1e-8):
    seen = []
    x = solve(a, b, tol=tol, preconditioner=preconditioner, callback=lambda *args: seen.append(args))
    B = b if b.ndim > 1 else b[:, None]
    X = x if b.ndim > 1 else x[:, None]
    assert (np.linalg.norm(B - a @ X, axis=-2) <= tol * np.linalg.norm(B, axis=-2)).all()
    return len(seen)


@pytest.mark.parametrize(
    ("name", "most"), [("decay", 8), ("matern", 6), ("long_memory", 12), ("second_difference", 15), ("wide_matern", 30)]
)
def test_few_iterations_whatever_the_size(name, most):
    for n in (600, 2400):
        a = Toeplitz(table_of(POSITIVE[name], n))
        assert count(a, real(n), "circulant") <= most
        assert count(a, real(n, 4), "circulant") <= most


def test_the_first_positive_window_is_taken():
    n = 200
    for name, window in (("decay", "strang"), ("second_difference", "parzen")):
        a = Toeplitz(table_of(POSITIVE[name], n))
        P, _ = circulant_inverse(a, WINDOWS, hermitian=True)
        np.testing.assert_array_equal(P.inverse, 1 / circulant_symbol(a, WINDOWS[window]).values.real)


def test_the_window_that_is_flat_at_zero_saves_most_for_second_differences():
    a = Toeplitz(table_of(POSITIVE["second_difference"], 2000))
    assert 3 * count(a, real(2000), "parzen") < count(a, real(2000), "chan")


def test_indefinite_matrices_have_positive_preconditioners():
    n = 800
    a = Toeplitz(table_of(lambda k: 0.5**k - 0.9 * (k == 0), n))
    P, _ = circulant_inverse(a, WINDOWS, hermitian=True)
    assert (P.inverse > 0).all()
    assert count(a, real(n, 2), "auto") < count(a, real(n, 2), "none") / 2


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_matrices_that_are_not_hermitian(data):
    n, k = 700, np.arange(-699, 700)
    a = Toeplitz(np.where(k > 0, 0.9, 0.5) ** abs(k) * (1 if data is real else np.exp(0.3j * k)))
    assert count(a, data(n, 3), "auto") < count(a, data(n, 3), "none") / 2


def test_circulants_for_kriging():
    """A covariance plus noise, of one variance or of several: the mean variance is enough."""
    n = 1200
    covariance = Toeplitz(table_of(POSITIVE["matern"], n))
    for noise in (np.full(n, 0.01), np.linspace(0.1, 0.3, n)):
        a = covariance + Diagonal(noise)
        assert count(a, real(n, 2), "auto") < count(a, real(n, 2), "jacobi") / 2


def test_grids_and_batches():
    grid = (20, 40)
    a = Toeplitz.from_function(lambda i, j: np.exp(-np.hypot(i, j) / 5), grid)
    assert count(a, real(800, 2), "auto") < count(a, real(800, 2), "none") / 3
    tables = np.stack([table_of(POSITIVE[name], 600) for name in ("decay", "matern")])
    assert count(Toeplitz(tables), real(2, 600, 2), "auto") <= 8


def test_periods_are_fast_and_have_room():
    for n in itertools.chain(range(1, 200), (4093, 5000, 65535)):
        assert n <= period(n) <= 1.25 * n + 1
        assert scipy.fft.next_fast_len(period(n), real=True) == period(n)
