"""LowRank: its factors, dense or sparse."""

import numpy as np
import pytest
import scipy.sparse

from structmask import LowRank
from structmask.linalg import hadamard_gradients
from structmask.linalg.hadamard_gradients import low_rank_pullback
from tests.cases import complex_, coo, random_sparse, real


def test_transpose_is_plain_for_complex_factors(close):
    left, right = complex_(3, 2), complex_(4, 2)
    close(LowRank(left, right).to_dense(), left @ right.T)


@pytest.mark.parametrize(
    ("left", "right"), [((3, 2), (3, 1)), ((3,), (3,)), ((3, 2), (2,))], ids=["ranks", "vectors", "vector"]
)
def test_factors_that_do_not_fit(left, right):
    with pytest.raises(ValueError, match=r"left \(\.\.\., m, r\) and right \(\.\.\., n, r\) with one r"):
        LowRank(np.ones(left), np.ones(right))


def test_batches_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        LowRank(np.ones((2, 3, 1)), np.ones((3, 3, 1)))


def test_factors_are_both_dense_or_both_sparse():
    with pytest.raises(TypeError, match="two dense or two sparse factors"):
        LowRank(np.eye(2), scipy.sparse.eye_array(2))


def test_sparse_factors_never_meet_in_a_dense_matrix(close):
    n = 50_000  # n x n would not fit
    factor = scipy.sparse.csr_array((np.ones(n), np.arange(n) % 7, np.arange(n + 1)), shape=(n, 7))
    matrix, x = LowRank(factor, factor), np.ones(n)
    assert matrix.has_sparse_factors
    sums = np.bincount(np.arange(n) % 7)
    close(matrix @ x, sums[np.arange(n) % 7].astype(float))


def test_sparse_factors_have_gradients_at_their_stored_entries(close):
    left, right = random_sparse(5, 3), random_sparse(4, 3, seed=1)
    matrix = LowRank(coo(*left), coo(*right))
    G, X = real(5, 2), real(4, 2, seed=1)
    gradients = matrix.pullback(G, X)
    rows, columns = matrix.left.tocoo().coords
    close(gradients["left"], (G @ (X.T @ matrix.right.toarray()))[rows, columns])
    rows, columns = matrix.right.tocoo().coords
    close(gradients["right"], (X @ (G.T @ matrix.left.toarray()))[rows, columns])


@pytest.mark.parametrize("columns", [0, 2, 3])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["shared", "heads"])
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_gradients_of_the_masked_product_are_those_of_the_definition(data, batch, columns, close, monkeypatch):
    """Features have heads, the mask has them or is shared by all: then its gradient is the sum over heads."""
    monkeypatch.setattr(hadamard_gradients, "_ROWS", 3)  # more than one block of rows
    mask = LowRank(data(*batch, 5, 2), data(*batch, 4, 2, seed=1))
    F, G, P, X = data(2, 5, 3, seed=2), data(2, 4, 3, seed=3), data(2, 5, 3, seed=4), data(2, 4, 3, seed=5)
    d_mask, dF, dG, dX = low_rank_pullback(mask, F, G, P, X, columns)
    M, Q, R = mask.to_dense(), P @ X.conj().swapaxes(-1, -2), F @ G.swapaxes(-1, -2)
    close(dF, (M.conj() * Q) @ G.conj())
    close(dG, (M.conj() * Q).swapaxes(-1, -2) @ F.conj())
    if columns:
        close(dX, ((M * R).conj().swapaxes(-1, -2) @ P)[..., :columns])
    else:
        assert dX is None
    dM = Q * R.conj()
    dM = dM if batch else dM.sum(axis=0)
    close(d_mask["left"], dM @ mask.right.conj())
    close(d_mask["right"], dM.swapaxes(-1, -2) @ mask.left.conj())


@pytest.mark.parametrize("sizes", [(0, 4, 2), (5, 0, 2), (5, 4, 0)], ids=["no rows", "no columns", "rank 0"])
def test_gradients_of_nothing_are_zeros(sizes):
    m, n, rank = sizes
    mask, F, G, P, X = LowRank(real(m, rank), real(n, rank)), real(m, 3), real(n, 3), real(m, 2), real(n, 2)
    d_mask, *gradients = low_rank_pullback(mask, F, G, P, X, 2)
    for gradient, of in zip((*gradients, *d_mask.values()), (F, G, X, mask.left, mask.right), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(of.shape))
