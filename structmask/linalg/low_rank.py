"""Low-rank matrices, with dense or sparse factors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Sparse, as_csr
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work


@dataclass(frozen=True, eq=False, repr=False)
class LowRank(StructuredMatrix):
    """left @ right.T, the plain transpose also for complex factors.

    Parameters
    ----------
    left : array (..., m, r) or sparse (m, r)
    right : array (..., n, r) or sparse (n, r)
        The factors; both dense or both sparse.

    Notes
    -----
    A product costs 2 (m + n) r operations a column (2 nnz for sparse factors).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import LowRank
    >>> u = np.array([[1.0], [2.0]])
    >>> LowRank(u, u) @ np.ones(2)
    array([3., 6.])
    """

    left: Array
    right: Array

    def __post_init__(self) -> None:
        left, right = _factor(self.left, "LowRank(left)"), _factor(self.right, "LowRank(right)")
        if arrays.is_sparse(left) != arrays.is_sparse(right):
            msg = "LowRank needs two dense or two sparse factors, got one of each; convert one of them"
            raise TypeError(msg)
        if left.ndim < 2 or right.ndim < 2 or left.shape[-1] != right.shape[-1]:
            msg = (
                f"LowRank needs left (..., m, r) and right (..., n, r) with one r, "
                f"got {tuple(left.shape)} and {tuple(right.shape)}"
            )
            raise ValueError(msg)
        arrays.common_home((left, right), "the factors of LowRank")
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "right", right)
        np.broadcast_shapes(tuple(left.shape[:-2]), tuple(right.shape[:-2]))

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(tuple(self.left.shape[:-2]), tuple(self.right.shape[:-2]))
        return (*batch, int(self.left.shape[-2]), int(self.right.shape[-2]))

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""
        return int(self.left.shape[-1])

    @property
    def has_sparse_factors(self) -> bool:
        """Whether the factors are sparse."""
        return arrays.is_sparse(self.left)

    @property
    def has_entries(self) -> bool:
        return not self.has_sparse_factors

    @cached_property
    def _sides(self) -> tuple[Sparse, Sparse, Sparse]:
        """Sparse factors as matrices: left, right, and the transpose of right, which takes a pass to make."""
        return Sparse(self.left), Sparse(self.right), Sparse(self.right.T)

    def _matmat(self, X: Array) -> Array:
        if self.has_sparse_factors:
            left, _, right_transposed = self._sides
            return left._product(right_transposed._product(X))
        if self.rank == 0:
            return _zeros(self, X)
        return self.left @ (arrays.namespace(X).matrix_transpose(self.right) @ X)

    def transpose(self) -> LowRank:
        return LowRank(self.right, self.left)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        if self.has_sparse_factors:
            left, right, right_transposed = self._sides
            d_left = left._pullback(G, right_transposed._product(X))["csr"]
            xp = arrays.namespace(X)
            d_right = right._pullback(xp.conj(X), xp.conj(left.mH._product(G)))["csr"]
            return {"left": d_left, "right": d_right}
        xp = arrays.namespace(X)
        conj = xp.conj if any(map(arrays.is_complex, (self.left, self.right, G, X))) else lambda a: a
        d_left = G @ conj(xp.matrix_transpose(X) @ self.right)
        d_right = conj(X) @ (xp.matrix_transpose(G) @ conj(self.left))
        return {
            "left": unbroadcast(d_left, tuple(self.left.shape), complex_=arrays.is_complex(self.left)),
            "right": unbroadcast(d_right, tuple(self.right.shape), complex_=arrays.is_complex(self.right)),
        }

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(self.left)
        if i.ndim == 2 and j.ndim == 2 and i.shape[1] == 1 and j.shape[0] == 1:  # a submatrix: one matrix product
            left = xp.take(self.left, i[:, 0], axis=-2)
            return left @ xp.matrix_transpose(xp.take(self.right, j[0, :], axis=-2))
        i, j = xp.broadcast_arrays(i, j)
        left = xp.take(self.left, xp.reshape(i, (-1,)), axis=-2)
        right = xp.take(self.right, xp.reshape(j, (-1,)), axis=-2)
        values = xp.sum(left * right, axis=-1)
        return xp.reshape(values, (*values.shape[:-1], *i.shape))

    @property
    def _entry_bytes(self) -> float:
        return 12.0 + 2.0 * self.rank

    def _work(self, columns: int) -> Work:
        if self.has_sparse_factors:
            return Work(scan=2.0 * (self.left.nnz + self.right.nnz) * columns, calls=2)
        m, n = self.shape[-2:]
        return Work(gemm=2.0 * math.prod(self.shape[:-2]) * (m + n) * self.rank * columns, calls=2)


def constant(m: int, n: int, value: Any, like: Array | None) -> LowRank:
    """The m x n matrix all of whose entries are one value, in the home of an array."""
    if like is not None and arrays.is_sparse(like):
        like = like.data
    xp = np if like is None else arrays.namespace(like)
    width = "float64" if like is None else arrays.precision(like)
    kind = getattr(xp, arrays.dtype_of(width, complex_=isinstance(value, complex)))
    return LowRank(xp.full((m, 1), value, dtype=kind), xp.ones((n, 1), dtype=kind))


def _factor(factor: Any, what: str) -> Array:
    return as_csr(factor, what) if arrays.is_sparse(factor) else arrays.as_array(factor, what)


def _zeros(matrix: StructuredMatrix, X: Array) -> Array:
    xp = arrays.namespace(X)
    batch = np.broadcast_shapes(matrix.shape[:-2], tuple(X.shape[:-2]))
    name = arrays.dtype_of(arrays.precision(X), complex_=arrays.is_complex(X) or matrix.dtype.kind == "c")
    return xp.zeros((*batch, matrix.shape[-2], X.shape[-1]), dtype=getattr(xp, name))
