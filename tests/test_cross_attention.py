"""Queries of one sequence, keys of another: every rectangular mask by every method that applies to it."""

import numpy as np
import pytest
import scipy.sparse

from structmask import (
    BlockDiagonal,
    Dense,
    Kronecker,
    LowRank,
    Sparse,
    Toeplitz,
    masked_attention,
    use_backend,
    with_global_tokens,
)
from structmask.linalg import hadamard
from tests import naive

SHAPES = [(9, 5), (1, 7), (7, 1), (6, 70)]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def positive(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(0.2, 1.0, shape)


def elu(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def none(m, n):
    return None, np.ones((m, n))


def dense(m, n):
    return Dense(positive(m, n)), positive(m, n)


def dense_heads(m, n):
    return Dense(positive(2, m, n)), positive(2, m, n)


def sparse(m, n):
    sheet = np.where(positive(m, n) < 0.6, positive(m, n), 0.0)
    return Sparse(scipy.sparse.csr_array(sheet)), sheet


def low_rank(m, n):
    left, right = positive(m, 2), positive(n, 2, seed=1)
    return LowRank(left, right), naive.low_rank(left, right)


def toeplitz(m, n):
    table = positive(m + n - 1)
    return Toeplitz(table, columns=(n,)), naive.toeplitz(table, 1, (n,))


def toeplitz_heads(m, n):
    table = positive(2, m + n - 1)
    return Toeplitz(table, columns=(n,)), naive.toeplitz(table, 1, (n,))


def toeplitz_levels(m, n):
    table = positive(m, n)  # m x 1 points against 1 x n points
    return Toeplitz(table, levels=2, columns=(1, n)), naive.toeplitz(table, 2, (1, n))


def total(m, n):
    (a, A), (b, B) = toeplitz(m, n), low_rank(m, n)
    return a + 2 * b, A + 2 * B


def elementwise(m, n):
    (a, A), (b, B) = toeplitz(m, n), low_rank(m, n)
    return a * b, A * B


def kronecker(m, n):
    left, right = positive(m, 1), positive(1, n)
    return Kronecker((Dense(left), Dense(right))), naive.kronecker(left, right)


def blocks(m, n):
    (a, A), (b, B) = toeplitz(m - m // 2, n - n // 2), dense(m // 2, n // 2)  # one of them may be empty
    return BlockDiagonal([a, b]), naive.block_diagonal(A, B)


def bordered(m, n):
    a, A = low_rank(m - 1, n - 1)
    return with_global_tokens(a, 1, 0.5), naive.with_global_tokens(A, 1, 0.5)


MASKS = {
    f.__name__: f
    for f in (
        none,
        dense,
        dense_heads,
        sparse,
        low_rank,
        toeplitz,
        toeplitz_heads,
        toeplitz_levels,
        total,
        elementwise,
        kronecker,
        blocks,
        bordered,
    )
}
OWN = {  # beyond "auto", "dense" and "stream"
    "none": "low_rank",
    "sparse": "sparse",
    "low_rank": "low_rank",
    "toeplitz": "fused",
    "toeplitz_heads": "fused",
    "toeplitz_levels": "fused",
    "total": "terms",
    "blocks": "blocks",
    "bordered": "border",
}


@pytest.fixture(params=["numpy", "numba"])
def backend(request):  # instead of the one of conftest.py
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", hadamard.METHODS)
@pytest.mark.parametrize("name", MASKS)
def test_the_definition(name, method, dtype, backend):
    applies = method in {"auto", "dense", "stream", OWN.get(name)} and not (method == "fused" and backend == "numpy")
    for rows, columns in SHAPES:
        mask, entries = MASKS[name](rows, columns)
        q, k, v = normal(2, rows, 3), normal(2, columns, 3, seed=1), normal(2, columns, 4)
        operands = [x.astype(dtype) for x in (q, k, v)]
        if not applies:
            with pytest.raises(ValueError, match=f"method '{method}' does not apply"):
                masked_attention(*operands, mask=mask, method=method)
            return
        wanted = naive.masked_attention(*(elu(x.astype(float)) for x in operands[:2]), operands[2], entries, 0.25)
        out = masked_attention(*operands, mask=mask, method=method, eps=0.25)
        assert out.dtype == dtype
        tolerance = (1e-12 if dtype is np.float64 else 1e-5) * np.abs(wanted).max()
        np.testing.assert_allclose(out, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in MASKS if name != "none"])
def test_masks_that_do_not_fit_the_keys(name):
    mask, _ = MASKS[name](9, 5)
    with pytest.raises(ValueError, match=r"does not fit 5 queries and 9 keys; it needs shape \(\.\.\., 5, 9\)"):
        masked_attention(normal(5, 3), normal(9, 3), normal(9, 4), mask=mask)
