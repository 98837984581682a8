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


def positions(rows, columns):
    """Where the entry of a row and a column of grid points is in a table of offsets, level by level."""
    i, j = (np.indices(sides).reshape(len(sides), -1) for sides in (rows, columns))
    return tuple(i[:, :, None] - j[:, None, :] + (np.array(columns) - 1)[:, None, None])


def diagonal_sums(W, rows, columns):
    """Sums over i - j = s of matrices (batch, m, n), the adjoint of reading them from a table."""
    sums = np.zeros((len(W), *(m + n - 1 for m, n in zip(rows, columns, strict=True))))
    for b, matrix in enumerate(W):
        np.add.at(sums[b], positions(rows, columns), matrix)
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


def expected_pullback(offsets, F, G, X, P, grids=None):
    """The product, its gradients by the formulas for dense matrices, and that of a plain product, table by table."""
    rows, columns = grids or ((F.shape[1],), (G.shape[1],))
    F, G, X, P = (A.astype(np.float64) for A in (F, G, X, P))
    M, W, kernel = offsets[(slice(None), *positions(rows, columns))], P @ X.mT, F @ G.mT
    tables = [diagonal_sums(kernel * W, rows, columns), diagonal_sums(W, rows, columns)]
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


GRIDS = [
    ((3, 5), (3, 5)),
    ((16, 16), (16, 16)),
    ((9, 20), (11, 3)),
    ((5, 1), (1, 7)),
    ((24, 33), (24, 33)),
    ((3, 4, 5), (3, 4, 5)),
    ((2, 5, 3), (4, 2, 6)),
    ((2, 3, 2, 3), (2, 2, 3, 3)),
]
grids = pytest.mark.parametrize(("rows", "columns"), GRIDS, ids=lambda sides: "x".join(map(str, sides)))


def table(rows, columns, count=1):
    return normal(count, *(m + n - 1 for m, n in zip(rows, columns, strict=True)))


@dtypes
@grids
def test_product_on_grids(rows, columns, dtype):
    for tables, batch in ((1, 1), (1, 2), (2, 2)):
        offsets, this = table(rows, columns, tables), plan(rows, columns, dtype)
        M, spectrum = offsets[(slice(None), *positions(rows, columns))], this.spectrum(offsets)
        for k in (1, 3, 40):
            X = normal(batch, this.n, k, dtype=dtype)
            close(product(this, spectrum, X), M @ X.astype(np.float64), dtype)


def test_narrow_vectors_on_grids():
    for rows, columns in GRIDS:
        offsets, this = table(rows, columns), plan(rows, columns, np.float32, lane_bytes=32)
        X = normal(1, this.n, 9, dtype=np.float32)
        M = offsets[(slice(None), *positions(rows, columns))]
        close(product(this, this.spectrum(offsets), X), M @ X.astype(np.float64), np.float32)


@grids
def test_fused_product_and_gradients_on_grids(rows, columns):
    this = plan(rows, columns, np.float64)
    for r, k, batch, tables in ((5, 4, 1, 1), (3, 20, 2, 2), (2, 9, 2, 1)):
        offsets = table(rows, columns, tables)
        F, G, X, P = (
            normal(batch, *size, seed=seed)
            for seed, size in enumerate([(this.m, r), (this.n, r), (this.n, k), (this.m, k)])
        )
        spectrum = this.spectrum(offsets)
        found = hadamard(this, spectrum, F, G, X), *hadamard_pullback(this, spectrum, F, G, X, P)
        expected = expected_pullback(offsets, F, G, X, P, (rows, columns))
        for value, exact in zip((*found, offsets_gradient(this, P, X, tables)), expected, strict=True):
            close(value, exact, np.float64)


def test_long_first_level_goes_through_in_chunks():
    """Few rows of every position at a time, more positions than a leaf holds."""
    for rows in ((1500, 3), (40, 101)):
        offsets, this = table(rows, rows), plan(rows, rows, np.float64)
        X = normal(1, this.n, 2)
        M = offsets[(slice(None), *positions(rows, rows))]
        close(product(this, this.spectrum(offsets), X), M @ X, np.float64)


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
    grid = plan((50, 100), (50, 100), dtype)
    of_grid = grid.spectrum(normal(1, 99, 199))
    assert peak(lambda: product(grid, of_grid, X)) <= 2.5 * X.nbytes
    F = normal(1, n, 32, dtype=dtype)
    # Packed copies, the result and scratch, not n x 32 x 64.
    assert peak(lambda: hadamard(this, spectrum, F, F, X)) <= 8 * X.nbytes
    assert peak(lambda: hadamard_pullback(this, spectrum, F, F, X, X)) <= 24 * X.nbytes


@pytest.mark.parametrize("widest", [4, 8])
@pytest.mark.parametrize("least", [1, 2])
def test_good_lengths(widest, least):
    for n in (*range(1, 300), 4097, 65535, 65537):
        radices = good_length(n, widest, least)
        assert radices[0] in (1, widest)
        assert len(radices) >= least
        assert n <= np.prod(radices) <= max(1.4 * n, 2)


def test_plans_are_shared_and_checked():
    assert plan(5, 6, np.float32) is plan(5, 6, "float32")
    for rows, columns in ((0, 3), ((2, 3), (2,)), ((), ())):
        with pytest.raises(ValueError, match="m >= 1"):
            plan(rows, columns, np.float32)
    with pytest.raises(TypeError, match="float32 or float64"):
        plan(3, 3, np.complex64)


@dtypes
def test_a_small_column_beside_large_ones_keeps_its_digits(dtype):
    """Every column has a lane of its own, or several: none takes on another's rounding."""
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
