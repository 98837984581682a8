"""Gradients under state-space masks by chunks: the same as by arrays, on both forms."""

import numpy as np
import pytest

from structmask import Causal, ExponentialSum, StateSpace, use_backend
from structmask.backends import arrays
from structmask.backends._numba import state_pullback
from structmask.linalg import state_gradient
from structmask.linalg.hadamard import masked_pullback
from structmask.linalg.orbits import power_pullback
from tests.cases import real, states

JORDAN = ([[0.95, 0.5], [0.0, 0.95]], [1.0, 1.0], [1.0, 0.0])
MASKS = {
    "sum": lambda n: ExponentialSum([1.0, -0.5, 0.1], [0.99, 0.5, -0.3], n),
    "causal": lambda n: ExponentialSum([1.0, -0.5], [0.99, 0.9], n, causal=True),
    "upper": lambda n: ExponentialSum([1.0, -0.5], [0.99, 0.9], n, causal=True, upper=True),
    "jordan": lambda n: StateSpace(*JORDAN, n),
    "band": lambda n: StateSpace(*JORDAN, n, near=real(3)),
    "wide": lambda n: StateSpace(*JORDAN, n, near=real(20)),
    "batch": lambda n: StateSpace(*states(2), n),
    "fading": lambda n: ExponentialSum([1.0, 2.0], [0.01, 0.0], n),
}


def along_diagonals(mask, F, G, P, X):
    """Gradients for the generators by those of the table, one diagonal after the other."""
    D, n = (P @ np.swapaxes(X, -1, -2)) * (F @ np.swapaxes(G, -1, -2)), mask.n
    D = D if mask.ndim > 2 else D.reshape(-1, n, n).sum(axis=0)
    return mask.gradient(np.stack([np.trace(D, -s, -2, -1) for s in range(1 - n, n)], axis=-1))


def of_rows(mask, F, G, P, X):
    """Gradients for F, G and X by arrays."""
    M, R, Q = mask.to_dense(), F @ np.swapaxes(G, -1, -2), P @ np.swapaxes(X, -1, -2)
    return (M * Q) @ G, np.swapaxes(M * Q, -1, -2) @ F, np.swapaxes(M * R, -1, -2) @ P


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("n", "m", "k"), [(1, 2, 1), (16, 2, 3), (65, 3, 1), (300, 9, 33)])
def test_by_chunks_as_along_diagonals(backend, name, n, m, k):
    mask, F, G, P, X = MASKS[name](n), *real(2, 2, n, m), *real(2, 2, n, k)
    with use_backend(backend):
        found, *rows = state_gradient.pullback(mask, F, G, P, X, k - 1)
    dF, dG, dX = of_rows(mask, F, G, P, X)
    for got, want in zip(rows, (dF, dG, dX[..., : k - 1]), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-12 * max(1, np.abs(want).max(initial=0)))
    want = along_diagonals(mask, F, G, P, X)
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].shape == value.shape
        np.testing.assert_allclose(found[key], value, atol=1e-11 * max(1, np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("n", [600, 4000])
def test_single_precision(monkeypatch, backend, n):
    """By array operations a column at a time, by the kernel on one thread and, if long, on all."""
    monkeypatch.setattr(arrays, "block_entries", lambda _: 1)
    mask = ExponentialSum(np.float32([1.0, 0.5]), np.float32([0.999, 0.9]), n)
    operands = *real(2, n, 5), *real(2, n, 35)
    with use_backend(backend):
        found, *rows = state_gradient.pullback(mask, *(a.astype(np.float32) for a in operands), 35)
    expected = (*along_diagonals(mask, *operands).values(), *of_rows(mask, *operands))
    for got, want in zip((*found.values(), *rows), expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", ["sum", "batch"])
def test_heads_in_turn(monkeypatch, name):
    """Where moments of all heads would take too much memory; the mask's gradient is added up, or its heads' own."""
    mask = MASKS[name](300)
    operands = *real(2, 2, 300, 3), *real(2, 2, 300, 5)
    expected, *rows = state_gradient.pullback(mask, *operands, 5)
    monkeypatch.setattr(state_pullback, "_MOST", 1)
    found, *same = state_gradient.pullback(mask, *operands, 5)
    for got, want in zip((*found.values(), *same), (*expected.values(), *rows), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12 * np.abs(want).max())


def test_attention_by_scans_takes_these_gradients(monkeypatch):
    n, decay = 3000, 0.99
    mask = ExponentialSum([1.0], [decay], n, causal=True)
    operands = real(4, n, 2)
    calls, pullback = [], state_gradient.pullback
    monkeypatch.setattr(state_gradient, "pullback", lambda *given: calls.append(given) or pullback(*given))
    d_mask, *others = masked_pullback(mask, *operands)
    assert len(calls) == 1
    d_causal, *same = masked_pullback(Causal(n, decay=decay), *operands)
    np.testing.assert_allclose(d_mask["decays"][0], d_causal["decay"], rtol=1e-9)
    for a, b in zip(others[:2], same[:2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9 * np.abs(b).max())


def test_the_gradient_of_a_power():
    a, d, step = real(3, 3), real(3, 3), 1e-6
    power, slope = np.linalg.matrix_power, power_pullback(a, 5, d)
    for i, j in np.ndindex(3, 3):
        e = np.zeros((3, 3))
        e[i, j] = step
        change = (power(a + e, 5) - power(a - e, 5)) / (2 * step)
        np.testing.assert_allclose(slope[i, j], np.sum(d * change), rtol=1e-5, atol=1e-6)
