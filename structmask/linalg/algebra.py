"""The algebra of structured matrices: one plain table of simplifications, each with its one-line proof.

`add`, `elementwise` and `multiply` are what ``+``, ``*`` and ``@`` between matrices call. A rule takes two matrices and
returns the simpler one, or None if it does not apply; the first that applies wins. Without a rule a sum or a product
stays a composite, and an elementwise product needs a low-rank factor (the central lemma) or raises TypeError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from structmask.backends import arrays
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal, Bordered
from structmask.linalg.buckets import Buckets
from structmask.linalg.causal import Causal
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.elementary import Dense, Diagonal, Sparse
from structmask.linalg.exponential_sum import ExponentialSum
from structmask.linalg.hadamard import Hadamard
from structmask.linalg.hypercube import Hypercube
from structmask.linalg.kronecker import Identity, Kronecker
from structmask.linalg.low_rank import LowRank, constant
from structmask.linalg.stationary import Stationary
from structmask.linalg.toeplitz import Toeplitz

Rule: TypeAlias = Callable[[Any, Any], StructuredMatrix | None]


def add(a: StructuredMatrix, b: Any) -> StructuredMatrix:
    """Sum a + b for a matrix or a scalar b (added to every entry)."""
    if _is_scalar(b):
        return _add_scalar(a, _python_scalar(b))
    _check_operands(a, b, "+")
    return _first(_SUMS, a, b) or _collect(a, b)


def elementwise(a: StructuredMatrix, b: Any) -> StructuredMatrix:
    """Product a * b, entry by entry, for a matrix or a scalar b."""
    if _is_scalar(b):
        return scale(a, b)
    _check_operands(a, b, "*")
    orders = ((rule, x, y) for rule in _HADAMARD for x, y in ((a, b), (b, a)))  # the first rule wins, in either order
    result = next((found for rule, x, y in orders if (found := _first((rule,), x, y)) is not None), None)
    if result is None:
        msg = (
            f"{type(a).__name__} * {type(b).__name__} has no fast product: an elementwise product needs a LowRank, "
            "Sparse, Diagonal or Dense factor or a pair with a rule; multiply their .to_dense() if they are small"
        )
        raise TypeError(msg)
    return result


def multiply(a: StructuredMatrix, b: StructuredMatrix) -> StructuredMatrix:
    """Matrix product a @ b."""
    if a.shape[-1] != b.shape[-2]:
        msg = f"matmul: {a!r} has {a.shape[-1]} columns but {b!r} has {b.shape[-2]} rows"
        raise ValueError(msg)
    _check_batches(a, b)
    return _first(_PRODUCTS, a, b) or Product(a, b)


def divide(a: StructuredMatrix, b: Any) -> StructuredMatrix:
    """Quotient a / b for a scalar b."""
    if not _is_scalar(b):
        msg = (
            f"a structured matrix is divided by scalars only, got {type(b).__name__}; use "
            "structmask.solve for a linear system"
        )
        raise TypeError(msg)
    return scale(a, 1 / b)


def scale(a: StructuredMatrix, s: Any) -> StructuredMatrix:
    """Multiple s * a, absorbed by the generators where the structure is linear in one of them."""
    s = _python_scalar(s)
    if name := _LINEAR_IN.get(type(a)):
        return _changed(a, name, s * getattr(a, name))
    match a:
        case BlockDiagonal():
            return BlockDiagonal(tuple(scale(block, s) for block in a.blocks))
        case Kronecker():
            return Kronecker((scale(a.factors[0], s), *a.factors[1:]))
        case Sum():
            return Sum(tuple(scale(term, s) for term in a.terms))
        case Product():
            return Product(scale(a.left, s), a.right)
        case Hadamard():
            return Hadamard(a.mask, LowRank(s * a.low_rank.left, a.low_rank.right))
    return Scaled(a, s)


# The generator that a structure is linear in; the entries of those in `_TABLES` are entries of that generator.
_LINEAR_IN: dict[type, str] = {
    Toeplitz: "offsets",
    Band: "offsets",
    Buckets: "values",
    Hypercube: "values",
    Dense: "a",
    Diagonal: "d",
    Sparse: "csr",
    LowRank: "left",
    Scaled: "factor",
}
_TABLES = (Toeplitz, Buckets, Hypercube, Dense)


def _changed(a: StructuredMatrix, name: str, value: Any) -> StructuredMatrix:
    """The same structure with another generator."""
    return dataclasses.replace(a, **{name: value})


# --- sums -------------------------------------------------------------------------------------------------------------


def _add_scalar(a: StructuredMatrix, s: Any) -> StructuredMatrix:
    if s == 0:
        return a
    if isinstance(a, _TABLES):
        name = _LINEAR_IN[type(a)]
        return _changed(a, name, getattr(a, name) + s)
    like = next((x for x in a._leaves() if hasattr(x, "dtype")), None)
    m, n = a.shape[-2:]
    return add(a, constant(m, n, s, like))


def _collect(a: StructuredMatrix, b: StructuredMatrix) -> StructuredMatrix:
    """One flat sum, in which b joins the first term it simplifies with."""
    terms = list(a.terms if isinstance(a, Sum) else (a,))
    for term in b.terms if isinstance(b, Sum) else (b,):
        for index, own in enumerate(terms):
            if (joined := _first(_SUMS, own, term)) is not None:
                terms[index] = joined
                break
        else:
            terms.append(term)
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def _toeplitz_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """Tables add: f(i - j) + g(i - j) = (f + g)(i - j)."""
    if not _same_grids(a, b):
        return None
    return Toeplitz(a.offsets + b.offsets, levels=a.levels, columns=a.columns)


def _band_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """Tables add where both bands reach equally far."""
    return Band(a.offsets + b.offsets, a.n, upper=a.upper) if _same_bands(a, b) else None


def _bucket_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """Values add, bucket by bucket, where the buckets are the same."""
    return Buckets(a.values + b.values, a.edges, a.n, order=a.order) if _same_buckets(a, b) else None


def _exponential_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """Terms join, where both sums see the same sides."""
    if not _same_sides(a, b):
        return None
    weights, decays = (_beside_in_batch(a, b, name) for name in ("weights", "decays"))
    return ExponentialSum(weights, decays, a.n, causal=a.causal, upper=a.upper)


def _block_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """Blocks add where both lie at the same places."""
    return BlockDiagonal(_in_pairs(add, a.blocks, b.blocks)) if a.block_shapes == b.block_shapes else None


def _low_rank_sum(a: Any, b: Any) -> StructuredMatrix | None:
    """A B^T + C D^T = [A C] [B D]^T."""
    if a.has_sparse_factors or b.has_sparse_factors:
        return None
    return LowRank(_beside(a.left, b.left), _beside(a.right, b.right))


# --- elementwise products ---------------------------------------------------------------------------------------------


def _toeplitz_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Tables multiply: f(i - j) g(i - j) = (f g)(i - j)."""
    if not _same_grids(a, b):
        return None
    return Toeplitz(a.offsets * b.offsets, levels=a.levels, columns=a.columns)


def _causal_toeplitz(a: Any, b: Any) -> StructuredMatrix | None:
    """With one decay for all positions the causal mask is the Toeplitz matrix of decay^s for s >= 0."""
    if not a.is_constant or b.levels != 1 or b.row_grid != b.column_grid:
        return None
    a, b = _widened(a, b)
    xp, n = arrays.namespace(b.offsets), a.n
    ascending = Causal(n, decay=a.decay)._at(xp.arange(n), xp.zeros(1, dtype=xp.int64))  # decay^0, ..., decay^(n-1)
    table = xp.concat([xp.zeros_like(ascending[..., 1:]), ascending], axis=-1)
    table = xp.flip(table, axis=-1) if a.upper else table
    return Toeplitz(arrays.cast_precision(table, arrays.precision(b.offsets)) * b.offsets)


def _causal_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Products of decays multiply position by position; a lower and an upper mask meet on the diagonal of ones."""
    if a.upper != b.upper:
        xp = arrays.namespace(a.decay) if hasattr(a.decay, "dtype") else np
        return Diagonal(xp.ones((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.n)))
    return Causal(a.n, decay=a.decay * b.decay, upper=a.upper)


def _low_rank_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """(A B^T) * (C D^T) = (A . C) (B . D)^T with row-wise Kronecker products, while the rank stays below the size."""
    if a.has_sparse_factors or b.has_sparse_factors or a.rank * b.rank > max(1, min(a.shape[-2:])):
        return None
    return LowRank(_row_kronecker(a.left, b.left), _row_kronecker(a.right, b.right))


def _sparse_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Zero entries stay zero: only the stored ones are multiplied by the entries of b there."""
    if not b.has_entries or len(b.shape) > 2:
        return None
    a, b = _widened(a, b)
    b = b._placed(a.csr.data)
    values = arrays.cast_precision(b._at(a._rows, a.csr.indices), arrays.precision(a.csr.data))
    return Sparse(type(a.csr)((a.csr.data * values, a.csr.indices, a.csr.indptr), shape=a.csr.shape))


def _diagonal_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Only the diagonal of b meets a nonzero."""
    a, b = _widened(a, b)
    return Diagonal(a.d * arrays.cast_precision(b.diagonal(), arrays.precision(a.d)))


def _dense_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """The result has the entries of a dense matrix anyway."""
    a, b = _widened(a, b)
    return Dense(a.a * arrays.cast_precision(b._placed(a.a).to_dense(), arrays.precision(a.a)))


def _kronecker_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """(A (x) B) * (C (x) D) = (A * C) (x) (B * D), where the grids are equal and every pair of factors has a rule."""
    if (a.row_grid, a.column_grid) != (b.row_grid, b.column_grid):
        return None
    factors = _in_pairs(elementwise, a.factors, b.factors)
    return None if factors is None else Kronecker(factors)


def _band_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Zero entries stay zero: f(i - j) g(i - j) inside the band, for whatever depends on i - j only."""
    if not _is_stationary(b):
        return None
    a, b = _widened(a.trimmed, b)
    xp = arrays.namespace(a.offsets)
    s = xp.arange(-a.above, a.below + 1)
    inside = (s > -a.n) & (s < a.n)
    s = xp.where(inside, s, xp.zeros_like(s))
    table = b._placed(a.offsets)._at(xp.where(s > 0, s, 0 * s), xp.where(s < 0, -s, 0 * s))
    return Band(a.offsets * arrays.cast_precision(table, arrays.precision(a.offsets)), a.n, upper=a.above)


def _bucket_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Values multiply, bucket by bucket, where the buckets are the same."""
    return Buckets(a.values * b.values, a.edges, a.n, order=a.order) if _same_buckets(a, b) else None


def _bucket_toeplitz(a: Any, b: Any) -> StructuredMatrix | None:
    """Buckets are a Toeplitz matrix."""
    return elementwise(a.toeplitz, b) if _is_stationary(b) else None


def _exponential_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """(sum_r w_r rho_r^s) (sum_t v_t sigma_t^s) = sum_rt w_r v_t (rho_r sigma_t)^s."""
    if not _same_sides(a, b):
        return None
    xp = arrays.namespace(a.decays)
    pairs = [getattr(a, name)[..., :, None] * getattr(b, name)[..., None, :] for name in ("weights", "decays")]
    weights, decays = (xp.reshape(x, (*x.shape[:-2], a.rank * b.rank)) for x in pairs)
    return ExponentialSum(weights, decays, a.n, causal=a.causal, upper=a.upper)


def _causal_stationary(a: Any, b: Any) -> StructuredMatrix | None:
    """Prefix sums keep one side of what depends on i - j only; an exponential sum takes up a decay as well."""
    if b.causal and a.upper != b.upper:
        return None
    one_sided: StructuredMatrix = dataclasses.replace(b, causal=True, upper=a.upper)
    if isinstance(a.decay, float) and a.decay == 1:
        return one_sided
    if not (isinstance(b, ExponentialSum) and a.is_constant and b.errors is None):
        return None
    return _changed(one_sided, "decays", b.decays * a.decay)


def _stationary_toeplitz(a: Any, b: Any) -> StructuredMatrix | None:
    """A state-space mask is a Toeplitz matrix."""
    return elementwise(a.toeplitz, b) if a.errors is None and _is_stationary(b) else None


def _block_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Blocks multiply where both lie at the same places and every pair of blocks has a rule."""
    blocks = _in_pairs(elementwise, a.blocks, b.blocks) if a.block_shapes == b.block_shapes else None
    return None if blocks is None else BlockDiagonal(blocks)


def _bordered_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """Borders of one width multiply, masks multiply, ones stay."""
    mask = _in_pairs(elementwise, (a.mask,), (b.mask,)) if a.count == b.count else None
    if mask is None:
        return None
    return Bordered(mask[0], a.count, a.value * b.value)


def _hadamard_low_rank(a: Any, b: Any) -> StructuredMatrix | None:
    """(M * R) * S = M * (R * S) while R * S stays low-rank."""
    factor = _low_rank_hadamard(a.low_rank, b)
    return Hadamard(a.mask, factor) if isinstance(factor, LowRank) else Hadamard(a, b)


def _mask_low_rank(a: Any, b: Any) -> StructuredMatrix | None:
    """The central lemma; of two low-rank factors the one with dense factors is the features."""
    if isinstance(a, LowRank) and b.has_sparse_factors and not a.has_sparse_factors:
        a, b = b, a
    return Hadamard(a, b)


def _sum_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """(A + B) * C = A * C + B * C."""
    first, *others = (elementwise(term, b) for term in a.terms)
    for other in others:
        first = add(first, other)
    return first


def _scaled_hadamard(a: Any, b: Any) -> StructuredMatrix | None:
    """(s A) * B = s (A * B)."""
    return scale(elementwise(a.matrix, b), a.factor)


# --- matrix products --------------------------------------------------------------------------------------------------


def _low_rank_product(a: Any, b: Any) -> StructuredMatrix | None:
    """L R^T B = L (B^T R)^T."""
    return None if a.has_sparse_factors else LowRank(a.left, b.transpose() @ a.right)


def _kronecker_product(a: Any, b: Any) -> StructuredMatrix | None:
    """(A (x) B)(C (x) D) = (A C) (x) (B D), where the grids between them are equal."""
    if a.column_grid != b.row_grid:
        return None
    return Kronecker(_in_pairs(multiply, a.factors, b.factors))


def _block_product(a: Any, b: Any) -> StructuredMatrix | None:
    """diag(A, B) diag(C, D) = diag(A C, B D), where the inner sizes of every pair are equal."""
    if [n for _, n in a.block_shapes] != [m for m, _ in b.block_shapes]:
        return None
    return BlockDiagonal(_in_pairs(multiply, a.blocks, b.blocks))


def _product_low_rank(a: Any, b: Any) -> StructuredMatrix | None:
    """A L R^T = (A L) R^T."""
    return None if b.has_sparse_factors else LowRank(a @ b.left, b.right)


_SUMS: tuple[tuple[type, type, Rule], ...] = (
    (Toeplitz, Toeplitz, _toeplitz_sum),
    (Hypercube, Hypercube, lambda a, b: Hypercube(a.values + b.values)),  # values add, distance by distance
    (Band, Band, _band_sum),
    (Buckets, Buckets, _bucket_sum),
    (ExponentialSum, ExponentialSum, _exponential_sum),
    (BlockDiagonal, BlockDiagonal, _block_sum),
    (LowRank, LowRank, _low_rank_sum),
    (Dense, Dense, lambda a, b: Dense(a.a + b.a)),  # entries add
    (Diagonal, Diagonal, lambda a, b: Diagonal(a.d + b.d)),  # diagonals add
    (Sparse, Sparse, lambda a, b: Sparse(a.csr + b.csr)),  # patterns merge
)

_HADAMARD: tuple[tuple[type, type, Rule], ...] = (
    (Identity, StructuredMatrix, lambda _, b: Diagonal(b.diagonal())),  # ones on the diagonal, zeros elsewhere
    (Diagonal, StructuredMatrix, _diagonal_hadamard),
    (Dense, StructuredMatrix, _dense_hadamard),
    (Sparse, StructuredMatrix, _sparse_hadamard),
    (Band, StructuredMatrix, _band_hadamard),
    (Buckets, Buckets, _bucket_hadamard),
    (Buckets, Toeplitz, _bucket_toeplitz),
    (Buckets, Causal, _bucket_toeplitz),
    (Toeplitz, Toeplitz, _toeplitz_hadamard),
    (ExponentialSum, ExponentialSum, _exponential_hadamard),
    (Stationary, Toeplitz, _stationary_toeplitz),
    (Stationary, Buckets, _stationary_toeplitz),
    (Causal, Stationary, _causal_stationary),
    (Causal, Toeplitz, _causal_toeplitz),
    (Causal, Causal, _causal_hadamard),
    (Hypercube, Hypercube, lambda a, b: Hypercube(a.values * b.values)),  # values multiply, distance by distance
    (Kronecker, Kronecker, _kronecker_hadamard),
    (BlockDiagonal, BlockDiagonal, _block_hadamard),
    (Bordered, Bordered, _bordered_hadamard),
    (LowRank, LowRank, _low_rank_hadamard),
    (Hadamard, LowRank, _hadamard_low_rank),
    (StructuredMatrix, LowRank, _mask_low_rank),
    (Hadamard, StructuredMatrix, lambda a, b: Hadamard(elementwise(a.mask, b), a.low_rank)),  # * is associative
    (Scaled, StructuredMatrix, _scaled_hadamard),
    (Sum, StructuredMatrix, _sum_hadamard),
)

_PRODUCTS: tuple[tuple[type, type, Rule], ...] = (
    (Identity, StructuredMatrix, lambda _, b: b),  # I B = B
    (StructuredMatrix, Identity, lambda a, _: a),  # A I = A
    (Kronecker, Kronecker, _kronecker_product),
    (BlockDiagonal, BlockDiagonal, _block_product),
    (Dense, Dense, lambda a, b: Dense(a.a @ b.a)),  # the definition
    (Diagonal, Diagonal, lambda a, b: Diagonal(a.d * b.d)),  # diagonals multiply
    (Diagonal, Dense, lambda a, b: Dense(a.d[..., :, None] * b.a)),  # rows are scaled
    (Dense, Diagonal, lambda a, b: Dense(a.a * b.d[..., None, :])),  # columns are scaled
    (Sparse, Sparse, lambda a, b: Sparse(a.csr @ b.csr)),  # sparse times sparse is sparse
    (LowRank, StructuredMatrix, _low_rank_product),
    (StructuredMatrix, LowRank, _product_low_rank),
)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _first(rules: tuple[tuple[type, type, Rule], ...], a: Any, b: Any) -> StructuredMatrix | None:
    for left, right, rule in rules:
        if isinstance(a, left) and isinstance(b, right) and (result := rule(a, b)) is not None:
            return result
    return None


def _in_pairs(rule: Callable[[Any, Any], StructuredMatrix], a: Any, b: Any) -> Any:
    """A rule applied to the parts of two matrices, or None if a pair has none."""
    try:
        return tuple(rule(x, y) for x, y in zip(a, b, strict=True))
    except TypeError:
        return None


def _is_scalar(b: Any) -> bool:
    return isinstance(b, int | float | complex | np.number | np.bool) or getattr(b, "shape", None) == ()


def _python_scalar(s: Any) -> float | complex:
    """A scalar of any library as a Python one, which leaves the precision of arrays as it is."""
    return complex(s) if arrays.is_complex(s) else float(s)


def _check_operands(a: StructuredMatrix, b: Any, operator: str) -> None:
    if not isinstance(b, StructuredMatrix):
        raise TypeError(_not_a_matrix(b, operator))
    if a.shape[-2:] != b.shape[-2:]:
        msg = f"{operator} needs matrices of one shape, got {a!r} and {b!r}"
        raise ValueError(msg)
    _check_batches(a, b)


def _check_batches(a: StructuredMatrix, b: StructuredMatrix) -> None:
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        msg = f"batch dimensions {a.shape[:-2]} and {b.shape[:-2]} do not broadcast"
        raise ValueError(msg) from None
    leaves = [x for matrix in (a, b) for x in matrix._leaves() if hasattr(x, "dtype")]
    arrays.common_home(leaves, "the generators of two matrices")


def _not_a_matrix(b: Any, operator: str) -> str:
    kind = type(b).__name__
    if arrays.is_sparse(b):
        return (
            f"{operator} with a scipy sparse {kind} is ambiguous (its * means the product); wrap it: "
            "structmask.Sparse(x)"
        )
    if hasattr(b, "matvec"):
        return (
            f"{operator} with a {kind} is ambiguous (its * means the product); use M.aslinearoperator() "
            "on the other side"
        )
    if arrays.home(b) == "torch":
        return f"{operator} with a torch tensor loses its gradient; use structmask.adapters.torch"
    if hasattr(b, "shape"):
        return (
            f"{operator} with an array is ambiguous; wrap it: Dense(x) for entries (m, n), Diagonal(x) "
            "for a diagonal (n,)"
        )
    return f"unsupported operand for {operator} with a structured matrix: {kind}; use a scalar or a structured matrix"


def _same_bands(a: Band, b: Band) -> bool:
    return a.above == b.above and a.below == b.below


def _same_sides(a: Stationary, b: Stationary) -> bool:
    """Whether two exact masks see the same sides of the diagonal."""
    return a.sides == b.sides and a.errors is b.errors is None


def _same_buckets(a: Buckets, b: Buckets) -> bool:
    return (a.edges, a.order, a.values.shape[-1]) == (b.edges, b.order, b.values.shape[-1])


def _is_stationary(b: StructuredMatrix) -> bool:
    """Whether a square matrix of at least one row depends on i - j only, and its entries are at hand."""
    if 0 in b.shape[-2:]:
        return False
    one_level = isinstance(b, Toeplitz) and b.levels == 1 and b.row_grid == b.column_grid
    exact = isinstance(b, Stationary) and b.errors is None
    return one_level or exact or isinstance(b, Band | Buckets) or (isinstance(b, Causal) and b.is_constant)


def _same_grids(a: Toeplitz, b: Toeplitz) -> bool:
    return a.levels == b.levels and a.columns == b.columns and a.row_grid == b.row_grid


def _widened(a: StructuredMatrix, b: StructuredMatrix) -> tuple[Any, Any]:
    """Both with generators of the wider precision of the two."""
    widths = {arrays.precision(x) for matrix in (a, b) for x in matrix._leaves() if hasattr(x, "dtype")}
    if len(widths) < 2:
        return a, b
    wide = max(widths)

    def cast(x: Any) -> Any:
        return arrays.cast_precision(x, wide) if hasattr(x, "dtype") else x

    return a._map(cast), b._map(cast)


def _beside(a: Any, b: Any) -> Any:
    return arrays.namespace(a).concat(arrays.one_batch(*arrays.as_same_kind(a, b)), axis=-1)


def _beside_in_batch(a: Any, b: Any, name: str) -> Any:
    """A generator (..., r) of two matrices side by side."""
    return _beside(getattr(a, name)[..., None, :], getattr(b, name)[..., None, :])[..., 0, :]


def _row_kronecker(a: Any, b: Any) -> Any:
    """(..., n, r), (..., n, s) -> (..., n, r s): all products of a column of each."""
    product = a[..., :, None] * b[..., None, :]
    return arrays.namespace(a).reshape(product, (*product.shape[:-2], a.shape[-1] * b.shape[-1]))
