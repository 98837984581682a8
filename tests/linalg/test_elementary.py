"""Dense, Diagonal, Sparse: what they accept and what they refuse."""

import numpy as np
import pytest
import scipy.sparse

from structmask import Dense, Diagonal, Sparse
from tests import naive
from tests.cases import coo, random_sparse, real


def test_dense_needs_two_dimensions():
    with pytest.raises(ValueError, match=r"\(\.\.\., m, n\), got shape \(3,\); use Diagonal"):
        Dense(np.ones(3))


def test_diagonal_needs_a_vector():
    with pytest.raises(ValueError, match="got a scalar"):
        Diagonal(2.0)


def test_lists_are_arrays():
    np.testing.assert_array_equal(Dense([[1, 2]]).to_dense(), [[1.0, 2.0]])
    np.testing.assert_array_equal(Diagonal([True, False]).to_dense(), [[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("given", [np.eye(2), [[1.0]], "text"])
def test_sparse_needs_a_sparse_matrix(given):
    with pytest.raises(TypeError, match=r"scipy\.sparse.*use Dense for an array"):
        Sparse(given)


def test_sparse_vectors_are_refused():
    with pytest.raises(ValueError, match="two-dimensional"):
        Sparse(scipy.sparse.coo_array(np.ones(3)))


@pytest.mark.parametrize("wrap", [Dense, Diagonal])
def test_sparse_matrices_are_sent_to_sparse(wrap):
    with pytest.raises(TypeError, match=r"wrap it as structmask\.Sparse"):
        wrap(scipy.sparse.eye_array(3))


@pytest.mark.parametrize("format_", ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_every_sparse_format_is_read(format_, kind):
    triplets = random_sparse(9, 9)
    given = coo(*triplets).asformat(format_)
    given = getattr(scipy.sparse, f"{format_}_matrix")(given) if kind == "matrix" else given
    np.testing.assert_allclose(Sparse(given).to_dense(), naive.sparse(*triplets), rtol=1e-15)


def test_given_sparse_matrix_with_duplicates_is_not_changed(close):
    given = scipy.sparse.csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 0, 1]), np.array([0, 3, 3])), shape=(2, 2))
    matrix = Sparse(given)
    close(matrix.to_dense(), [[2.0, 5.0], [0.0, 0.0]])
    close(matrix @ np.array([1.0, 10.0]), [52.0, 0.0])
    np.testing.assert_array_equal(given.indices, [1, 0, 1])
    assert given.nnz == 3


def test_stored_zeros_have_gradients(close):
    matrix = Sparse(scipy.sparse.csr_array((np.array([0.0, 3.0]), np.array([1, 0]), np.array([0, 1, 2])), shape=(2, 2)))
    G, X = real(2, 3), real(2, 3, seed=1)
    full = G @ X.T
    close(matrix.pullback(G, X)["csr"], [full[0, 1], full[1, 0]])


def test_stored_entries_are_replaced_in_place_of_the_pattern():
    matrix = Sparse(scipy.sparse.eye_array(3, format="csr"))
    np.testing.assert_array_equal(matrix.with_parameters(csr=np.arange(3.0)).to_dense(), np.diag([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match=r"3 stored entries needs as many, got shape \(2,\)"):
        matrix.with_parameters(csr=np.ones(2))
