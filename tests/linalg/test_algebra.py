"""The table of simplifications: the class of every result, and its entries."""

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

from structmask import Causal, Dense, Diagonal, LowRank, Sparse, StructuredMatrix, Toeplitz
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.hadamard import Hadamard
from tests import naive
from tests.cases import gates, real

N = 6
F, G = real(N, 2), real(N, 2, seed=1)
SPARSE = scipy.sparse.csr_array(np.where(real(N, N) > 0.5, real(N, N), 0))

toeplitz = Toeplitz(real(11))
shifted = Toeplitz(real(11, seed=1))
two_level = Toeplitz(real(3, 5), levels=2)
decay = Causal(N, decay=0.5)
gated = Causal(N, decay=gates(N))
low = LowRank(F, G)
wide = LowRank(real(N, 4), real(N, 4, seed=1))
sparse_factors = LowRank(SPARSE, SPARSE)
dense = Dense(real(N, N))
diagonal = Diagonal(real(N))
sparse = Sparse(SPARSE)
product = toeplitz @ gated

SUMS = [
    (toeplitz, shifted, Toeplitz),
    (toeplitz, two_level, Sum),
    (low, wide, LowRank),
    (low, sparse_factors, Sum),
    (dense, dense, Dense),
    (diagonal, diagonal, Diagonal),
    (sparse, sparse, Sparse),
    (toeplitz, gated, Sum),
    (toeplitz + gated, shifted, Sum),
]

HADAMARD = [
    (toeplitz, shifted, Toeplitz),
    (two_level, two_level, Toeplitz),
    (decay, toeplitz, Toeplitz),
    (toeplitz, decay.T, Toeplitz),
    (Causal(N, decay=np.array([[0.5], [-0.25]])), toeplitz, Toeplitz),
    (decay, gated, Causal),
    (gated.T, gated.T, Causal),
    (gated, decay.T, Diagonal),
    (low, low, LowRank),
    (low, wide, Hadamard),
    (low, sparse_factors, Hadamard),
    (toeplitz, low, Hadamard),
    (toeplitz * low, wide, Hadamard),
    (Toeplitz(real(11)) * LowRank(F[:, :1], G[:, :1]), LowRank(F, G), Hadamard),
    (toeplitz * low, shifted, Hadamard),
    (gated * low, decay * low, Hadamard),
    (decay, toeplitz + low, Sum),
    (2 * gated, low, Hadamard),
    (2 * gated, decay, Scaled),
    (gated + toeplitz, decay + 0.0, Sum),
    (diagonal, toeplitz, Diagonal),
    (toeplitz @ gated, diagonal, Diagonal),
    (dense, gated, Dense),
    (product, dense, Dense),
    (sparse, toeplitz, Sparse),
    (gated * low, sparse, Sparse),
    (sparse, sparse, Sparse),
    (product, low, Hadamard),
]

PRODUCTS = [
    (dense, dense, Dense),
    (diagonal, diagonal, Diagonal),
    (diagonal, dense, Dense),
    (dense, diagonal, Dense),
    (sparse, sparse, Sparse),
    (low, toeplitz, LowRank),
    (toeplitz, low, LowRank),
    (low, wide, LowRank),
    (sparse_factors, low, LowRank),
    (sparse_factors, toeplitz, Product),
    (toeplitz, gated, Product),
]


def check(result, kind, want, close):
    assert type(result) is kind
    close(result.to_dense(), want, tolerance=1e-12)


@pytest.mark.parametrize(("a", "b", "kind"), SUMS, ids=repr)
def test_sum_has_the_simplest_class(a, b, kind, close):
    x, y = a.to_dense(), b.to_dense()
    check(a + b, kind, x + y, close)
    check(b + a, kind, x + y, close)
    check(a - b, kind, x - y, close)


@pytest.mark.parametrize(("a", "b", "kind"), HADAMARD, ids=repr)
def test_elementwise_product_has_the_simplest_class(a, b, kind, close):
    check(a * b, kind, a.to_dense() * b.to_dense(), close)
    check(b * a, kind, a.to_dense() * b.to_dense(), close)


@pytest.mark.parametrize(("a", "b", "kind"), PRODUCTS, ids=repr)
def test_matrix_product_has_the_simplest_class(a, b, kind, close):
    check(a @ b, kind, a.to_dense() @ b.to_dense(), close)


@pytest.mark.parametrize("matrix", [toeplitz, dense, diagonal, sparse, low, toeplitz * low], ids=repr)
def test_scalar_factor_is_absorbed(matrix, close):
    check(2 * matrix, type(matrix), 2 * matrix.to_dense(), close)


def test_scalar_factors_fold(close):
    check(2 * (gated * 3.0), Scaled, 6 * gated.to_dense(), close)
    assert (2 * (gated * 3.0)).matrix is gated
    check(2 * (gated + diagonal), Sum, 2 * (gated.to_dense() + diagonal.to_dense()), close)
    check(2 * product, Product, 2 * product.to_dense(), close)


def test_added_scalar_is_absorbed(close):
    check(toeplitz + 2, Toeplitz, toeplitz.to_dense() + 2, close)
    check(dense - 2, Dense, dense.to_dense() - 2, close)
    check(low + 2, LowRank, low.to_dense() + 2, close)
    check(1 - gated, Sum, 1 - gated.to_dense(), close)
    assert gated + 0 is gated


def test_terms_that_simplify_meet_in_a_sum(close):
    total = (gated + toeplitz) + (low + shifted) + low
    assert [type(term) for term in total.terms] == [Causal, Toeplitz, LowRank]
    close(total.to_dense(), gated.to_dense() + (toeplitz + shifted).to_dense() + 2 * low.to_dense(), tolerance=1e-12)


def test_low_rank_product_of_large_rank_is_not_expanded():
    assert (low * wide).low_rank.rank + (low * wide).mask.rank == 6  # and not 2 x 4 > 6 columns
    assert (low * low).rank == 4


def test_transposes_of_composites(close):
    for matrix in (toeplitz + gated, product, 2 * gated, gated * low):
        check(matrix.T, type(matrix), matrix.to_dense().T, close)


def test_wider_precision_wins(close):
    narrow = Toeplitz(real(11)).astype("float32")
    for a in (Diagonal(real(N).astype("float32")), Dense(real(N, N).astype("float32")), narrow, low.astype("float32")):
        exact = Toeplitz(real(11) / 3)
        for result in (a * exact, a + exact):
            assert result.dtype == "float64"
            assert (result @ np.ones(N)).dtype == "float64"
    assert (narrow * narrow).dtype == "float32"
    assert (2.5 * narrow + np.float64(1)).dtype == "float32"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"), [(gated, two_level), (two_level, toeplitz), (product, toeplitz), (gated, product)], ids=repr
)
def test_product_without_a_fast_form_names_both_classes(a, b):
    with pytest.raises(TypeError, match=rf"{type(a).__name__} \* {type(b).__name__} has no fast product.*to_dense"):
        a * b


@pytest.mark.parametrize("operator", ["__mul__", "__add__", "__sub__", "__matmul__"])
def test_shapes_that_do_not_fit(operator):
    with pytest.raises(ValueError, match=r"Toeplitz\(6 x 6.*Causal\(5 x 5"):
        getattr(toeplitz, operator)(Causal(5) if operator != "__sub__" else Causal(5) * 1)


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a @ b])
def test_batches_that_do_not_broadcast(combine):
    with pytest.raises(ValueError, match=r"batch dimensions \(2,\) and \(3,\) do not broadcast"):
        combine(Toeplitz(real(2, 11)), LowRank(real(3, N, 2), real(3, N, 2)))


@pytest.mark.parametrize(
    ("combine", "sentence"),
    [
        (lambda M, x: M * x, "wrap it: Dense"),
        (lambda M, x: x * M, "wrap it: Dense"),
        (lambda M, x: M + x, "wrap it: Dense"),
        (lambda M, x: x + M, "wrap it: Dense"),
        (lambda M, x: M - x, "wrap it: Dense"),
        (lambda M, x: x - M, "wrap it: Dense"),
        (lambda M, x: M / x, "scalars only.*solve"),
    ],
)
@pytest.mark.parametrize("array", [np.ones((N, N)), np.ones(N), np.ones(1)], ids=["matrix", "vector", "one"])
def test_elementwise_operators_refuse_arrays(combine, sentence, array):
    with pytest.raises(TypeError, match=sentence):
        combine(toeplitz, array)


@pytest.mark.parametrize("matrix", [toeplitz, gated, low, product, gated * low], ids=repr)
def test_powers_are_ambiguous(matrix):
    with pytest.raises(TypeError, match=r"M \* M for the elementwise or M @ M"):
        matrix**2


@pytest.mark.parametrize("convert", [np.asarray, np.array, np.exp, lambda M: np.add(np.ones(N), M), np.linalg.norm])
def test_nothing_densifies_silently(convert):
    with pytest.raises(TypeError):
        convert(toeplitz)


def test_conversion_points_to_to_dense():
    with pytest.raises(TypeError, match=r"call \.to_dense\(\)"):
        np.asarray(toeplitz)
    with pytest.raises(TypeError, match="not iterable"):
        list(toeplitz)


EITHER_SIDE = pytest.mark.parametrize(
    "combine",
    [
        lambda M, x: M * x,
        lambda M, x: x * M,
        lambda M, x: M @ x,
        lambda M, x: x @ M,
        lambda M, x: M + x,
        lambda M, x: x + M,
        lambda M, x: M - x,
    ],
    ids=["M * x", "x * M", "M @ x", "x @ M", "M + x", "x + M", "M - x"],
)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.coo_array])
@EITHER_SIDE
def test_scipy_sparse_is_refused_on_either_side(kind, combine):
    with pytest.raises(TypeError, match=r"structmask\.Sparse|to_dense"):
        combine(toeplitz, kind(SPARSE))


@EITHER_SIDE
def test_linear_operators_are_refused_on_either_side(combine):
    with pytest.raises(TypeError):
        combine(toeplitz, aslinearoperator(np.eye(N)))


@EITHER_SIDE
def test_torch_tensors_are_sent_to_the_adapter(combine):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"structmask\.adapters\.torch"):
        combine(toeplitz, torch.ones(N, N, dtype=torch.float64))


@pytest.mark.parametrize("other", ["text", None, [1, 2], object()], ids=["str", "None", "list", "object"])
@pytest.mark.parametrize("combine", [lambda M, x: M * x, lambda M, x: M + x, lambda M, x: x * M, lambda M, x: x + M])
def test_other_objects_are_no_operands(combine, other):
    with pytest.raises(TypeError):
        combine(toeplitz, other)


def test_central_lemma_against_loops(close):
    """(M * F G^T) X = sum_r diag(F_r) M diag(G_r) X, written out."""
    X, M = real(N, 3), naive.toeplitz(toeplitz.offsets)
    want = sum(np.diag(F[:, r]) @ M @ np.diag(G[:, r]) @ X for r in range(2))
    close((toeplitz * low) @ X, want)


def test_a_structure_of_your_own_needs_four_things(close, rng):
    """The contract of the base class: shape, product, transpose and pullback are enough for everything else."""
    from dataclasses import dataclass

    @dataclass(frozen=True, eq=False, repr=False)
    class Exchange(StructuredMatrix):
        n: int

        @property
        def shape(self):
            return (self.n, self.n)

        def _matmat(self, X):
            return X[..., ::-1, :]

        def transpose(self):
            return self

        def _pullback(self, G, X):
            return {}

    J, X = Exchange(N), rng.standard_normal((N, 2))
    flipped = np.eye(N)[::-1]
    close(J.to_dense(), flipped)
    close(J.diagonal(), np.diagonal(flipped))
    close(J.entries([0, -1], [N - 1]), flipped[[0, -1]][:, [N - 1]])
    close((2 * J + toeplitz) @ X, (2 * flipped + toeplitz.to_dense()) @ X)
    close((J * low) @ X, (flipped * low.to_dense()) @ X)
    close(X.T @ J, X.T @ flipped)
    with pytest.raises(TypeError, match="Exchange has no fast entries"):
        J._at(np.arange(1), np.arange(1))
    with pytest.raises(TypeError, match="abstract"):
        StructuredMatrix()
