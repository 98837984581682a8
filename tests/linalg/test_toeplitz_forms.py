"""What a Toeplitz table is found to be, and that products stay those of the table."""

import numpy as np
import pytest

from structmask import Band, Kronecker, LowRank, Toeplitz
from structmask.linalg import toeplitz_forms
from structmask.linalg.toeplitz_forms import simpler
from tests.cases import real

GAUSS = (lambda i, j: np.exp(-(i * i + j * j) / 50.0), (9, 11))


def table(f, shape, dtype="float64"):
    return Toeplitz.from_function(lambda *s: f(*s).astype(dtype), shape)


@pytest.fixture(autouse=True)
def _whatever_it_costs(monkeypatch):
    """The form found, whether or not its product is expected to be the faster one."""
    pays = toeplitz_forms._pays
    monkeypatch.setattr(toeplitz_forms, "_pays", lambda found, mask: isinstance(found, Kronecker) or pays(found, mask))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize(
    ("f", "shape", "found"),
    [
        (lambda s: np.full(s.shape, 0.3), 70, LowRank),
        (lambda s, t: 0.0 * (s + t), (8, 9), LowRank),
        (lambda s: (np.abs(s - 1) < 3) * (2.0 + s), 900, Band),
        (lambda s: (s == 0) * 3.0, 900, Band),
        (lambda s: (s >= 0) * 1.0, 900, type(None)),
        (*GAUSS, Kronecker),
        (lambda i, j: np.exp(-(abs(i) + abs(j)) / 3) * np.cos(i), (20, 30), Kronecker),
        (lambda i, j, k: 0.9 ** abs(i) / (1 + abs(j)) * (k + 2.0), (3, 5, 7), Kronecker),
        (lambda i, j: np.exp(-np.hypot(i, j)), (9, 11), type(None)),
        (lambda i, j: np.exp(-(i * i + j * j) / 50.0) + 1e-4 * (i == 3) * (j == 2), (9, 11), type(None)),
    ],
    ids=range(10),
)
def test_what_is_found(f, shape, found, dtype, close):
    M = table(f, shape, dtype)
    other = simpler(M)
    assert isinstance(other, found)
    X = real(M.shape[-1], 5).astype(dtype)
    close(M @ X, M._at(*np.indices(M.shape)) @ X)
    if other is not None:
        assert other.dtype == M.dtype
        close(other.to_dense(), M.to_dense())


def test_heads_share_what_all_of_them_have(close):
    heads = np.stack([GAUSS[0](*np.meshgrid(np.arange(-8, 9), np.arange(-10, 11), indexing="ij")) * s for s in (1, -2)])
    M = Toeplitz(heads[None], levels=2)
    assert simpler(M).shape == (1, 2, 99, 99)
    close(simpler(M).to_dense(), M.to_dense())
    heads[1, 3, 4] += 1e-6
    assert simpler(Toeplitz(heads, levels=2)) is None
    constant = Toeplitz(np.stack([np.full(139, 2.0), np.full(139, -1.0)]))
    close(simpler(constant).to_dense(), constant.to_dense())


def test_small_and_rectangular_tables_are_left_alone():
    assert simpler(Toeplitz(np.ones(63))) is None
    band = np.zeros(299)
    band[150:153] = 1
    assert simpler(Toeplitz(band, columns=(100,))) is None


def test_gradients_reach_offsets_that_are_zero_or_equal(close):
    n = 80
    G, X = real(n, 3), real(n, 3, seed=1)
    for M in (Toeplitz(np.ones(2 * n - 1)), table(lambda s: (np.abs(s) < 2) * 1.0, n)):
        want = [np.trace(G @ X.T, offset=-s) for s in range(1 - n, n)]
        close(M.pullback(G, X)["offsets"], want)


def test_not_a_number_is_no_structure(close):
    broken = np.ones(299)
    broken[7] = np.nan
    assert simpler(Toeplitz(broken)) is None
    zeros = np.zeros((17, 21))
    zeros[3, 4] = np.nan
    assert simpler(Toeplitz(zeros, levels=2)) is None
