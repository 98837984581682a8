"""The gradient of state-space masks by chunks: the same as along the diagonals of an array, on both forms."""

import numpy as np
import pytest

from structmask import Causal, ExponentialSum, StateSpace, use_backend
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


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("n", "m", "k"), [(1, 2, 1), (16, 2, 3), (41, 3, 1), (100, 9, 33)])
def test_by_chunks_as_along_diagonals(monkeypatch, backend, name, n, m, k):
    monkeypatch.setattr(state_gradient, "CHUNK", 16)
    mask, F, G, P, X = MASKS[name](n), *real(2, 2, n, m), *real(2, 2, n, k)
    with use_backend(backend):
        found = state_gradient.gradient(mask, F, G, P, X)
    want = along_diagonals(mask, F, G, P, X)
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key].shape == value.shape
        np.testing.assert_allclose(found[key], value, atol=1e-11 * max(1, np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_single_precision_and_columns_by_blocks(monkeypatch, backend):
    monkeypatch.setattr(state_gradient, "_SCRATCH", 0)
    mask = ExponentialSum(np.float32([1.0, 0.5]), np.float32([0.999, 0.9]), 600)
    operands = *real(2, 600, 5), *real(2, 600, 65)
    with use_backend(backend):
        found = state_gradient.gradient(mask, *(a.astype(np.float32) for a in operands))
    for key, value in along_diagonals(mask, *operands).items():
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], value, atol=1e-5 * np.abs(value).max(), err_msg=key)


def test_attention_by_scans_takes_this_gradient(monkeypatch):
    n, decay = 3000, 0.99
    mask = ExponentialSum([1.0], [decay], n, causal=True)
    operands = real(4, n, 2)
    calls, gradient = [], state_gradient.gradient
    monkeypatch.setattr(state_gradient, "gradient", lambda *given: calls.append(given) or gradient(*given))
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
