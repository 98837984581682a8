"""What a walk does before it leaves for good: solutions of (diag(A 1 + leak) - A) x = b, the method by the structure.

    forest      steps without a cycle: elimination, O(n)
    complete    elimination by minimum degree, where it fills little (or the chain is small)
    dense       the same, rows at once
    grounded    reversible, few right-hand sides: conjugate gradients on the grounded Laplacian
    directed    everything else: stabilised biconjugate gradients, with the diagonal for a while, then with a factor

The eliminations subtract nothing (`elimination`), so that they need no check; what iterates is checked in the end.

Theorem. M = diag(A 1 + leak) - A has a non-negative inverse. If b > 0 and |b - M x| <= t b entrywise, then every entry
of x is off by the factor t at most: |x - M^-1 b| <= M^-1 |b - M x| <= t M^-1 b.
"""

from __future__ import annotations

import functools
import math
import warnings
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.graphs.elimination import (
    DenseFactor,
    Factor,
    complete_factor,
    dense_factor,
    forest_factor,
    incomplete_factor,
)
from structmask.graphs.grounded import GroundedLaplacian
from structmask.graphs.markov_classes import reversing_measure
from structmask.linalg import krylov
from structmask.linalg.convergence import ConvergenceWarning

_DIRECT = 1500  # states up to which a factor is made whatever is asked
_DENSE = 0.2, 1500  # share of entries from which, and states up to which, the factor is dense
_COLUMNS = 3  # right-hand sides from which a factor pays
_SMALLEST = 1e-100  # of a reversing measure: beyond, the symmetric form is not a form to compute in
_ROUNDS = 30
_TRIAL, _STEPS = 25, 1000  # steps with the diagonal as preconditioner at first, and of any way in all
_RESTARTS = 4
_STALLED = 0.9  # of a residual: what a round has to improve on
_PROMISING = 1e-3  # residual after the first round with which to go on


class TransientSystem:
    """diag(A 1 + leak) - A for csr_array A (n, n) >= 0 without a diagonal and leak (n,) >= 0.

    From every state there is a way to one that leaks.

    `measure` makes diag(measure) A symmetric, where that is known beforehand.
    """

    def __init__(self, A: Any, leak: Array, measure: Array | None = None) -> None:
        self.A, self.leak = A, leak
        if measure is not None:
            self.measure = measure

    @property
    def size(self) -> int:
        """Number of states."""
        return int(self.leak.size)

    def method(self, columns: int = 1) -> str:
        """Name of the method for so many right-hand sides."""
        if isinstance(factor := self.factor(columns), DenseFactor):
            return "dense"
        if factor is not None:
            return "forest" if self._forest is not None else "complete"
        return "grounded" if self.measure is not None else "directed"

    def solve(self, B: Array, *, transposed: bool = False, tol: float = 1e-10) -> Array:
        """X (n, k), non-negative where B (n, k) is.

        The residual of what iterates is at most tol b_i in every row where b > 0, else tol max |b|.
        """
        if not B.size:
            return B.copy()
        if (factor := self.factor(B.shape[1])) is not None:
            return factor.solve(B, transposed=transposed)
        weights = _weights(B)
        if self.measure is None:
            X = self._by_directed(B, weights, tol, transposed=transposed)
        else:
            X = self._by_gradients(B, weights, tol, transposed=transposed)
        self._warn_if_missed(B, X, weights, tol, transposed=transposed)
        return np.where((B >= 0).all(axis=0), np.maximum(X, 0), X)

    def inverse_diagonal(self, tol: float = 1e-10) -> Array:
        """The diagonal of the inverse: from a factor, otherwise by n right-hand sides in blocks."""
        if (factor := self.factor(self.size)) is not None:
            return factor.inverse_diagonal()
        parts = []
        for first in range(0, self.size, 16):
            index = np.arange(first, min(first + 16, self.size))
            B = np.zeros((self.size, index.size))
            B[index, np.arange(index.size)] = 1
            parts.append(self.solve(B, tol=tol)[index, np.arange(index.size)])
        return np.concatenate(parts)

    # --- factors ----------------------------------------------------------------------------------------------------

    def factor(self, columns: int) -> Factor | DenseFactor | None:
        """An exact factor, where one is at hand or pays for so many right-hand sides."""
        if self.size == 0 or get_backend() == "numpy" or self._is_dense:
            return self._dense if self._is_dense or self.size <= _DENSE[1] else None
        if self._forest is not None or "_complete" in self.__dict__:
            return self._forest or self._complete
        return self._complete if self.size <= _DIRECT or columns >= _COLUMNS else None

    @property
    def _is_dense(self) -> bool:
        share, size = _DENSE
        return 64 < self.size <= size and self.A.nnz >= share * self.size**2

    @cached_property
    def _dense(self) -> DenseFactor:
        return dense_factor(self.A, self.leak)

    @cached_property
    def _forest(self) -> Factor | None:
        return forest_factor(self.A, self.leak)

    @cached_property
    def _complete(self) -> Factor | None:
        return complete_factor(self.A, self.leak)

    # --- iterations -------------------------------------------------------------------------------------------------

    @cached_property
    def measure(self) -> Array | None:
        """Makes diag(measure) A symmetric; None where nothing does."""
        m = reversing_measure(self.A)
        return m if m is not None and m.min() > _SMALLEST else None

    @cached_property
    def _laplacian(self) -> GroundedLaplacian:
        m: Any = self.measure
        C = self.A.copy()
        C.data *= np.repeat(m, np.diff(C.indptr))
        return GroundedLaplacian(C, m * self.leak)

    def _by_gradients(self, B: Array, weights: Array, tol: float, *, transposed: bool) -> Array:
        """S x = m b with S = diag(m) M; for the transpose S z = b, x = m z."""
        if get_backend() == "numpy":
            return self._by_gmres(B, weights, tol, transposed=transposed)
        m: Any = self.measure
        m = m[:, None]
        given, scaled = (B, weights) if transposed else (m * B, weights / m)
        X, worst = self._laplacian.solve(given, scaled, tol)
        if worst > tol and self._complete is not None:
            return self._complete.solve(B, transposed=transposed)
        return m * X if transposed else X

    def _by_directed(self, B: Array, weights: Array, tol: float, *, transposed: bool) -> Array:
        """With the diagonal as preconditioner where that is quick; else by a factor, complete or incomplete."""
        if get_backend() == "numpy":
            return self._by_gmres(B, weights, tol, transposed=transposed)
        n = self.size
        nothing = np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0), np.empty(0)
        jacobi, X = (*nothing, self.diagonal), np.zeros_like(B)
        size = self._stabilized(jacobi, B, X, weights, tol, _TRIAL, transposed=transposed)
        if tol < size <= _PROMISING:
            size = self._stabilized(jacobi, B, X, weights, tol, _STEPS, transposed=transposed)
        if size <= tol:
            return X
        if self._complete is not None:
            return self._complete.solve(B, transposed=transposed)
        factor, X = incomplete_factor(self.A, self.leak), np.zeros((n, B.shape[1]))
        lower, upper = (factor.upper, factor.lower) if transposed else (factor.lower, factor.upper)
        parts = factor.indptr, factor.pattern, lower, upper, factor.pivots
        o = factor.order
        X[o] = self._ordered(parts, o, B[o], weights[o], tol, transposed=transposed)
        return X

    def _by_gmres(self, B: Array, weights: Array, tol: float, *, transposed: bool) -> Array:
        """The plain reference: GMRES, started anew until every row is right or nothing moves."""
        d, A = self.diagonal[:, None], functools.partial(self._product, transposed=transposed)
        scale, reach, R, X = krylov.norms(B), tol, B, np.zeros_like(B)
        scale[scale == 0] = 1
        for _ in range(_ROUNDS):
            before = float(krylov.norms(R).max())
            watch = krylov.Watch(None, _STEPS)
            X = X + krylov.generalized_minimal_residuals(A, lambda Y: Y / d, R, scale, reach, watch)
            R = B - A(X)
            if (np.abs(R) * weights).max() <= tol or reach < tol / 100:
                break
            if float(krylov.norms(R).max()) > _STALLED * before:  # its own criterion, a norm, is met
                reach /= 10
        return X

    def _stabilized(
        self, factor: Any, B: Array, X: Array, weights: Array, tol: float, limit: int, *, transposed: bool
    ) -> float:
        """Improve the columns of X; the largest residual, row by row."""
        return _columns_stabilized(self._matrix(transposed=transposed), factor, B, X, weights, tol, limit)

    def _ordered(self, factor: Any, order: Array, B: Array, weights: Array, tol: float, *, transposed: bool) -> Array:
        """The solution with everything in the order of a factor."""
        matrix, X = self._matrix(transposed=transposed)[order][:, order], np.zeros_like(B)
        _columns_stabilized(matrix, factor, B, X, weights, tol, _STEPS)
        return X

    def _matrix(self, *, transposed: bool) -> Any:
        M = scipy.sparse.csr_array(scipy.sparse.diags_array(self.diagonal) - self.A)
        return M.T.tocsr() if transposed else M

    @cached_property
    def diagonal(self) -> Array:
        """A 1 + leak."""
        return np.asarray(self.A.sum(axis=1)).reshape(-1) + self.leak

    @cached_property
    def _transposed(self) -> Any:
        return self.A.T.tocsr()

    def _product(self, X: Array, *, transposed: bool) -> Array:
        return self.diagonal[:, None] * X - (self._transposed if transposed else self.A) @ X

    def _warn_if_missed(self, B: Array, X: Array, weights: Array, tol: float, *, transposed: bool) -> None:
        worst = float((np.abs(B - self._product(X, transposed=transposed)) * weights).max())
        floor = (
            64 * np.finfo(float).eps * float((np.abs(X).max(axis=0) * self.diagonal.max() * weights.max(axis=0)).max())
        )
        if worst > 1.01 * tol + min(floor, math.sqrt(tol)):
            msg = (
                f"the residual is {worst:.1e} of the right-hand side, above tol={tol:.1e}, for {self.size} states "
                f"({self.method(B.shape[1])}): the chain is close to reducible; raise tol, or cut the rare steps"
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=5)


def _columns_stabilized(matrix: Any, factor: Any, B: Array, X: Array, weights: Array, tol: float, limit: int) -> float:
    from structmask.backends._numba.stabilized import stabilized

    parts, worst = (matrix.indptr, matrix.indices, matrix.data), 0.0
    for c in range(B.shape[1]):
        b, x, weight = (np.ascontiguousarray(part[:, c]) for part in (B, X, weights))
        for _ in range(_RESTARTS):  # the recurrence drifts: the true residual is where the next round starts
            steps, _ = stabilized(parts, factor, b, x, weight, tol, limit)
            if steps in (0, limit):
                break
        _, size = stabilized(parts, factor, b, x, weight, tol, 0)
        X[:, c], worst = x, max(worst, size)
    return worst


def _weights(B: Array) -> Array:
    """1 / b where a column is positive, 1 / max |b| elsewhere."""
    top = np.abs(B).max(axis=0)
    positive = (B > 0).all(axis=0)
    size = np.where(positive, np.abs(B), np.where(top > 0, top, 1.0))
    weights: Array = 1 / np.broadcast_to(size, B.shape)
    return weights
