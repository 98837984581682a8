"""Grounded Laplacians S = diag(C 1 + ground) - C, C >= 0 symmetric: conjugate gradients, the preconditioner by need.

They are the systems of hitting times, potentials and resistances of every reversible walk. Jacobi's preconditioner
costs nothing and needs 20 steps where hubs mix the graph; forty steps tell how fast it converges, and where that is too
slow a random elimination (`approximate_cholesky`) without fill takes over from the x that they reached.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends.arrays import Array

_LIMIT = 5000  # steps
_PATIENCE = 170  # steps of Jacobi's preconditioner that cost what the other one does
_SEED = 0  # the elimination draws from its own generator: the result depends on the matrix alone


class GroundedLaplacian:
    """Solutions of (diag(C 1 + ground) - C) x = b, for csr_array C (n, n) in double precision without a diagonal."""

    def __init__(self, C: Any, ground: Array) -> None:
        self.C, self.ground = C, ground
        self.diagonal = np.asarray(C.sum(axis=1)).reshape(-1) + ground
        self.method, self.steps = "jacobi", 0

    def solve(self, B: Array, weights: Array, tol: float) -> tuple[Array, float]:
        """X (n, k) with max_i |b - S x|_i weights_i <= tol in every column, and the largest such number reached."""
        X, worst = np.zeros_like(B), 0.0
        for c in range(B.shape[1]):
            X[:, c], size = self._column(np.ascontiguousarray(B[:, c]), np.ascontiguousarray(weights[:, c]), tol)
            worst = max(worst, size)
        return X, worst

    def _column(self, b: Array, weight: Array, tol: float) -> tuple[Array, float]:
        from structmask.backends._numba.conjugate_gradients import conjugate_gradients

        x = np.zeros_like(b)
        if self.method == "jacobi":
            matrix = _parts(self._matrix)
            self.steps, size = conjugate_gradients(matrix, self._jacobi, b, x, weight, tol, _LIMIT, float(_PATIENCE))
            if size <= tol:
                return x, size
            self.method = "cholesky"
        order, matrix, factor = self._cholesky
        x = x[order]
        self.steps, size = conjugate_gradients(matrix, factor, b[order], x, weight[order], tol, _LIMIT, np.inf)
        restored = np.empty_like(x)
        restored[order] = x
        return restored, size

    @cached_property
    def _matrix(self) -> Any:
        n = self.diagonal.size
        own = np.arange(n, dtype=self.C.indices.dtype)
        diagonal = scipy.sparse.csr_array((self.diagonal, own, np.arange(n + 1)), shape=(n, n))
        return scipy.sparse.csr_array(diagonal - self.C)

    @cached_property
    def _jacobi(self) -> tuple[Array, Array, Array, Array]:
        """A factor without entries beside its pivots."""
        return np.zeros(self.diagonal.size + 1, np.int64), np.empty(0, np.int32), np.empty(0), self.diagonal

    @cached_property
    def _cholesky(self) -> tuple[Array, Any, Any]:
        """Order of elimination, the matrix in that order, and the factor."""
        from structmask.backends._numba.approximate_cholesky import approximate_cholesky

        C, n = self.C, self.diagonal.size
        order, ends, later, values, pivots = approximate_cholesky(
            C.indptr, C.indices, C.data, self.ground, np.uint64(_SEED)
        )
        position = np.empty(n, np.int32)
        position[order] = np.arange(n, dtype=np.int32)
        return order, _parts(self._matrix[order][:, order]), (ends, position[later], values, pivots)


def _parts(A: Any) -> tuple[Array, Array, Array]:
    return A.indptr, A.indices, A.data
