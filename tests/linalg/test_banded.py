"""Narrow bands by elimination: the definition of the stripe, definite, indefinite, uneven and singular ones."""

import numpy as np
import pytest

from structmask import Band, Diagonal, LowRank, Toeplitz, solve
from structmask.linalg.banded import band_solver
from tests.cases import complex_, real

N = 600


def second_difference(n):
    table = np.zeros(2 * n - 1)
    table[n - 2 : n + 1] = -1.0, 2.0, -1.0
    return Toeplitz(table)


MATRICES = {
    "second-difference": second_difference(N),
    "fourth-difference": Band([1.0, -4.0, 6.0, -4.0, 1.0], 200),
    "shifted": second_difference(N) + Diagonal(real(N)),
    "indefinite": Band([1.0, 0.1, 1.0], N),
    "uneven": Band(np.r_[real(4), 9.0], N, upper=4),
    "lower": Band(np.r_[9.0, real(4)], N, upper=0),
    "scaled": (second_difference(N) + Diagonal(1 + real(N) ** 2)) * 3.0,
    "complex": Band(np.r_[complex_(2), 7.0, complex_(2, seed=1)], N),
    "hermitian": Band([1j, 3.0, -1j], N) + Diagonal(np.arange(N) % 2),
    "complex-diagonal": Band([1.0, 3.0, 1.0], N) + Diagonal(complex_(N)),
    "wide": Band(np.r_[real(32) / 9, 20.0, real(32, seed=1) / 9], N),
    "two-bands": Band([1.0, 5.0, 1.0], N) + Band(np.r_[real(4), 9.0], N, upper=4),
}


@pytest.mark.parametrize("name", MATRICES)
def test_bands_are_eliminated(name, close):
    a = MATRICES[name]
    assert band_solver(a) is not None
    called, dense, n = [], a.to_dense(), a.shape[-1]
    for shape in ((n,), (n, 3), (2, n, 3)):
        b = real(*shape)
        x = solve(a, b, tol=1e-9, callback=lambda *args: called.append(args))
        close(x, np.linalg.solve(dense, b), tolerance=1e-14 * np.linalg.cond(dense))
    assert called == []


def test_what_is_no_narrow_band():
    n = 600
    wide = Band(real(2 * 33 + 1), n)
    heads = Band(real(2, 3), n)
    full, grid = Toeplitz(real(2 * n - 1)), Toeplitz(real(5, 3), levels=2)
    low = Band(real(3), n) + LowRank(real(n, 1), real(n, 1))
    for a in (wide, heads, full, grid, low, Band(real(3), 8), Band(real(9), 30), Band(real(3), 0)):
        assert band_solver(a) is None


def test_zeros_around_a_band_do_not_count(close):
    table = np.zeros(201)
    table[99:102] = 1.0, 4.0, 1.0
    close(band_solver(Band(table, 100))(real(100, 1)), np.linalg.solve(Band(table, 100).to_dense(), real(100, 1)))


def test_singular_bands_raise():
    below = Band([0.0, 1.0], 99, upper=0)
    for a in (below.T, Band(np.zeros(3), 99), Diagonal(np.zeros(99)) + below):
        with pytest.raises(np.linalg.LinAlgError, match="Singular"):
            solve(a, np.ones(99))
