"""Hypercube masks: their eigenvalues, transforms, rules and rounding."""

import math

import numpy as np
import pytest
import scipy.linalg

from structmask import Causal, Hypercube, Toeplitz, kron, masked_attention
from structmask.backends import _standard, kernels
from structmask.backends._numba import walsh
from structmask.linalg.hypercube import krawtchouk
from structmask.linalg.rounding import rounding_of
from tests import naive
from tests.cases import complex_, real


@pytest.mark.parametrize("d", [0, 1, 5])
def test_eigenvectors_are_characters(d, close):
    """H M H / n is diagonal, with the eigenvalue of weight w wherever the index has w bits."""
    values = real(d + 1)
    H, M = scipy.linalg.hadamard(2**d), naive.hypercube(values)
    weights = [i.bit_count() for i in range(2**d)]
    close(np.diag(Hypercube(values).eigenvalues[weights]), H @ M @ H / 2**d)


def test_krawtchouk_matrix_is_its_own_inverse(close):
    K = krawtchouk(9)
    close(K @ K, 2**9 * np.eye(10))
    close(K[:, 0], [math.comb(9, h) for h in range(10)])


def test_decay_in_every_bit_is_a_kronecker_power(close):
    """t^hamming is the Kronecker power of [[1, t], [t, 1]]."""
    step, X = Toeplitz([0.3, 1.0, 0.3]), real(32, 4)
    close(Hypercube(0.3 ** np.arange(6.0)) @ X, kron(*[step] * 5) @ X)


@pytest.mark.parametrize("data", [real, complex_])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (64, 1), (512, 5), (3, 128, 2), (2, 0, 16, 3)])
def test_transforms_are_products_with_the_hadamard_matrix(shape, data, close):
    X = data(*shape)
    want = scipy.linalg.hadamard(shape[-2]) @ X
    kept = X.copy()
    close(kernels.walsh_hadamard(X), want, scale=np.abs(X).sum())
    close(_standard.walsh_hadamard(X), want, scale=np.abs(X).sum())
    np.testing.assert_array_equal(X, kept)


@pytest.mark.parametrize("bits", [3, 4, 7, 10])
def test_transforms_across_chunks(bits, monkeypatch, close):
    """Chunks of a few numbers, in two threads: every distance is met once, by pairs and by quadruples."""
    monkeypatch.setattr(walsh, "_CHUNK", 8)
    monkeypatch.setattr(walsh, "_SERIAL_SIZE", 100)
    X = real(2, 2**bits, 3)
    close(kernels.walsh_hadamard(X), scipy.linalg.hadamard(2**bits) @ X, scale=np.abs(X).sum())


def test_rules(close):
    a, b = Hypercube(real(4)), Hypercube(real(4, seed=1))
    for got, want in (
        (a + b, a.to_dense() + b.to_dense()),
        (a * b, a.to_dense() * b.to_dense()),
        (2 * a - 1, 2 * a.to_dense() - 1),
    ):
        assert type(got) is Hypercube
        close(got.to_dense(), want)
    with pytest.raises(TypeError, match="Hypercube \\* Causal has no fast product"):
        a * Causal(8)


def test_rounding_estimate_covers_the_error_and_not_by_much():
    values, X = 0.5 ** np.arange(13.0), real(4096, 64)
    M = Hypercube(values)
    exact, single = M @ X, M @ X.astype(np.float32)
    rounding = rounding_of(M, 2.0**-24)
    bound = rounding.unit * np.sqrt(np.mean(exact**2, axis=0)) + rounding.column * np.linalg.norm(X, axis=0)
    error = np.abs(single - exact).max(axis=0)
    assert (error < bound).all()
    assert (error > bound / 100).all()


def test_rows_of_tiny_mass_stay_accurate():
    """Keys of very different size under a mask that decays fast: single precision keeps every row."""
    mask, n = Hypercube(10.0 ** -np.arange(10.0)), 512
    F, G, v = np.ones((n, 1)), np.exp(np.linspace(-8, 8, n))[:, None], real(n, 2)
    exact = naive.masked_attention(F, G, v, mask.to_dense())
    got = masked_attention(*(a.astype(np.float32) for a in (F, G, v)), mask=mask, features=None)
    assert np.abs(got - exact).max() < 1e-4


@pytest.mark.parametrize("values", [1.0, np.zeros(0), np.zeros(60)])
def test_values_are_one_a_distance(values):
    with pytest.raises(ValueError, match="one a Hamming distance"):
        Hypercube(values)
