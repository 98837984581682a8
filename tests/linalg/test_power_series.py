"""Polynomials by powers: sizes, accuracy, what is refused. The laws are in test_laws.py."""

import numpy as np
import pytest

from structmask import Causal, Dense, LowRank, Toeplitz, explain
from structmask.linalg import PowerSeries
from structmask.linalg.rounding import rounding_of
from tests import naive
from tests.cases import real


@pytest.mark.parametrize("n", [0, 1, 2, 20])
@pytest.mark.parametrize("terms", [1, 2, 5])
def test_powers_written_out(n, terms, close):
    A, c = real(n, n) / 4, real(terms)
    close(PowerSeries(Dense(A), c).to_dense(), naive.power_series(A, c))


def test_work_grows_with_the_degree():
    A = Dense(real(50, 50))
    works = [explain(PowerSeries(A, np.ones(terms)), columns=3).flops for terms in (2, 3, 11)]
    assert works[1:] == [2 * works[0], 10 * works[0]]


def test_integers_and_lists_are_taken():
    np.testing.assert_array_equal(PowerSeries(Dense([[0, 1], [0, 0]]), [1, 2]).to_dense(), [[1, 2], [0, 1]])


def test_rounding_is_that_of_the_matrix():
    assert rounding_of(PowerSeries(Dense(real(3, 3)), [1.0, 1.0]), 1e-7).is_local
    assert not rounding_of(PowerSeries(Toeplitz(real(2001)), [1.0, 1.0]), 1e-7).is_known


def test_batches_of_both_broadcast(close):
    A, c = real(2, 1, 4, 4), real(3, 5)
    close(PowerSeries(Dense(A), c).to_dense(), naive.power_series(A, c))


@pytest.mark.parametrize(
    ("matrix", "coefficients", "error", "sentence"),
    [
        (Causal(3), [], ValueError, "one or more coefficients"),
        (Causal(3), 1.0, ValueError, "one or more coefficients"),
        (np.eye(3), [1.0], TypeError, "needs a StructuredMatrix, got ndarray"),
        (LowRank(np.ones((3, 1)), np.ones((2, 1))), [1.0], ValueError, "need a square matrix"),
    ],
)
def test_what_is_no_polynomial(matrix, coefficients, error, sentence):
    with pytest.raises(error, match=sentence):
        PowerSeries(matrix, coefficients)
