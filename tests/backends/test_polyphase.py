"""Products with few columns, several phases of each in a vector, against the dense matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest

from structmask.backends._numba.fft_plan import plan
from structmask.backends._numba.polyphase import in_phases, phase_count
from tests.backends.test_convolution import GRIDS, TOLERANCE, close, dense, dtypes, normal, positions, table


def in_few_columns(offsets, m, n, X, **width):
    whole = plan(m, n, X.dtype, **width)
    this = in_phases(whole, offsets, phase_count(whole, X.shape[-1]))
    return this.product(this.spectrum, X)


@dtypes
@pytest.mark.parametrize("tables", [1, 3])
def test_product_is_the_dense_product(tables, dtype):
    """Sizes that the number of phases divides, and others; matrices smaller than one phase."""
    for m, n in [(1, 1), (1, 9), (9, 1), (2, 3), (16, 16), (31, 100), (100, 31), (257, 300), (1000, 1001)]:
        offsets = normal(tables, m + n - 1)
        for k in (1, 3):
            X = normal(3, n, k, dtype=dtype)
            close(in_few_columns(offsets, m, n, X), dense(offsets, m, n) @ X.astype(np.float64), dtype)


def test_lines_of_grids_are_filled_up():
    for rows, columns in GRIDS:
        offsets, X = table(rows, columns), normal(2, int(np.prod(columns)), 1)
        expected = offsets[(slice(None), *positions(rows, columns))] @ X
        close(in_few_columns(offsets, rows, columns, X), expected, np.float64)


def test_how_many_phases():
    for dtype, counts in ((np.float32, {1: 16, 3: 5, 8: 2, 9: 1, 100: 1}), (np.float64, {1: 8, 3: 2, 5: 1})):
        for k, count in counts.items():
            assert phase_count(plan(50, 50, dtype, lane_bytes=64), k) == count
            assert phase_count(plan((50, 2), (50, 1), dtype, lane_bytes=64), k) == min(2, count)


def test_narrow_vectors():
    offsets, X = normal(1, 2 * 45 - 1), normal(1, 45, 2, dtype=np.float32)
    close(in_few_columns(offsets, 45, 45, X, lane_bytes=32), dense(offsets, 45, 45) @ X.astype(np.float64), np.float32)


def test_columns_keep_apart():
    """Phases of one column mix, different columns do not: neither rounding nor nan comes from another one."""
    n = 600
    table, X = normal(1, 2 * n - 1), normal(1, n, 3, dtype=np.float32)
    X *= np.array([1e9, 1, 1e-9], np.float32)
    expected = dense(table, n, n)[0] @ X[0].astype(np.float64)
    size = np.abs(expected).max(axis=0)
    assert np.all(np.abs(in_few_columns(table, n, n, X)[0] - expected) < TOLERANCE[np.float32] * size)
    X[0, 5, 1] = np.nan
    other = in_few_columns(table, n, n, X)[0]
    assert np.isnan(other[:, 1]).all()
    assert np.all(np.abs(other - expected)[:, [0, 2]] < TOLERANCE[np.float32] * size[[0, 2]])


def test_inputs_may_be_read_only_and_strided():
    n = 60
    table, X = normal(1, 2 * n - 1), normal(1, n, 3)
    Y, other = in_few_columns(table, n, n, X), np.repeat(X, 2, axis=2)[..., ::2]
    other.flags.writeable = False
    assert np.array_equal(in_few_columns(table, n, n, other), Y)
    assert np.array_equal(other, X)
