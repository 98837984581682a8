"""Kronecker products and sums: their definition, the order of factors, the rules of the algebra, what is refused."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from structmask import Causal, Dense, Diagonal, Kronecker, LowRank, Sparse, Toeplitz, kron, kronecker_sum
from structmask.linalg import kronecker
from structmask.linalg.composite import Product, Sum
from structmask.linalg.kronecker import Identity
from structmask.linalg.rounding import rounding_of
from tests import naive
from tests.cases import complex_, gates, real


@st.composite
def grids(draw):
    """Dense factors of any shapes, some with a batch, and a number of columns."""
    count = draw(st.integers(1, 4))
    batch = draw(st.sampled_from([(), (), (2,), (3, 1)]))
    shapes = [(draw(st.integers(1, 4)), draw(st.integers(1, 4))) for _ in range(count)]
    data = [draw(st.sampled_from([real, complex_])) for _ in shapes]
    batches = [draw(st.sampled_from([(), batch])) for _ in shapes]
    arrays = [f(*b, *s, seed=i) for i, (f, b, s) in enumerate(zip(data, batches, shapes, strict=True))]
    return arrays, draw(st.sampled_from([1, 3, 20]))


@given(grids())
def test_any_factors(grid):
    factors, k = grid
    M, dense = Kronecker([Dense(a) for a in factors]), naive.kronecker(*factors)
    X = real(dense.shape[-1], k)
    scale = (np.abs(dense) @ np.abs(X)).max()
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-13 * scale)
    np.testing.assert_allclose(M.to_dense(), dense, atol=1e-14 * np.abs(dense).max())


def test_gradients_are_those_of_contracting_the_other_factors(close):
    """d Re <G, (A (x) B) X> / dA_ij = sum over the other axis of G (conj(B) conj(X)), written as an einsum."""
    A, B = complex_(2, 3), complex_(4, 5, seed=1)
    G, X = complex_(8, 6), complex_(15, 6, seed=1)
    gradients = kron(Dense(A), Dense(B)).pullback(G, X)["factors"]
    g, x = G.reshape(2, 4, 6), X.conj().reshape(3, 5, 6)
    close(gradients[0]["a"], np.einsum("apk,pq,bqk->ab", g, B.conj(), x))
    close(gradients[1]["a"], np.einsum("apk,ab,bqk->pq", g, A.conj(), x))


def test_nested_products_are_flattened():
    a, b, c = Causal(2), Dense(real(2, 3)), Diagonal(real(2))
    assert kron(kron(a, b), c).factors == kron(a, kron(b, c)).factors == (a, b, c)


def test_factors_that_shrink_the_operand_go_first():
    wide, tall, square = Dense(real(2, 40)), Dense(real(40, 2)), Dense(real(6, 6))
    assert Kronecker([tall, square, wide])._order() == [2, 1, 0]
    assert Kronecker([square, square])._order() == [0, 1]
    assert kron(wide, tall)._work(1).flops < 2.0 * 80 * 80 < kron(Dense(real(80, 80)))._work(1).flops * 1.01


def test_rounding_is_local_if_that_of_all_factors_is():
    local, spread = kron(Causal(3), Dense(real(2, 2))), kron(Causal(3), Toeplitz(real(5)))
    assert rounding_of(local, 1e-7).is_local
    assert not rounding_of(spread, 1e-7).is_known


# --- Kronecker sums ---------------------------------------------------------------------------------------------------


def path_laplacian(n):
    return scipy.sparse.diags_array(
        [-np.ones(n - 1), np.r_[1.0, 2 * np.ones(n - 2), 1.0], -np.ones(n - 1)], offsets=[-1, 0, 1]
    ).tocsr()


def test_sum_is_the_laplacian_of_a_grid_graph(close):
    """A grid is the Cartesian product of paths: neighbours differ by one in exactly one coordinate."""
    sides = (3, 4, 2)
    points = np.stack(np.unravel_index(np.arange(24), sides), axis=1)
    adjacency = np.abs(points[:, None] - points).sum(axis=-1) == 1
    laplacian = np.diag(adjacency.sum(axis=1)) - adjacency
    close(kronecker_sum(*(Sparse(path_laplacian(n)) for n in sides)).to_dense(), laplacian)


def test_exponential_of_a_sum_is_the_product_of_exponentials(close):
    a, b = real(3, 3), real(4, 4)
    want = scipy.linalg.expm(kronecker_sum(Dense(a), Dense(b)).to_dense())
    close(kron(Dense(scipy.linalg.expm(a)), Dense(scipy.linalg.expm(b))).to_dense(), want)


def test_sum_keeps_no_parameters_of_its_own():
    M = kronecker_sum(Diagonal(real(3)), Dense(real(2, 2)), Causal(1))
    assert [type(term) for term in M.terms] == [Kronecker, Kronecker, Kronecker]
    assert M.parameters["terms"][0]["factors"][1] == {}
    assert kronecker_sum(Dense(real(2, 2))).shape == (2, 2)
    with pytest.raises(ValueError, match=r"needs square matrices, got Dense\(2 x 3"):
        kronecker_sum(Dense(real(2, 3)))


def test_identity_hands_out_a_copy():
    x = np.ones((2, 1))
    for M in (Identity(2), Kronecker([Identity(2), Identity(1)])):
        assert not np.shares_memory(M @ x, x)
    with pytest.raises(ValueError, match="n >= 0"):
        Identity(-1)


# --- the algebra ------------------------------------------------------------------------------------------------------

left = kron(Causal(2, decay=gates(2)), Toeplitz(real(5)))
right = kron(Causal(2), Toeplitz(real(5, seed=1)))
other = kron(Toeplitz(real(5)), Causal(2))
RULES = [
    (left @ right, left.to_dense() @ right.to_dense(), Kronecker),
    (left @ other, left.to_dense() @ other.to_dense(), Product),
    (left * right, left.to_dense() * right.to_dense(), Kronecker),
    (left + right, left.to_dense() + right.to_dense(), Sum),
    (3 * left, 3 * left.to_dense(), Kronecker),
    (Identity(6) @ left, left.to_dense(), Kronecker),
    (left @ Identity(6), left.to_dense(), Kronecker),
    (Identity(6) * left, np.diag(np.diag(left.to_dense())), Diagonal),
    (left * Diagonal(real(6)), np.diag(np.diag(left.to_dense()) * real(6)), Diagonal),
    (left * Dense(real(6, 6)), left.to_dense() * real(6, 6), Dense),
]


@pytest.mark.parametrize(("result", "want", "kind"), RULES)
def test_rule_is_taken_and_right(result, want, kind, close):
    assert type(result) is kind
    close(result.to_dense(), want)


def test_factors_of_equal_grids_meet_in_pairs():
    assert [type(factor) for factor in (left * right).factors] == [Causal, Toeplitz]
    with pytest.raises(TypeError, match="Kronecker \\* Kronecker has no fast product"):
        left * other
    with pytest.raises(TypeError, match="Kronecker \\* Kronecker has no fast product"):
        left * kron(Causal(2), Causal(3, decay=gates(3)))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Kronecker, lambda x: kron(*x), lambda x: kronecker_sum(*x)])
def test_something_is_needed(build):
    with pytest.raises(ValueError, match="needs at least one matrix"):
        build([])
    with pytest.raises(TypeError, match=r"got ndarray; wrap an array as structmask\.Dense"):
        build([Causal(2), np.eye(2)])


def test_factors_are_a_sequence():
    with pytest.raises(TypeError, match="needs a sequence of structured matrices, got Causal"):
        Kronecker(Causal(2))
    with pytest.raises(ValueError, match="broadcast"):
        kron(Dense(real(2, 1, 1)), Dense(real(3, 1, 1)))


def test_few_and_many_columns_take_different_ways_to_the_same_product(close, monkeypatch):
    M, X = kron(Dense(real(3, 4)), LowRank(real(5, 2), real(6, 2)), Causal(2)), real(48, 40)
    want = M @ X
    for enough in (1, 10**9):
        monkeypatch.setattr(kronecker, "_ENOUGH_COLUMNS", enough)
        close(M @ X, want)
