"""Compiled tiles against the definitions: masks written entry by entry, products by dense float64."""

import numpy as np
import pytest

from structmask import Toeplitz
from structmask.backends import kernels
from structmask.backends._numba import causal, causal_pullback, dense, dense_pullback, scan

TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])
THREADING = pytest.mark.parametrize("serial", [True, False], ids=["serial", "parallel"])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def set_threading(monkeypatch, serial):
    bound = np.inf if serial else 0
    monkeypatch.setattr(causal, "_SERIAL_WORK", bound)
    monkeypatch.setattr(causal_pullback, "_SERIAL_WORK", bound)
    monkeypatch.setattr(dense, "_SERIAL_WORK", bound)
    monkeypatch.setattr(scan, "_SERIAL_SIZE", bound)


def masked_product(mask, F, G, X):
    """The product and the row sums in float64, and the same of absolute values: what rounding is measured by."""
    A = mask.astype("float64") * (F.astype("float64") @ G.astype("float64").swapaxes(1, 2))
    size = np.abs(mask) * (np.abs(F) @ np.abs(G).swapaxes(1, 2))
    return A @ X, A.sum(2), size @ np.abs(X), size.sum(2)


def assert_rows_close(result, mask, F, G, X):
    Y, mass = result
    expected, expected_mass, scale, scale_mass = masked_product(mask, F, G, X)
    assert Y.dtype == mass.dtype == F.dtype
    assert Y.shape == expected.shape
    assert mass.shape == expected_mass.shape
    tolerance = TOLERANCE[F.dtype.name]
    row_scale = scale.max(2, initial=0.0)[..., None]
    assert (np.abs(Y - expected) <= tolerance * row_scale).all()
    assert (np.abs(mass - expected_mass) <= tolerance * scale_mass).all()


def operands(rng, heads, m, n, rank, k, dtype):
    shapes = (heads, m, rank), (heads, n, rank), (heads, n, k)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def decay_matrix(decay, upper):
    """M_ij = decay_{j+1} ... decay_i for i >= j, else 0; transposed if upper."""
    M = np.eye(len(decay))
    for j in range(len(decay)):
        M[j + 1 :, j] = np.cumprod(decay[j + 1 :], dtype="float64")
    return M.T if upper else M


def decays(rng, kind, count, n, dtype):
    rates = {
        "ones": np.ones((count, n)),
        "signs and zeros": rng.uniform(-1, 1, (count, n)) * (rng.random((count, n)) > 0.1),
        "slow": 1 - 0.01 * rng.random((count, n)),
        "underflow": np.full((count, n), 1e-9),
    }[kind]
    return rates.astype(dtype)


@PRECISIONS
@THREADING
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
@pytest.mark.parametrize("kind", ["ones", "signs and zeros", "slow", "underflow"])
@pytest.mark.parametrize(
    "sizes",  # heads, decay shared, n, rank, columns
    [
        (1, True, 1, 1, 1),
        (2, True, 2, 3, 17),
        (3, False, 63, 64, 64),
        (3, True, 65, 17, 3),
        (1, True, 300, 5, 65),
        (2, False, 140, 200, 2),
        (1, True, 130, 1, 200),
    ],
)
def test_causal_is_the_masked_product(rng, monkeypatch, sizes, kind, upper, serial, dtype):
    heads, shared, n, rank, k = sizes
    set_threading(monkeypatch, serial)
    F, G, X = operands(rng, heads, n, n, rank, k, dtype)
    decay = decays(rng, kind, 1 if shared else heads, n, dtype)
    decay[:, 0] = np.nan  # never used
    mask = np.stack([decay_matrix(rates, upper) for rates in decay])
    assert_rows_close(causal.causal_hadamard(F, G, X, decay, upper), mask, F, G, X)


@PRECISIONS
@THREADING
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
@pytest.mark.parametrize("kind", ["ones", "signs and zeros", "slow", "underflow"])
@pytest.mark.parametrize(
    "sizes",  # heads, decay shared, n, rank, columns, of which wanted
    [
        (1, True, 1, 1, 1, 1),
        (2, True, 2, 3, 17, 0),
        (3, False, 63, 64, 65, 64),
        (3, True, 65, 17, 3, 3),
        (1, True, 900, 5, 66, 40),
        (2, False, 140, 200, 2, 1),
        (1, True, 130, 1, 200, 199),
        (2, True, 0, 2, 2, 2),
        (2, True, 70, 0, 3, 3),
        (2, True, 70, 3, 0, 0),
    ],
)
def test_gradients_of_causal_masks_are_masked_products(rng, monkeypatch, sizes, kind, upper, serial, dtype):
    heads, shared, n, rank, k, columns = sizes
    set_threading(monkeypatch, serial)
    F, G, X = operands(rng, heads, n, n, rank, k, dtype)
    P = operands(rng, heads, n, n, rank, k, dtype)[2]
    decay = decays(rng, kind, 1 if shared else heads, n, dtype)
    decay[:, :1] = np.nan  # never used
    mask = np.stack([decay_matrix(rates, upper) for rates in decay])
    transposed = mask.swapaxes(1, 2)
    dF, dG, dX = kernels.causal_pullback(F, G, P, X, decay[0] if shared else decay, upper=upper, columns=columns)
    for got, masks, *factors in (
        (dF, mask, P, X, G),
        (dG, transposed, X, P, F),
        (dX, transposed, G, F, P[..., :columns]),
    ):
        expected, _, scale, _ = masked_product(masks, *factors)
        assert (got.shape, got.dtype) == (expected.shape, dtype)
        assert (np.abs(got - expected) <= TOLERANCE[dtype] * scale.max(2, initial=0.0)[..., None]).all()


@THREADING
@pytest.mark.parametrize("sizes", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 70, 0, 3), (2, 70, 3, 0)])
def test_causal_of_nothing(rng, monkeypatch, sizes, serial):
    heads, n, rank, k = sizes
    set_threading(monkeypatch, serial)
    F, G, X = operands(rng, heads, n, n, rank, k, "float64")
    decay = np.ones((1, n))
    assert_rows_close(causal.causal_hadamard(F, G, X, decay, False), decay_matrix(decay[0], False)[None], F, G, X)


def test_causal_keeps_long_float32_sums_accurate(rng):
    n = 16384
    F, G, X = (np.abs(array) for array in operands(rng, 1, n, n, 16, 8, "float32"))
    Y, mass = causal.causal_hadamard(F, G, X, np.ones((1, n), "float32"), False)
    states = np.cumsum(G[0, :, :, None].astype("float64") * X[0, :, None, :], axis=0)
    expected = np.einsum("ir,irk->ik", F[0].astype("float64"), states)
    assert (np.abs(Y[0] - expected) <= 2e-6 * expected).all()
    expected_mass = (F[0] * np.cumsum(G[0].astype("float64"), axis=0)).sum(1)
    assert (np.abs(mass[0] - expected_mass) <= 2e-6 * expected_mass).all()


def test_causal_reads_read_only_arrays(rng):
    arrays = [*operands(rng, 1, 5, 5, 2, 3, "float64"), np.full((1, 5), 0.5)]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    Y, _ = causal.causal_hadamard(*arrays, False)
    F, G, X, decay = copies
    assert_rows_close((Y, _), decay_matrix(decay[0], False)[None], F, G, X)


@PRECISIONS
@THREADING
@pytest.mark.parametrize(
    "sizes",  # heads, mask shared, m, n, rank, columns
    [
        (1, True, 1, 1, 1, 1),
        (2, False, 2, 3, 3, 17),
        (3, False, 63, 64, 64, 64),
        (3, True, 65, 129, 17, 3),
        (1, True, 300, 70, 5, 65),
        (2, True, 200, 200, 200, 2),
        (0, False, 2, 2, 2, 2),
        (2, True, 0, 3, 2, 2),
        (2, True, 3, 0, 2, 2),
        (1, True, 9, 9, 0, 3),
        (1, True, 9, 9, 3, 0),
    ],
)
def test_dense_array_is_the_masked_product(rng, monkeypatch, sizes, serial, dtype):
    heads, shared, m, n, rank, k = sizes
    set_threading(monkeypatch, serial)
    F, G, X = operands(rng, heads, m, n, rank, k, dtype)
    mask = rng.standard_normal((1 if shared else heads, m, n)).astype(dtype)
    assert_rows_close(dense.dense_array(F, G, X, mask), mask, F, G, X)


@PRECISIONS
@THREADING
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("grid", [(1,), (7,), (65,), (130,), (3, 5), (2, 3, 14), (2, 70), (40, 1)])
def test_dense_toeplitz_on_grids(rng, monkeypatch, grid, count, serial, dtype):
    set_threading(monkeypatch, serial)
    sides = [2 * side - 1 for side in grid]
    points = np.array(list(np.ndindex(*grid)))
    n = len(points)
    values = rng.standard_normal((count, *sides)).astype(dtype)
    # entry (i, j) of the mask is values[j - i + side - 1], level by level
    mask = np.array([[[level[tuple(q - p + np.array(grid) - 1)] for q in points] for p in points] for level in values])
    column_position = np.ravel_multi_index(tuple(points.T), sides)
    row_position = column_position - np.ravel_multi_index(tuple(np.array(grid) - 1), sides)
    F, G, X = operands(rng, 2, n, n, 5, 9, dtype)
    table = values.reshape(count, -1)
    result = dense.dense_toeplitz(F, G, X, table, row_position, column_position, grid[-1])
    assert_rows_close(result, mask.reshape(count, n, n), F, G, X)


@PRECISIONS
@THREADING
@pytest.mark.parametrize("reach", [(0, 0), (0, 400), (3, 70), (400, -1)], ids=str)
def test_tiles_of_zeros_are_left_out_and_nothing_else(rng, monkeypatch, reach, serial, dtype):
    set_threading(monkeypatch, serial)
    n, (above, below) = 333, reach
    offset = np.arange(1 - n, n)
    inside = (-above <= offset) & (offset <= below)
    tables = np.stack([np.where(inside, rng.standard_normal(2 * n - 1), 0), rng.standard_normal(2 * n - 1)])
    form = Toeplitz(tables.astype(dtype)).gather_form
    assert form.filled.shape == (2, 2 * n)
    F, G, X = operands(rng, 2, n, n, 5, 9, dtype)
    mask = tables[:, np.arange(n)[:, None] - np.arange(n) + n - 1]
    result = dense.dense_toeplitz(F, G, X, np.ascontiguousarray(form.table), *form[1:])
    assert_rows_close(result, mask, F, G, X)


@PRECISIONS
@THREADING
@pytest.mark.parametrize(
    "sizes",  # heads, table shared, grid, rank, columns
    [
        (1, True, (1,), 1, 1),
        (2, False, (2,), 3, 17),
        (2, False, (65,), 5, 9),
        (3, True, (130,), 17, 33),
        (2, False, (3, 5, 7), 64, 3),
        (3, True, (300,), 17, 9),  # three heads, an odd number of blocks of rows: every head in parts
        (2, False, (200,), 9, 5),  # a head for each of two threads
        (1, True, (9,), 0, 3),
        (1, True, (9,), 3, 0),
        (0, True, (9,), 3, 4),
    ],
)
def test_dense_gradients(rng, monkeypatch, sizes, serial, dtype):
    """dF = (M * Q) G, dG = (M * Q)^T F, dX = (M * R)^T P with R = F G^T, Q = P X^T; the table gets sums of R * Q."""
    heads, shared, grid, rank, k = sizes
    monkeypatch.setattr(dense_pullback, "_SERIAL_WORK", np.inf if serial else 0)
    shape = (1 if shared else heads, *(2 * side - 1 for side in grid))
    T = Toeplitz(rng.standard_normal(shape).astype(dtype), levels=len(grid))
    n, (table, rows, columns, run, _) = T.shape[-1], T.gather_form
    F, G, X = operands(rng, heads, n, n, rank, k, dtype)
    P = rng.standard_normal((heads, n, k)).astype(dtype)
    got = dense_pullback.dense_toeplitz_pullback(F, G, X, P, np.ascontiguousarray(table), rows, columns, run)
    M = T.to_dense().astype(float)
    F, G, X, P = (a.astype(float) for a in (F, G, X, P))
    R, Q = F @ G.swapaxes(1, 2), P @ X.swapaxes(1, 2)
    d_table = np.zeros(table.shape)
    for h in range(heads):
        np.add.at(d_table[0 if shared else h], columns - rows[:, None], (R * Q)[h])
    wanted = (M * Q) @ G, (M * Q).swapaxes(1, 2) @ F, (M * R).swapaxes(1, 2) @ P, d_table
    for value, exact in zip(got, wanted, strict=True):
        assert value.dtype == dtype
        assert value.shape == exact.shape
        assert (np.abs(value - exact) <= 4 * TOLERANCE[dtype] * np.abs(exact).max(initial=0)).all()


def test_dense_padding_does_not_spread_infinities(rng):
    F, G, X = operands(rng, 1, 9, 9, 2, 2, "float64")
    mask = np.ones((1, 9, 9))
    mask[0, 3, 4] = np.inf
    Y, mass = dense.dense_array(F, G, X, mask)
    finite = np.arange(9) != 3
    assert np.isfinite(Y[0, finite]).all()
    assert np.isfinite(mass[0, finite]).all()
    assert not np.isfinite(mass[0, 3])


@THREADING
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
@pytest.mark.parametrize(
    "sizes",  # batch, decay shared, n, columns
    [
        (1, True, 1, 1),
        (1, True, 2, 3),
        (3, False, 40, 7),
        (2, True, 17, 70),
        (0, True, 3, 3),
        (2, True, 0, 3),
        (2, True, 3, 0),
    ],
)
def test_scan_is_the_product(rng, monkeypatch, sizes, upper, dtype, serial):
    batch, shared, n, k = sizes
    set_threading(monkeypatch, serial)
    count = 1 if shared else batch
    X, decay = rng.standard_normal((batch, n, k)), rng.uniform(-1, 1, (count, n))
    if dtype.startswith("complex"):
        X, decay = X + 1j * rng.standard_normal(X.shape), decay * np.exp(1j * rng.standard_normal(decay.shape))
    X, decay = X.astype(dtype), decay.astype(dtype)
    decay[:, :1] = np.nan  # never used
    M = np.zeros((count, n, n), "complex128")
    for h in range(count):
        for i in range(n):
            for j in range(i + 1):
                M[h, i, j] = np.prod(decay[h, j + 1 : i + 1], dtype="complex128")
    M = M.swapaxes(1, 2) if upper else M
    Y = scan.linear_scan(X, decay, upper)
    assert Y.dtype == X.dtype
    tolerance = 2e-6 if dtype in ("float32", "complex64") else 1e-13
    assert (np.abs(Y - M @ X) <= tolerance * (np.abs(M) @ np.abs(X))).all()
