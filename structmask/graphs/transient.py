"""What a walk does before it leaves for good: solutions of (diag(A 1 + leak) - A) x = b, the method by the structure.

    forest      steps without a cycle: elimination, O(n)
    complete    elimination by minimum degree, where it fills little (or the chain is small)
    dense       the same, rows at once
    grounded    reversible, few right-hand sides: conjugate gradients on the grounded Laplacian
    gmres       everything else: with the diagonal for a while, then by a factor, complete or incomplete

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
_ROUNDS = 4
_TRIAL, _STEPS = 100, 5000  # iterations of GMRES with Jacobi's preconditioner at first, and in all


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
        return "grounded" if self.measure is not None else "gmres"

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
            X = self._by_gmres(B, weights, tol, transposed=transposed)
        else:
            X = self._by_gradients(B, weights, tol, transposed=transposed)
        self._warn_if_missed(B, X, weights, tol, transposed=transposed)
        return np.where((B >= 0).all(axis=0), np.maximum(X, 0), X)

    def inverse_diagonal(self) -> Array:
        """The diagonal of the inverse: from a factor, otherwise by n right-hand sides in blocks."""
        if (factor := self.factor(self.size)) is not None:
            return factor.inverse_diagonal()
        parts = []
        for first in range(0, self.size, 16):
            index = np.arange(first, min(first + 16, self.size))
            B = np.zeros((self.size, index.size))
            B[index, np.arange(index.size)] = 1
            parts.append(self.solve(B)[index, np.arange(index.size)])
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

    def _by_gmres(self, B: Array, weights: Array, tol: float, *, transposed: bool) -> Array:
        """Jacobi's preconditioner for a while; then a factor, however dear, or an incomplete one."""
        diagonal = self.diagonal[:, None]
        is_reference = get_backend() == "numpy"
        trial = _STEPS if is_reference else _TRIAL
        X, is_done = self._rounds(B, weights, lambda Y: Y / diagonal, tol, trial, transposed=transposed)
        if is_done or is_reference:
            return X
        if self._complete is not None:
            return self._complete.solve(B, transposed=transposed)
        factor = incomplete_factor(self.A, self.leak)
        precondition = functools.partial(factor.solve, transposed=transposed)
        return self._rounds(B, weights, precondition, tol, _STEPS, transposed=transposed)[0]

    def _rounds(
        self, B: Array, weights: Array, P: krylov.Block, tol: float, limit: int, *, transposed: bool
    ) -> tuple[Array, bool]:
        """GMRES until the residual is small enough in every row, its own criterion being a norm; and whether it is."""
        A = functools.partial(self._product, transposed=transposed)
        scale, X, R, reach, watch = krylov.norms(B), np.zeros_like(B), B, tol, krylov.Watch(None, limit)
        scale[scale == 0] = 1
        for _ in range(_ROUNDS):
            X = X + krylov.generalized_minimal_residuals(A, P, R, scale, reach, watch)
            R = B - A(X)
            if (np.abs(R) * weights).max() <= tol:
                return X, True
            if watch.is_over:
                break
            reach = max(0.1 * reach, 1e-15)
        return X, False

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


def _weights(B: Array) -> Array:
    """1 / b where a column is positive, 1 / max |b| elsewhere."""
    top = np.abs(B).max(axis=0)
    positive = (B > 0).all(axis=0)
    size = np.where(positive, np.abs(B), np.where(top > 0, top, 1.0))
    weights: Array = 1 / np.broadcast_to(size, B.shape)
    return weights
