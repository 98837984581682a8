"""Toeplitz: what its table means, how it is built, what is refused."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from structmask import Toeplitz
from structmask.linalg.hadamard import masked_product
from tests import naive
from tests.cases import complex_, real


def test_table_is_indexed_by_signed_offsets():
    """The entry for i - j is at index i - j + n - 1: the first column goes up from the middle."""
    M = Toeplitz([1.0, 2.0, 3.0, 4.0, 5.0]).to_dense()
    np.testing.assert_array_equal(M, [[3, 2, 1], [4, 3, 2], [5, 4, 3]])


@pytest.mark.parametrize("data", [real, complex_])
def test_columns_and_rows_as_in_scipy(data):
    column, row = data(4), data(6, seed=1)
    np.testing.assert_array_equal(Toeplitz.from_column_row(column, row).to_dense(), scipy.linalg.toeplitz(column, row))
    np.testing.assert_array_equal(Toeplitz.from_column_row(column).to_dense(), scipy.linalg.toeplitz(column))


def test_columns_and_rows_broadcast(close):
    M = Toeplitz.from_column_row(real(2, 1, 3), real(4, 5))
    assert M.shape == (2, 4, 3, 5)
    close(M.to_dense()[1, 2], scipy.linalg.toeplitz(real(2, 1, 3)[1, 0], real(4, 5)[2]))


def test_function_sees_signed_offsets_of_every_level():
    seen = []

    def f(s, t):
        seen.append((s, t))
        return 10.0 * s + t

    M = Toeplitz.from_function(f, (2, 3))
    (s, t), *others = seen
    assert not others
    assert (s.shape, s.min(), s.max(), t.min(), t.max()) == ((3, 5), -1, 1, -2, 2)
    points = [(a, b) for a in range(2) for b in range(3)]
    np.testing.assert_array_equal(M.to_dense(), [[10.0 * (a - c) + b - d for c, d in points] for a, b in points])


def test_function_with_columns_and_heads(close):
    rates = np.array([0.1, 0.5])[:, None]
    M = Toeplitz.from_function(lambda s: np.exp(-rates * abs(s)), 4, columns=6)
    distance = abs(np.arange(4)[:, None] - np.arange(6))
    close(M.to_dense(), np.exp(-rates[..., None] * distance))


def test_constant_function_is_broadcast():
    np.testing.assert_array_equal(Toeplitz.from_function(lambda _: 2.0, 3).to_dense(), np.full((3, 3), 2.0))


@pytest.mark.parametrize("shape", [0, (2, 0), (2, -1)])
def test_function_needs_a_grid(shape):
    with pytest.raises(ValueError, match="sides of at least 1"):
        Toeplitz.from_function(lambda *s: s[0], shape)


@pytest.mark.parametrize("sides", [(4,), (0,), (3, 4)])
def test_even_sides_need_columns(sides):
    with pytest.raises(ValueError, match=rf"odd sides 2 n - 1, got \({sides[0]}.*pass columns="):
        Toeplitz(np.ones(sides), levels=len(sides))


@pytest.mark.parametrize("columns", [(0,), (6,), (2, 2), (-1,)])
def test_columns_that_do_not_fit(columns):
    with pytest.raises(ValueError, match=r"sides \(5,\) needs as many columns, each between 1 and its side"):
        Toeplitz(np.ones(5), columns=columns)


@pytest.mark.parametrize("levels", [0, -1, 3])
def test_levels_that_do_not_fit(levels):
    with pytest.raises(ValueError, match=r"needs that many trailing axes of offsets, got shape \(3, 3\)"):
        Toeplitz(np.ones((3, 3)), levels=levels)


@st.composite
def tables(draw):
    """A table with batch, levels and columns, rectangular or not."""
    levels = draw(st.integers(1, 3))
    rows = draw(st.lists(st.integers(1, 5), min_size=levels, max_size=levels))
    columns = draw(st.lists(st.integers(1, 5), min_size=levels, max_size=levels))
    batch = draw(st.sampled_from([(), (2,), (2, 1)]))
    data = draw(st.sampled_from([real, complex_]))
    sides = [m + n - 1 for m, n in zip(rows, columns, strict=True)]
    return data(*batch, *sides, seed=draw(st.integers(0, 99))), levels, tuple(columns)


@given(tables(), st.integers(1, 3))
def test_any_grid(table, k):
    offsets, levels, columns = table
    M, dense = Toeplitz(offsets, levels=levels, columns=columns), naive.toeplitz(offsets, levels, columns)
    X = real(dense.shape[-1], k)
    scale = max(1.0, np.abs(dense).max() * np.abs(X).sum())
    np.testing.assert_array_equal(M.to_dense(), dense)
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-13 * scale)
    np.testing.assert_array_equal(M.T.to_dense(), np.swapaxes(dense, -1, -2))


@given(tables())
def test_pullback_sums_over_equal_offsets(table):
    """The gradient of an offset is the sum of G X^H over all its entries, written out by unit tables."""
    offsets, levels, columns = table
    M = Toeplitz(offsets, levels=levels, columns=columns)
    *_, m, n = M.shape
    G, X = real(m, 2), real(n, 2, seed=1)
    got = M.pullback(np.broadcast_to(G, (*M.shape[:-2], m, 2)), np.broadcast_to(X, (*M.shape[:-2], n, 2)))["offsets"]
    want = np.zeros(offsets.shape[offsets.ndim - levels :])
    for index in np.ndindex(want.shape):
        unit = np.zeros(want.shape)
        unit[index] = 1
        want[index] = np.sum(naive.toeplitz(unit, levels, columns) * (G @ X.T))
    np.testing.assert_allclose(got, np.broadcast_to(want, offsets.shape), atol=1e-12 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("grid", [(40,), (5, 8)])
@pytest.mark.parametrize("columns", [1, 2, 3, 9])
def test_complex_tables_and_columns(grid, columns, close):
    """Real and imaginary parts are tables and columns of their own; few columns go another way."""
    sides, n = [2 * side - 1 for side in grid], int(np.prod(grid))
    for table, X in ((real, complex_), (complex_, real), (complex_, complex_)):
        offsets, x = table(*sides), X(n, columns, seed=1)
        M, dense = Toeplitz(offsets, levels=len(grid)), naive.toeplitz(offsets, len(grid))
        got = M @ x
        assert got.dtype == np.complex128
        close(got, dense @ x)
        G = complex_(n, columns, seed=2)
        step = M.pullback(G, x)["offsets"]
        direction = table(*sides, seed=3)
        want = np.sum((np.conj(G) * (naive.toeplitz(direction, len(grid)) @ x)).real)
        close(np.sum((np.conj(direction) * step).real), want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("grid", [(30,), (5, 6)])
def test_a_column_that_is_not_finite_leaves_the_others_alone(grid, bad):
    offsets, X = real(*(2 * side - 1 for side in grid)), real(30, 40)
    M = Toeplitz(offsets, levels=len(grid))
    wanted = M @ X
    for column in (0, 3, 20):
        spoilt = X.copy()
        spoilt[7, column] = bad
        got = M @ spoilt
        assert np.isnan(got[:, column]).all()
        others = np.arange(40) != column
        np.testing.assert_allclose(got[:, others], wanted[:, others], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("m", "e"), [(64, 3), (3, 64), (33, 2)])
def test_a_column_that_is_not_finite_spoils_no_other_in_the_fused_form(m, e, bad):
    """Whether the lanes are features, two columns a signal, or columns."""
    n, rng = 80, np.random.default_rng(0)
    F, G, X, table = rng.random((n, m)), rng.random((n, m)), rng.random((n, e)), rng.random(2 * n - 1)
    want, X[17, 1] = masked_product(Toeplitz(table), F, G, X, "fused")[0], bad
    got = masked_product(Toeplitz(table), F, G, X, "fused")[0]
    assert not np.isfinite(got[:, 1]).any()
    np.testing.assert_allclose(np.delete(got, 1, axis=1), np.delete(want, 1, axis=1), rtol=1e-10)
