"""The many-column FFT product, the fused product and their gradients, against the dense matrix in float64."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from structmask.backends._numba.convolution import offsets_gradient, product
from structmask.backends._numba.fft_plan import good_length, plan
from structmask.backends._numba.fused import hadamard, hadamard_pullback

SIZES = [1, 2, 3, 5, 7, 31, 100, 1000, 3001, 4096, 5000]
COLUMNS = [1, 3, 8, 17, 32, 63, 64, 65]
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (31, 100), (100, 31), (257, 300)]
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE))


def dense(offsets, m, n):
    i, j = np.arange(m)[:, None], np.arange(n)
    return offsets[..., i - j + n - 1]


def diagonal_sums(W):
    """Sums over i - j = s of matrices (batch, m, n), the adjoint of `dense`."""
    batch, m, n = W.shape
    sums = np.zeros((batch, m + n - 1))
    for i in range(m):
        sums[:, i : i + n] += W[:, i, ::-1]
    return sums


def close(value, expected, dtype):
    assert value.dtype == dtype
    assert value.shape == expected.shape
    assert np.abs(value - expected).max(initial=0) <= TOLERANCE[dtype] * np.abs(expected).max(initial=0)


def normal(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@dtypes
@pytest.mark.parametrize("n", SIZES)
def test_product_is_the_dense_product(n, dtype):
    offsets = normal(1, 2 * n - 1)
    X = normal(1, n, max(COLUMNS), dtype=dtype)
    expected = dense(offsets, n, n) @ X.astype(np.float64)
    this = plan(n, n, dtype)
    spectrum = this.spectrum(offsets)
    for k in COLUMNS:
        close(product(this, spectrum, X[..., :k]), expected[..., :k], dtype)


@dtypes
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tables", [1, 3])
def test_rectangular_batches(shape, tables, dtype):
    m, n = shape
    offsets, this = normal(tables, m + n - 1), plan(m, n, dtype)
    for k in (5, 40):
        X = normal(3, n, k, dtype=dtype)
        close(product(this, this.spectrum(offsets), X), dense(offsets, m, n) @ X.astype(np.float64), dtype)


@pytest.mark.parametrize(("lane_bytes", "dtype"), [(16, np.float64), (32, np.float32), (64, np.float64)])
def test_every_vector_width(lane_bytes, dtype):
    for n in (6, 45, 700):
        offsets, X = normal(1, 2 * n - 1), normal(1, n, 9, dtype=dtype)
        this = plan(n, n, dtype, lane_bytes=lane_bytes)
        assert this.lane_bytes == lane_bytes
        close(product(this, this.spectrum(offsets), X), dense(offsets, n, n) @ X.astype(np.float64), dtype)


def expected_pullback(offsets, F, G, X, P):
    """The product, its gradients by the formulas for dense matrices, and that of a plain product, table by table."""
    (m, n), F, G, X, P = (F.shape[1], G.shape[1]), *(A.astype(np.float64) for A in (F, G, X, P))
    M, W, kernel = dense(offsets, m, n), P @ X.mT, F @ G.mT
    tables = [diagonal_sums(kernel * W), diagonal_sums(W)]
    if len(offsets) == 1:
        tables = [table.sum(axis=0, keepdims=True) for table in tables]
    return (M * kernel) @ X, (M * W) @ G, (M * W).mT @ F, (M * kernel).mT @ P, *tables


@dtypes
@pytest.mark.parametrize(
    ("shape", "r", "k", "batch", "tables"),
    [
        ((1, 1), 1, 1, 1, 1),
        ((2, 5), 3, 5, 2, 2),
        ((100, 31), 4, 33, 3, 1),
        ((31, 100), 33, 3, 2, 2),
        ((300, 200), 65, 64, 1, 1),
        ((200, 200), 64, 65, 2, 1),
        ((1000, 1000), 17, 8, 1, 1),
        ((1001, 1001), 8, 17, 5, 5),
    ],
)
def test_fused_product_and_gradients(shape, r, k, batch, tables, dtype):
    m, n = shape
    offsets = normal(tables, m + n - 1)
    F, G, X, P = (
        normal(batch, *size, dtype=dtype, seed=seed) for seed, size in enumerate([(m, r), (n, r), (n, k), (m, k)])
    )
    this = plan(m, n, dtype)
    spectrum = this.spectrum(offsets)
    found = hadamard(this, spectrum, F, G, X), *hadamard_pullback(this, spectrum, F, G, X, P)
    for value, expected in zip(
        (*found, offsets_gradient(this, P, X, tables)), expected_pullback(offsets, F, G, X, P), strict=True
    ):
        close(value, expected, dtype)


def test_fused_where_a_block_is_as_narrow_as_a_pair():
    n, this = 50, plan(50, 50, np.float64, lane_bytes=16)
    offsets = normal(1, 2 * n - 1)
    for r, k in ((5, 4), (4, 5), (1, 8)):
        F, G, X, P = (normal(1, n, columns, seed=seed) for seed, columns in enumerate([r, r, k, k]))
        spectrum = this.spectrum(offsets)
        found = hadamard(this, spectrum, F, G, X), *hadamard_pullback(this, spectrum, F, G, X, P)
        for value, expected in zip(found, expected_pullback(offsets, F, G, X, P), strict=False):
            close(value, expected, np.float64)


def test_empty_operands():
    this = plan(4, 3, np.float64)
    spectrum = this.spectrum(normal(1, 6))
    assert product(this, spectrum, np.ones((2, 3, 0))).shape == (2, 4, 0)
    assert product(this, spectrum, np.ones((0, 3, 5))).shape == (0, 4, 5)
    assert not hadamard(this, spectrum, np.ones((1, 4, 0)), np.ones((1, 3, 0)), np.ones((1, 3, 2))).any()
    gradients = hadamard_pullback(
        this, spectrum, np.ones((1, 4, 2)), np.ones((1, 3, 2)), np.ones((1, 3, 0)), np.ones((1, 4, 0))
    )
    assert [gradient.shape for gradient in gradients] == [(1, 4, 2), (1, 3, 2), (1, 3, 0), (1, 6)]
    assert not any(gradient.any() for gradient in gradients)
    assert not offsets_gradient(this, np.ones((1, 4, 0)), np.ones((1, 3, 0)), 1).any()


def test_inputs_may_be_read_only_strided_and_are_kept():
    n, k = 60, 7
    this = plan(n, n, np.float64)
    spectrum = this.spectrum(normal(1, 2 * n - 1))
    X = normal(1, n, k)
    Y = product(this, spectrum, X)
    frozen, strided = X.copy(), np.repeat(X, 2, axis=2)[..., ::2]
    frozen.flags.writeable = False
    spectrum.flags.writeable = False
    for other in (frozen, strided, np.asfortranarray(X[0])[None]):
        assert np.array_equal(product(this, spectrum, other), Y)
        assert np.array_equal(other, X)


def test_threads_do_not_disturb_each_other():
    n = 1500
    this = plan(n, n, np.float32)
    spectrum = this.spectrum(normal(1, 2 * n - 1))
    operands = [normal(2, n, 64, dtype=np.float32, seed=seed) for seed in range(4)]
    expected = [product(this, spectrum, X) for X in operands]
    wrong = []

    def work(X, Y):
        wrong.extend(None for _ in range(10) if not np.array_equal(product(this, spectrum, X), Y))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(operands, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def peak(function):
    """Bytes allocated by a second call, in a fresh thread (whose scratch is its own)."""
    function()
    found = []

    def measure():
        function()
        found.append(tracemalloc.get_traced_memory()[1])

    thread = threading.Thread(target=measure)
    tracemalloc.start()
    thread.start()
    thread.join()
    tracemalloc.stop()
    return found[0]


@dtypes
def test_memory(dtype):
    n = 5000
    this = plan(n, n, dtype)
    spectrum = this.spectrum(normal(1, 2 * n - 1))
    X = normal(1, n, 64, dtype=dtype)
    assert peak(lambda: product(this, spectrum, X)) <= 2.5 * X.nbytes
    F = normal(1, n, 32, dtype=dtype)
    # Packed copies, the result and scratch, not n x 32 x 64.
    assert peak(lambda: hadamard(this, spectrum, F, F, X)) <= 8 * X.nbytes
    assert peak(lambda: hadamard_pullback(this, spectrum, F, F, X, X)) <= 24 * X.nbytes


@pytest.mark.parametrize("first", [4, 8])
def test_good_lengths(first):
    for n in (*range(1, 300), 4097, 65535, 65537):
        radices = good_length(n, first)
        assert radices[0] == first
        assert n <= np.prod(radices) <= max(1.4 * n, 4 * first)


def test_plans_are_shared_and_checked():
    assert plan(5, 6, np.float32) is plan(5, 6, "float32")
    with pytest.raises(ValueError, match="m >= 1"):
        plan(0, 3, np.float32)
    with pytest.raises(TypeError, match="float32 or float64"):
        plan(3, 3, np.complex64)


@dtypes
def test_a_small_column_beside_large_ones_keeps_its_digits(dtype):
    """Columns are packed in pairs: each is brought to size one before, so that none takes on another's rounding."""
    rng = np.random.default_rng(7)
    n = 600
    table, X = rng.standard_normal((1, 2 * n - 1)), rng.standard_normal((1, n, 37))
    X *= 10.0 ** rng.integers(-9, 9, 37)
    X[..., 5] = 0
    X = X.astype(dtype)
    plan_ = plan(n, n, dtype)
    got = product(plan_, plan_.spectrum(table), X)[0]
    want = dense(table, n, n)[0] @ X[0].astype(float)
    size = np.where(want.any(axis=0), np.abs(want).max(axis=0), 1)
    assert np.max(np.abs(got - want) / size) < TOLERANCE[dtype]
