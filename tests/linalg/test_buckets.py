"""Bucketed masks: stretches, T5's buckets, gradients that reach the values, rules, what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmask import Buckets, Causal, Toeplitz
from structmask.linalg.composite import Sum
from structmask.linalg.hadamard import masked_product, masked_pullback
from tests import naive
from tests.cases import gates, real


@given(st.lists(st.integers(-12, 12), unique=True, max_size=6).map(sorted), st.integers(1, 9), st.data())
def test_any_stretches(edges, n, data):
    order = tuple(data.draw(st.lists(st.integers(0, 3), min_size=len(edges) + 1, max_size=len(edges) + 1)))
    values, X, G = real(2, 4), real(n, 3), real(2, n, 3, seed=1)
    M, dense = Buckets(values, edges, n, order=order), naive.buckets(values, edges, n, order)
    np.testing.assert_array_equal(M.to_dense(), dense)
    np.testing.assert_array_equal(M.T.to_dense(), np.swapaxes(dense, -1, -2))
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-12)
    bucket = naive.buckets(np.arange(4), edges, n, order)
    want = [np.sum(np.where(bucket == b, G @ X.T, 0), axis=(-2, -1)) for b in range(4)]
    np.testing.assert_allclose(M.pullback(G, X)["values"], np.stack(want, axis=-1), atol=1e-12)


def t5_bucket(relative, buckets, max_distance, bidirectional):
    """The definition: relative = j - i; half of the buckets for either sign, half of those exact, the rest in logs."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if relative > 0 else 0
        distance = abs(relative)
    else:
        distance = max(-relative, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    ratio = math.log(distance / exact) / math.log(max_distance / exact)
    return first + min(exact + math.floor(round(ratio * (buckets - exact), 9)), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "max_distance", "n"), [(32, 128, 150), (8, 20, 40), (4, 9, 12), (32, 128, 1)])
def test_buckets_are_those_of_t5(count, max_distance, n, bidirectional):
    M = Buckets.t5(np.arange(float(count)), n, max_distance=max_distance, bidirectional=bidirectional)
    want = [[t5_bucket(j - i, count, max_distance, bidirectional) for j in range(n)] for i in range(n)]
    np.testing.assert_array_equal(M.to_dense(), want)
    assert len(M.edges) < count


def test_known_buckets_of_t5():
    """32 buckets: distances up to 7 have their own, 8 to 11 share the next one, everything from 91 on the last."""
    column = Buckets.t5(np.arange(32.0), 200).to_dense()[:, 0]
    np.testing.assert_array_equal(
        column[[0, 7, 8, 11, 12, 16, 64, 90, 91, 128, 199]], [0, 7, 8, 8, 9, 10, 14, 14, 15, 15, 15]
    )
    np.testing.assert_array_equal(Buckets.t5(np.arange(32.0), 200).to_dense()[0, [1, 7, 8, 199]], [17, 23, 24, 31])


def test_attention_and_its_gradients_go_through_the_table(close):
    values, edges, n = real(3), (-2, 3), 40
    M, F, G, X = Buckets(values, edges, n), real(n, 2), real(n, 2, seed=1), real(n, 3, seed=2)
    dense = M.to_dense() * naive.low_rank(F, G)
    for method in ("auto", "toeplitz", "dense", "stream"):
        close(masked_product(M, F, G, X, method)[0], dense @ X, scale=(np.abs(dense) @ np.abs(X)).max())
    P = real(n, 3, seed=3)
    d_mask, dF, dG, _ = masked_pullback(M, F, G, P, X)
    A = P @ X.T
    close(dF, (M.to_dense() * A) @ G)
    close(dG, (M.to_dense() * A).T @ F)
    bucket = naive.buckets(np.arange(3), edges, n)
    close(d_mask["values"], [np.sum((A * (F @ G.T))[bucket == b]) for b in range(3)])


# --- the algebra ------------------------------------------------------------------------------------------------------

first, same, other = Buckets(real(3), (0, 4), 9), Buckets(real(3, seed=1), (0, 4), 9), Buckets(real(3), (0, 3), 9)
toeplitz, decay = Toeplitz(real(17)), Causal(9, decay=0.5)
RULES = [
    (first + same, first.to_dense() + same.to_dense(), Buckets),
    (first + other, first.to_dense() + other.to_dense(), Sum),
    (2 * first - 1, 2 * first.to_dense() - 1, Buckets),
    (first * same, first.to_dense() * same.to_dense(), Buckets),
    (first * toeplitz, first.to_dense() * toeplitz.to_dense(), Toeplitz),
    (decay * first, decay.to_dense() * first.to_dense(), Toeplitz),
]


@pytest.mark.parametrize(("result", "want", "kind"), RULES)
def test_rule_is_taken_and_right(result, want, kind, close):
    assert type(result) is kind
    close(result.to_dense(), want)


@pytest.mark.parametrize("mask", [other, Causal(9, decay=gates(9)), Toeplitz(real(5, 5), levels=2)], ids=repr)
def test_pairs_without_a_rule_are_refused(mask):
    with pytest.raises(TypeError, match="has no fast product"):
        first * mask


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "edges", "n", "order", "sentence"),
    [
        (real(3), (1, 1), 4, None, "ascending edges"),
        (real(3), (2, 1), 4, None, "ascending edges"),
        (real(2), (1, 2), 4, None, "3 stretches"),
        (real(2), (1,), 4, (0, 2), "below the number of values"),
        (real(2), (1,), 4, (0,), "2 stretches"),
        (1.0, (), 4, None, "1 stretches"),
        (real(1), (), -1, None, "n >= 0"),
    ],
)
def test_stretches_that_do_not_fit(values, edges, n, order, sentence):
    with pytest.raises(ValueError, match=sentence):
        Buckets(values, edges, n, order=order)


@pytest.mark.parametrize(
    ("count", "options"), [(2, {}), (5, {}), (1, {"bidirectional": False}), (32, {"max_distance": 8})]
)
def test_tables_that_t5_does_not_have(count, options):
    with pytest.raises(ValueError, match="T5 needs at least"):
        Buckets.t5(np.ones(count), 9, **options)
