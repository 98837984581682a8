"""Grounded Laplacians S = diag(C 1 + ground) - C, C >= 0 symmetric: conjugate gradients, the preconditioner by need.

    jacobi       D^-1, the diagonal: costs nothing, needs 20 steps where hubs mix the graph
    aggregates   1.5 D^-1 + P M^-1 P^T: P^T sums over neighbourhoods, M is random elimination of the graph between
    cholesky     a random elimination (`approximate_cholesky`) of the graph itself: dear, good for weights of any size

A few steps tell how fast one converges; where that is too slow the next goes on from the x that it reached.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from structmask.backends.arrays import Array

Preconditioner: TypeAlias = tuple[float, Array, Array, Array, Array, Array]

_LIMIT = 5000  # steps
_TRIAL = {"jacobi": 8, "aggregates": 40, "cholesky": 0}  # steps before the first look at the rate
_PATIENCE = {"jacobi": 140.0, "aggregates": 250.0, "cholesky": np.inf}  # steps worth what the next way costs in all
_NEXT = {"jacobi": "aggregates", "aggregates": "cholesky"}
_SHARE = 1.5  # of D^-1 beside the aggregates
_SEED = 0  # the elimination draws from its own generator: the result depends on the matrix alone


class GroundedLaplacian:
    """Solutions of (diag(C 1 + ground) - C) x = b, for csr_array C (n, n) in double precision without a diagonal."""

    def __init__(self, C: Any, ground: Array) -> None:
        self.C, self.ground = C, ground
        self.diagonal = np.asarray(C.sum(axis=1)).reshape(-1) + ground
        self.method, self.steps, self._is_free = "jacobi", 0, True

    def keep(self, method: str) -> None:
        """Stay with one preconditioner."""
        self.method, self._is_free = method, False

    def solve(self, B: Array, weights: Array, tol: float) -> tuple[Array, float]:
        """X (n, k) with max_i |b - S x|_i weights_i <= tol in every column, and the largest such number reached."""
        X, worst = np.zeros_like(B), 0.0
        for c in range(B.shape[1]):
            X[:, c], size = self._column(np.ascontiguousarray(B[:, c]), np.ascontiguousarray(weights[:, c]), tol)
            worst = max(worst, size)
        return X, worst

    def _column(self, b: Array, weight: Array, tol: float) -> tuple[Array, float]:
        from structmask.backends._numba.conjugate_gradients import conjugate_gradients

        x, self.steps = np.zeros_like(b), 0
        network = self.C.indptr, self.C.indices, self.C.data, self.diagonal
        while True:
            trial, patience = _TRIAL[self.method], _PATIENCE[self.method] if self._is_free else np.inf
            steps, size = conjugate_gradients(
                network, self.preconditioner(self.method), b, x, weight, tol, _LIMIT, trial, patience
            )
            self.steps += steps
            if size <= tol or not self._is_free or self.method not in _NEXT:
                return x, size
            self.method = _NEXT[self.method]

    def preconditioner(self, method: str) -> Preconditioner:
        """Share of the inverse diagonal, and a symmetric elimination with the place of each node in it."""
        if method == "jacobi":
            return 1.0, np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0), np.empty(0)
        return self._aggregates if method == "aggregates" else self._cholesky

    @cached_property
    def _cholesky(self) -> Preconditioner:
        position, factor = _eliminated((self.C.indptr, self.C.indices, self.C.data), self.ground)
        return 0.0, position, *factor

    @cached_property
    def _aggregates(self) -> Preconditioner:
        from structmask.backends._numba.aggregation import aggregates, collapsed

        parts = self.C.indptr, self.C.indices, self.C.data
        labels, count = aggregates(*parts)
        ground = np.bincount(labels, weights=self.ground, minlength=count)
        position, factor = _eliminated(collapsed(*parts, labels, count), ground)
        return _SHARE, position[labels], *factor


def _eliminated(parts: tuple[Array, ...], ground: Array) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """Place of each node in a random elimination, and the factor."""
    from structmask.backends._numba.approximate_cholesky import approximate_cholesky

    order, ends, later, values, pivots = approximate_cholesky(*parts, ground, np.uint64(_SEED))
    position = np.empty(order.size, np.int32)
    position[order] = np.arange(order.size, dtype=np.int32)
    return position, (ends, position[later], values, pivots)
