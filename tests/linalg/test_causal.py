"""Causal: decays of every kind, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import structmask as sm
from structmask import Causal
from tests import naive
from tests.cases import gates, real


def test_default_gives_prefix_sums():
    np.testing.assert_array_equal(Causal(5) @ np.arange(5.0), np.cumsum(np.arange(5.0)))
    np.testing.assert_array_equal(Causal(5).T @ np.arange(5.0), np.cumsum(np.arange(5.0)[::-1])[::-1])


def test_first_decay_is_unused(close):
    a, b = gates(9), gates(9)
    b[0] = 1e300
    close(Causal(9, decay=a).to_dense(), Causal(9, decay=b).to_dense())
    close(Causal(9, decay=a) @ np.ones(9), Causal(9, decay=b) @ np.ones(9))
    assert Causal(9, decay=a).pullback(real(9), real(9, seed=1))["decay"][0] == 0


def test_zeros_reset(close):
    """A zero gate splits the sequence: nothing passes it, and both parts are as if alone."""
    a = np.full(8, 0.5)
    a[3] = 0
    M = Causal(8, decay=a).to_dense()
    assert not M[3:, :3].any()
    close(M[3:, 3:], Causal(5, decay=0.5).to_dense())
    close(M[:3, :3], Causal(3, decay=0.5).to_dense())


def test_gradient_passes_zero_gates(close):
    """Gradients by division would be nan at a zero gate."""
    a = np.array([1.0, 0.0, 0.5, 0.0])
    gradient = Causal(4, decay=a).pullback(np.ones((4, 1)), np.ones((4, 1)))["decay"]
    # loss = sum of entries = 4 + a1 + a2 + a3 + a1 a2 + a2 a3 + a1 a2 a3
    close(gradient, [0.0, 1.5, 1.0, 1.5])


def test_constant_is_told_from_gates():
    assert Causal(3, decay=0.5).is_constant
    assert Causal(3, decay=np.float32(0.5)).is_constant
    assert Causal(3, decay=np.ones((2, 1))).is_constant
    assert not Causal(3, decay=np.ones(3)).is_constant


def test_tiny_products_of_decays_vanish_quietly():
    n = 3000
    M = Causal(n, decay=0.5)
    assert M.entries([n - 1], [0])[0, 0] == 0
    np.testing.assert_allclose(M @ np.ones(n), 2 - 0.5 ** np.arange(n), rtol=1e-14)
    np.testing.assert_allclose(Causal(n, decay=np.full(n, 0.5)) @ np.ones(n), 2 - 0.5 ** np.arange(n), rtol=1e-14)


@pytest.mark.parametrize("n", [-1, np.int64(-3)])
def test_negative_sizes_are_refused(n):
    with pytest.raises(ValueError, match="size n >= 0"):
        Causal(n)


@pytest.mark.parametrize("n", [2.5, "3", None])
def test_sizes_are_integers(n):
    with pytest.raises((TypeError, ValueError)):
        Causal(n)


def test_numpy_integers_are_sizes():
    assert Causal(np.int64(3)).shape == (3, 3)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 2), (2, 0)])
def test_decays_that_do_not_fit(shape):
    with pytest.raises(
        ValueError, match=r"Causal\(3\) needs a scalar decay or one of shape \(\.\.\., 3\) or \(\.\.\., 1\)"
    ):
        Causal(3, decay=np.ones(shape))


@given(
    st.integers(0, 40),
    st.sampled_from([(), (2,), (3, 1)]),
    st.booleans(),
    st.integers(0, 99),
    st.floats(-2, 2, width=16),
)
def test_any_decay(n, batch, upper, seed, scale):
    decay = scale * gates(*batch, n, seed=seed)
    M, dense = Causal(n, decay=decay, upper=upper), naive.causal(n, decay, upper=upper)
    X = real(n, 2, seed=seed)
    bound = np.max(np.abs(dense) @ np.abs(X), initial=1e-300)
    np.testing.assert_allclose(M.to_dense(), dense, rtol=1e-13)
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-13 * bound)


def test_decays_stay_exact_under_single_precision_operands():
    """A decay rounded to single precision would be off by as many roundings as it has steps: 3e-5 at this distance."""
    n = 4096
    F, X = np.ones((n, 1), np.float32), np.zeros((n, 1), np.float32)
    X[0] = 1
    for decay in (0.9993, np.full(n, 0.9993)):
        mask, far = sm.Causal(n, decay=decay), 0.9993 ** np.arange(n)
        for Y in (mask @ X, (mask * sm.LowRank(F, F)) @ X):
            assert Y.dtype == np.float32
            assert np.max(np.abs(Y[:, 0] / far - 1)) < 5e-6
