"""Elimination of states without a single subtraction: every number of the factor has all its digits.

A walker goes from i to j at rate A_ij and leaves for good at rate leak_i. Censoring state k, that is watching the walk
only while it is elsewhere, adds what flows through k:

    A_ij += A_ik A_kj / s_k,     leak_i += A_ik leak_k / s_k,     s_k = sum_j A_kj + leak_k

It is Gaussian elimination of M = diag(A 1 + leak) - A whose pivots are *sums*, not differences (Grassmann, Taksar and
Heyman). Sums, products and quotients of non-negative numbers: rates of 1e-300 beside rates of 1 do no harm, and nor do
the solutions, for right-hand sides >= 0. On a forest leaves go first, nothing fills in, and all is O(n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from scipy.linalg import solve_triangular
from scipy.sparse import csgraph

from structmask.backends.arrays import Array
from structmask.backends.config import get_backend

_KEPT = 1.0  # share of what an incomplete elimination drops that stays in its pivots
_FILL = 10  # times the pattern of the steps, that the pattern of a complete factor may be
_LEAST, _SMALL = 1_000_000, 1500  # numbers that it may have in any case, for so few states


@dataclass(frozen=True, eq=False)
class Factor:
    """M = (I - lower) diag(pivots) (I - upper) in an order of elimination, by the later neighbours of each state."""

    order: Array
    indptr: Array
    pattern: Array
    lower: Array
    upper: Array
    pivots: Array

    def solve(self, B: Array, *, transposed: bool = False) -> Array:
        """M^-1 B, or M^-T B, for B (n, k)."""
        from structmask.backends._numba.elimination import substitute

        X = np.ascontiguousarray(np.take(B, self.order, axis=0))
        first, second = (self.upper, self.lower) if transposed else (self.lower, self.upper)
        substitute(self.indptr, self.pattern, first, second, self.pivots, X)
        return self._restored(X)

    def inverse_diagonal(self) -> Array:
        """The diagonal of M^-1, at about the cost of the factor."""
        from structmask.backends._numba.elimination import inverse_diagonal

        return self._restored(inverse_diagonal(self.indptr, self.pattern, self.lower, self.upper, self.pivots))

    @property
    def operations(self) -> float:
        """Multiplications and additions of a solution, a column."""
        return 4.0 * float(self.pattern.size) + float(self.pivots.size)

    def _restored(self, X: Array) -> Array:
        Y = np.empty_like(X)
        Y[self.order] = X
        return Y


def complete_factor(A: Any, leak: Array, operations: float = 3e9, fill: float = np.inf) -> Factor | None:
    """The factor of diag(A 1 + leak) - A by minimum degree; None beyond so many operations, or entries (`fill`)."""
    from structmask.backends._numba.elimination import eliminate
    from structmask.backends._numba.ordering import minimum_degree

    pattern = _symmetric_pattern(A)
    limit = _FILL * (pattern.nnz + A.shape[0]) + (_LEAST if A.shape[0] <= _SMALL else 0)
    order, indptr, later = minimum_degree(pattern.indptr, pattern.indices, int(min(limit, fill)))
    if order.size < A.shape[0] or float(np.square(np.diff(indptr), dtype=np.float64).sum()) > operations:
        return None
    later = _later(order, indptr, later)
    return Factor(order, indptr, later, *_eliminated(eliminate, A, leak, order, indptr, later, 0.0))


def fills_little(A: Any) -> bool:
    """Whether a complete factor of a walk takes no more than some times the numbers of its steps."""
    if get_backend() == "numpy":
        return bool(A.shape[0] <= _SMALL)
    from structmask.backends._numba.ordering import minimum_degree

    pattern = _symmetric_pattern(A)
    order, _, _ = minimum_degree(pattern.indptr, pattern.indices, _FILL * (pattern.nnz + A.shape[0]))
    return bool(order.size == A.shape[0])


def forest_factor(A: Any, leak: Array, is_kept: Array | None = None) -> Factor | None:
    """The factor where the steps form a forest, children before parents; None where they have a cycle.

    On the states of a mask (n,) alone, in their own numbering, where one is given: steps to all others leave for good.
    """
    from structmask.backends._numba.forest import eliminate_forest

    kept = np.ones(A.shape[0], dtype=bool) if is_kept is None else is_kept
    found = eliminate_forest(A.indptr, A.indices, A.data, leak, kept)
    return None if found is None else Factor(*found)


def incomplete_factor(A: Any, leak: Array) -> Factor:
    """An approximate factor on the pattern of A alone."""
    from structmask.backends._numba.elimination import eliminate

    pattern = _symmetric_pattern(A)
    order = csgraph.reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int32)
    own = pattern[order][:, order]
    upper = scipy.sparse.triu(own, k=1, format="csr")
    upper.sort_indices()
    indptr, later = upper.indptr.astype(np.int64), upper.indices.astype(np.int32)
    return Factor(order, indptr, later, *_eliminated(eliminate, A, leak, order, indptr, later, _KEPT))


def _eliminated(kernel: Any, A: Any, leak: Array, order: Array, indptr: Array, later: Array, kept: float) -> Any:
    rows = scipy.sparse.csr_array(A[order][:, order])
    columns = scipy.sparse.csr_array(rows.T)
    parts = [(part.indptr, part.indices, part.data) for part in (rows, columns)]
    return kernel(indptr, later, *parts, leak[order], kept)


def _symmetric_pattern(A: Any) -> Any:
    """Where A or its transpose has an entry."""
    ones = scipy.sparse.csr_array((np.ones(A.nnz), A.indices, A.indptr), shape=A.shape)
    pattern = scipy.sparse.csr_array(ones + ones.T)
    pattern.sort_indices()
    return pattern


def _later(order: Array, indptr: Array, later: Array) -> Array:
    """Later neighbours in the numbering of the order, sorted."""
    position = np.empty(order.size, np.int32)
    position[order] = np.arange(order.size, dtype=np.int32)
    pattern = scipy.sparse.csr_array((np.ones(later.size, np.int8), position[later], indptr), shape=(order.size,) * 2)
    pattern.sort_indices()
    return pattern.indices.astype(np.int32)


# --- dense chains, and the plain reference ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DenseFactor:
    """M = (I - lower) diag(pivots) (I - upper) with dense triangles, the last state first: arrays alone."""

    lower: Array
    upper: Array
    pivots: Array

    def solve(self, B: Array, *, transposed: bool = False) -> Array:
        """M^-1 B, or M^-T B, for B (n, k)."""
        first, second = (self.upper.T, self.lower.T) if transposed else (self.lower, self.upper)
        unit = np.eye(self.pivots.size)
        Y = solve_triangular(unit - first, B, lower=False, unit_diagonal=True)
        return solve_triangular(unit - second, Y / self.pivots[:, None], lower=True, unit_diagonal=True)

    def inverse_diagonal(self) -> Array:
        """The diagonal of M^-1."""
        return np.diagonal(self.solve(np.eye(self.pivots.size))).copy()

    @property
    def operations(self) -> float:
        """Multiplications and additions of a solution, a column."""
        return 2.0 * float(self.pivots.size) ** 2


def dense_factor(A: Any, leak: Array) -> DenseFactor:
    """The factor of diag(A 1 + leak) - A with one row update a state."""
    full, leak = A.toarray(), leak.copy()
    n = leak.size
    lower, upper, pivots = np.zeros((n, n)), np.zeros((n, n)), np.ones(n)
    for k in range(n - 1, -1, -1):
        pivots[k] = full[k, :k].sum() + leak[k]
        lower[:k, k], upper[k, :k] = full[:k, k] / pivots[k], full[k, :k] / pivots[k]
        full[:k, :k] += np.outer(lower[:k, k], full[k, :k])
        leak[:k] += lower[:k, k] * leak[k]
    return DenseFactor(lower, upper, pivots)
