"""Sums, products and multiples: batches that meet, bounds that propagate."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from structmask import Causal, Toeplitz
from structmask.linalg.composite import Product, Scaled, Sum
from tests.cases import real


@dataclass(frozen=True, eq=False, repr=False)
class Approximate(Toeplitz):
    """A matrix that is off by a known amount."""

    bound: int = 1

    @property
    def error_bound(self):
        return 0.25 * self.bound


def test_bounds_propagate():
    a = Approximate(real(5))
    assert a.error_estimate == 0.25
    assert Sum((a, a)).error_bound == 0.5
    assert Sum((a, a)).error_estimate == 0.5
    assert Scaled(a, -2.0).error_bound == 0.5
    assert Scaled(a, 2j).error_estimate == 0.5
    assert math.isnan(Product(a, a).error_bound)  # never a bound that can be false
    assert Product(Causal(3), Causal(3)).error_bound == 0


def test_batches_of_terms_broadcast():
    total = Toeplitz(real(2, 1, 5)) + Causal(3, decay=np.full((4, 1), 0.5))
    assert total.shape == (2, 4, 3, 3)
    assert (total @ np.ones(3)).shape == (2, 4, 3)
    assert (total @ total.T).shape == (2, 4, 3, 3)


def test_long_sums_stay_flat():
    total = Causal(3)
    for _ in range(50):
        total = total + Causal(3)
    assert len(total.terms) == 51
    np.testing.assert_array_equal(total @ np.ones(3), [51.0, 102.0, 153.0])


@pytest.mark.parametrize("factor", [2.0, 2.0 - 1j])
def test_gradient_of_a_factor(factor, close):
    matrix, X, G = Scaled(Causal(4, decay=0.5), factor), real(4, 2), real(4, 2, seed=1)
    inner = np.sum(G * (Causal(4, decay=0.5) @ X))
    gradient = matrix.pullback(G, X)
    close(gradient["factor"], np.asarray(inner, type(factor)))
