"""What a walk does before it leaves for good: solutions of (diag(A 1 + leak) - A) x = b, the method by the structure.

    forest      steps without a cycle: elimination, O(n)
    complete    elimination by minimum degree, where it fills little (or the chain is small)
    dense       the same, rows at once
    grounded    reversible, few right-hand sides: conjugate gradients on the grounded Laplacian
    directed    everything else: stabilised biconjugate gradients, with the diagonal for a while, then with a factor

The eliminations subtract nothing (`elimination`), so that they need no check; what iterates is checked in the end.
They run on the host. On a device the system is iterated with its products and its diagonal.

Theorem. M = diag(A 1 + leak) - A has a non-negative inverse. If b > 0 and |b - M x| <= t b entrywise, then every entry
of x is off by the factor t at most: |x - M^-1 b| <= M^-1 |b - M x| <= t M^-1 b.
"""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays, chain_kernels, kernels
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.graphs.elimination import (
    DenseFactor,
    Factor,
    complete_factor,
    dense_factor,
    forest_factor,
)
from structmask.graphs.grounded import GroundedLaplacian
from structmask.graphs.markov_classes import reversing_measure
from structmask.graphs.transient_iterations import Asked, ways
from structmask.linalg.convergence import ConvergenceWarning

_DIRECT = 1500  # states up to which a factor is made whatever is asked
_DENSE = 0.2, 1500  # share of entries from which, and states up to which, the factor is dense
_COLUMNS = 3  # right-hand sides from which a factor pays
_SMALLEST = 1e-100  # of a reversing measure: beyond, the symmetric form is not a form to compute in


class TransientSystem:
    """diag(A 1 + leak) - A for csr_array A (n, n) >= 0 without a diagonal and leak (n,) >= 0.

    From every state there is a way to one that leaks.

    Parameters
    ----------
    A, leak
        The walk.
    measure : array (n,), optional
        Makes diag(measure) A symmetric, where that is known beforehand.
    is_kept : array (n,), optional
        Mask of the states that the system is about: it leaves for all others too.
    preconditioner : str
        "auto", or a name in `transient_iterations`: then the system is iterated with it, whatever its structure.
    """

    def __init__(
        self,
        A: Any,
        leak: Array,
        measure: Array | None = None,
        is_kept: Array | None = None,
        preconditioner: str = "auto",
    ) -> None:
        self._whole, self._measure, self.preconditioner = (A, leak, is_kept), measure, preconditioner
        self.size = int(leak.size if is_kept is None else np.count_nonzero(is_kept))

    @property
    def A(self) -> Any:
        """Steps among the states of the system, csr_array (size, size)."""
        return self._inside[0]

    @property
    def leak(self) -> Array:
        """Rates (size,) of leaving them for good."""
        return self._inside[1]

    @cached_property
    def _inside(self) -> tuple[Any, Array]:
        A, leak, is_kept = self._whole
        return (A, leak) if is_kept is None else chain_kernels.restricted(A, leak, is_kept)

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
        if 0 in B.shape:
            return B.copy()
        if arrays.home(B) == "numpy" and (factor := self.factor(B.shape[1])) is not None:
            return factor.solve(B, transposed=transposed)
        xp = arrays.namespace(B)
        asked, X, worst = Asked(B, _weights(B), tol, transposed), xp.zeros_like(B), math.inf
        for way in ways(self.preconditioner, arrays.home(B), is_reversible=self.measure is not None):
            if (found := way(self, asked)) is not None:
                X, worst = found
            if worst <= tol:
                break
        self._warn_if_missed(X, asked)
        return xp.where(xp.all(B >= 0, axis=0), xp.maximum(X, xp.zeros_like(X)), X)

    def home(self, wanted: str, columns: int = 1) -> str:
        """Where to solve: a factor, and every preconditioner but the diagonal, is the host's."""
        if self.preconditioner not in ("auto", "jacobi") or self.factor(columns) is not None:
            return "numpy"
        return wanted

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
        """An exact factor, where one is at hand or pays for so many right-hand sides and nothing else is asked for."""
        if self.preconditioner != "auto" and self.size:
            return None
        if self.size == 0 or get_backend() == "numpy" or self._is_dense:
            return self._dense if self._is_dense or self.size <= _DENSE[1] else None
        if self._forest is not None or "complete" in self.__dict__:
            return self._forest or self.complete
        return self.complete if self.size <= _DIRECT or columns >= _COLUMNS else None

    @property
    def _is_dense(self) -> bool:
        share, size = _DENSE
        return 64 < self.size <= size and self.A.nnz >= share * self.size**2

    @cached_property
    def _dense(self) -> DenseFactor:
        return dense_factor(self.A, self.leak)

    @cached_property
    def _forest(self) -> Factor | None:
        return forest_factor(*self._whole)

    @cached_property
    def complete(self) -> Factor | None:
        """The factor by minimum degree; None where it fills in."""
        return complete_factor(self.A, self.leak)

    # --- the matrix -------------------------------------------------------------------------------------------------

    @cached_property
    def measure(self) -> Array | None:
        """Makes diag(measure) A symmetric; None where nothing does."""
        if (m := self._measure) is not None:
            return m if self._whole[-1] is None else m[self._whole[-1]]
        m = reversing_measure(self.A)
        return m if m is not None and m.min() > _SMALLEST else None

    @cached_property
    def laplacian(self) -> GroundedLaplacian:
        """diag(measure) times the matrix."""
        m: Any = self.measure
        C = self.A.copy()
        C.data *= np.repeat(m, np.diff(C.indptr))
        return GroundedLaplacian(C, m * self.leak)

    @cached_property
    def diagonal(self) -> Array:
        """A 1 + leak."""
        return np.asarray(self.A.sum(axis=1)).reshape(-1) + self.leak

    @cached_property
    def _transposed(self) -> Any:
        return self.A.T.tocsr()

    def product(self, X: Array, *, transposed: bool = False) -> Array:
        """The matrix, or its transpose, times X (n, k)."""
        diagonal = arrays.placed(self, "diagonal", arrays.home(X))
        return diagonal[:, None] * X - self.stepped(X, transposed=transposed)

    def stepped(self, X: Array, *, transposed: bool = False) -> Array:
        """A, or its transpose, times X (n, k), where X is."""
        A = arrays.placed(self, "_transposed" if transposed else "A", arrays.home(X))
        return kernels.csr_product(A, A.data, X)

    def _warn_if_missed(self, X: Array, asked: Asked) -> None:
        B, weights, tol, transposed = asked
        xp = arrays.namespace(B)
        worst = float(xp.max(xp.abs(B - self.product(X, transposed=transposed)) * weights))
        largest = xp.max(xp.abs(X), axis=0) * float(self.diagonal.max()) * xp.max(weights, axis=0)
        floor = 64 * np.finfo(float).eps * float(xp.max(largest))
        if worst > 1.01 * tol + min(floor, math.sqrt(tol)):
            msg = (
                f"the residual is {worst:.1e} of the right-hand side, above tol={tol:.1e}, for {self.size} states "
                f"({self.method(B.shape[1])}): the chain is close to reducible; raise tol, or cut the rare steps"
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=5)


def completed(values: Array, states: Array, x: Array) -> Array:
    """Values (n,) on the host, with x (size,) at some states, by a mask or by indices, where x is."""
    index = np.flatnonzero(states) if states.dtype == bool else states
    values, index = (arrays.move(a, arrays.home(x)) for a in (values, index))
    values[index] = x
    return values


def _weights(B: Array) -> Array:
    """1 / b where a column is positive, 1 / max |b| elsewhere."""
    xp = arrays.namespace(B)
    top = xp.max(xp.abs(B), axis=0)
    size = xp.where(xp.all(B > 0, axis=0), xp.abs(B), xp.where(top > 0, top, xp.ones_like(top)))
    return 1 / xp.broadcast_to(size, B.shape)
