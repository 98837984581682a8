"""The kernel that finds rows at risk finds those of the array formula, no more and no fewer."""

import numpy as np
import pytest

from structmask.linalg import rounding
from structmask.linalg.rounding import Rounding, rows_at_risk

SIZES = [(1, 1, 1, 1, 1), (1, 40, 30, 3, 2), (2, 50, 70, 4, 5), (3, 64, 64, 7, 1), (1, 5000, 4999, 2, 16)]
LIMITS = [(0.1, 0.001), (0.001, 0.01), (0.0, 1e-9), (10.0, 10.0)]  # unit and column in multiples of the tolerance


@pytest.mark.parametrize("with_mass", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES)  # heads, m, n, r, k
def test_the_kernel_agrees_with_the_formula(sizes, dtype, with_mass, rng, monkeypatch):
    heads, m, n, r, k = sizes
    small = rng.uniform(0, 1, (heads, m, 1)) ** 4
    shapes = (heads, m, r), (heads, n, r), (heads, n, k), (heads, m, k)
    F, G, X, Y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    Y, mass = Y * small.astype(dtype), small[..., 0].astype(dtype) if with_mass else None
    for limits in LIMITS:
        size = Rounding(*(rounding.TOLERANCE[dtype] * limit for limit in limits))
        got = rows_at_risk(F, G, X, Y, mass, size)
        with monkeypatch.context() as patch:
            patch.setattr(rounding.kernels, "numba_runs", lambda *_: False)
            np.testing.assert_array_equal(got, rows_at_risk(F, G, X, Y, mass, size))


def test_rows_are_looked_at_again_where_the_bound_alone_flags_them():
    """One large entry in every row of X: the bound takes it for all columns."""
    n = k = 64
    F = G = np.ones((n, 1))
    X, Y = np.eye(n, k), np.ones((n, k))
    column = 0.5 * rounding.TOLERANCE["float64"]  # a column has norm 1, the bound says 8
    assert rows_at_risk(F, G, X, Y, None, Rounding(0.0, column)).size == 0
    assert rows_at_risk(F, G, np.ones((n, k)), Y, None, Rounding(0.0, column)).size == n
