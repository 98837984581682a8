"""Circulant embedding: sides, blocks of columns, spectra, and the size of its rounding."""

import numpy as np
import pytest

from structmask.backends import arrays
from structmask.linalg.circulant import Circulant
from tests import naive
from tests.cases import complex_, real


@pytest.mark.parametrize(("rows", "columns"), [((5,), (5,)), ((3,), (9,)), ((3, 5, 7), (3, 5, 7)), ((2, 6), (4, 1))])
def test_sides_leave_room_for_every_offset(rows, columns):
    offsets = real(*(m + n - 1 for m, n in zip(rows, columns, strict=True)))
    C = Circulant(offsets, rows, columns)
    assert all(length >= side for length, side in zip(C.lengths, offsets.shape, strict=True))


def test_spectrum_of_the_identity_is_one(close):
    C = Circulant(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), (3,), (3,))
    close(C.spectrum, np.ones_like(C.spectrum))


@pytest.mark.parametrize("data", [real, complex_])
def test_columns_go_through_in_blocks(data, close, monkeypatch):
    offsets, X, G = data(5, 9), data(15, 7, seed=1), data(15, 7, seed=2)
    whole = Circulant(offsets, (3, 5), (3, 5))
    product, correlation = whole.product(X), whole.correlation(G, X)
    monkeypatch.setattr(arrays, "block_entries", lambda _: 2 * int(np.prod(whole.lengths)))  # two columns at a time
    assert whole._block(X) == 2
    close(whole.product(X), product)
    close(whole.correlation(G, X), correlation)
    close(product, naive.toeplitz(offsets, 2) @ X)


def test_correlation_is_the_sum_over_equal_offsets(close):
    G, X = complex_(4, 3), complex_(6, 3, seed=1)
    full = G @ X.conj().T
    want = [np.trace(full, offset=-s) for s in range(-5, 4)]
    close(Circulant(np.ones(9), (4,), (6,)).correlation(G, X), want)


def test_rounding_covers_the_error_and_is_not_far_above_it(rng):
    """Measured in single precision, it must cover every entry, and by less than a hundred times the largest."""
    n, k = 512, 4
    offsets, X = rng.standard_normal(2 * n - 1), rng.standard_normal((n, k))
    single = Circulant(offsets.astype("float32"), (n,), (n,))
    exact = Circulant(offsets.astype("float32").astype("float64"), (n,), (n,)).product(
        X.astype("float32").astype("float64")
    )
    error = np.abs(single.product(X.astype("float32")) - exact).max(axis=0)
    expected = single.rounding(2.0**-24)
    expected = expected.column * np.linalg.norm(X, axis=0)
    assert (error <= expected).all()
    assert (expected <= 100 * error).all()
