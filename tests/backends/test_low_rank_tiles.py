"""Tiles of low-rank masks against the definition, by dense products in double precision."""

import numpy as np
import pytest

from structmask.backends._numba import low_rank, low_rank_pullback

SIZES = [  # heads, shared, m, n, r, k, p
    (1, True, 1, 1, 1, 1, 1),
    (1, True, 2, 1, 3, 2, 1),
    (3, True, 70, 129, 5, 33, 2),
    (3, False, 129, 64, 17, 3, 3),
    (2, False, 65, 190, 2, 40, 11),
    (1, True, 200, 63, 64, 65, 1),
    (2, True, 1100, 1700, 3, 5, 2),
    (0, True, 3, 3, 2, 2, 1),
    (2, True, 0, 5, 2, 2, 1),
    (2, True, 5, 0, 2, 2, 1),
    (2, True, 5, 6, 0, 2, 1),
    (2, True, 5, 6, 2, 0, 1),
    (2, True, 5, 6, 2, 2, 0),
]
CASES = pytest.mark.parametrize("sizes", SIZES, ids=str)
PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])
THREADING = pytest.mark.parametrize("serial", [True, False], ids=["serial", "parallel"])


@pytest.fixture
def operands(sizes, dtype, serial, monkeypatch):
    """F, G, X, P and the factors of the mask."""
    monkeypatch.setattr(low_rank, "_SERIAL_WORK", np.inf if serial else 0)
    rng = np.random.default_rng(3)
    heads, shared, m, n, r, k, p = sizes
    count = 1 if shared else heads
    shapes = (heads, m, r), (heads, n, r), (heads, n, k), (heads, m, k), (count, m, p), (count, n, p)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def close(value, wanted, scale, dtype):
    assert value.dtype == dtype
    assert value.shape == wanted.shape
    unit = 2e-6 if dtype == "float32" else 1e-13
    assert (np.abs(value - wanted) <= unit * scale).all()


def wide(*operands):
    return [a.astype("float64") for a in operands]


@CASES
@PRECISIONS
@THREADING
def test_product_is_the_masked_product(operands, dtype):
    F, G, X, _, left, right = operands
    Y, mass = low_rank.low_rank_hadamard(F, G, X, left, right)
    F, G, X, left, right = wide(F, G, X, left, right)
    A = (left @ right.mT) * (F @ G.mT)
    size = (np.abs(left) @ np.abs(right).mT) * (np.abs(F) @ np.abs(G).mT)
    close(Y, A @ X, size @ np.abs(X), dtype)
    close(mass, A.sum(-1), size.sum(-1), dtype)


@CASES
@PRECISIONS
@THREADING
def test_gradients_are_masked_products(operands, dtype):
    F, G, X, P, left, right = operands
    columns = X.shape[2] // 2
    got = low_rank_pullback.low_rank_pullback(F, G, P, X, left, right, columns)
    F, G, X, P, left, right = wide(F, G, X, P, left, right)

    def gradients(F, G, X, P, left, right):
        M, R, Q = left @ right.mT, F @ G.mT, P @ X.mT
        return (M * Q) @ G, (M * Q).mT @ F, ((M * R).mT @ P)[..., :columns], (R * Q) @ right, (R * Q).mT @ left

    wanted = gradients(F, G, X, P, left, right)
    scales = gradients(*map(np.abs, (F, G, X, P, left, right)))
    for value, exact, scale in zip(got, wanted, scales, strict=True):
        close(value, exact, scale, dtype)


@pytest.mark.parametrize("sizes", [(1, True, 50_000, 50_000, 3, 2, 1)])
@pytest.mark.parametrize("dtype", ["float32"])
@pytest.mark.parametrize("serial", [True])
def test_long_sums_keep_their_accuracy(operands):
    F, G, X, _, left, right = (np.abs(a) for a in operands)
    Y, _ = low_rank.low_rank_hadamard(F, G, X, left, right)
    F, G, X, left, right = wide(F, G, X, left, right)
    exact = left * (F @ (G.mT @ (right * X)))
    assert (np.abs(Y - exact) <= 4e-6 * exact).all()


def test_threads_do_not_change_a_bit(monkeypatch):
    rng = np.random.default_rng(3)
    F, G, X = (rng.standard_normal((1, 3000, size)) for size in (7, 7, 20))
    left, right = rng.standard_normal((2, 1, 3000, 2))
    results = []
    for bound in (np.inf, 0):
        monkeypatch.setattr(low_rank, "_SERIAL_WORK", bound)
        Y, mass = low_rank.low_rank_hadamard(F, G, X, left, right)
        results.append([Y, mass, *low_rank_pullback.low_rank_pullback(F, G, Y, X, left, right, 20)])
    for alone, together in zip(*results, strict=True):
        np.testing.assert_array_equal(alone, together)
