"""Expected discounted visits of a walk before it meets its targets: the inverse of a matrix, as a matrix.

    M = (I - g P_ff)^-1 = sum_t g^t P_ff^t        zero in the rows and columns of targets, f being the other states

M_ij is how often a walk from i is at j, a visit at step t counting g^t: the fundamental matrix of an absorbed chain
(g = 1), the resolvent or personalised PageRank times 1 / (1 - g) (no targets). A product is a solution of a sparse
system, whatever M has entries (all of them, mostly); dM = M d(g P) M gives the gradients.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.config import BackendError
from structmask.graphs.elimination import DenseFactor, Factor
from structmask.graphs.stochastic import off_diagonal, row_sums
from structmask.graphs.transient import TransientSystem
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Sparse, as_csr, sparse_gradient
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Plan, Work, make_plan


class Accuracy(NamedTuple):
    """What an iteration has to reach: no generator, unlike a plain number."""

    tol: float


@dataclass(frozen=True, eq=False, repr=False)
class Visits(StructuredMatrix):
    """(I - discount P_ff)^-1 on the states f that are no targets, zero elsewhere.

    `MarkovChain.visits` and `MarkovChain.discounted_visits` make one and check it.

    Parameters
    ----------
    transition : sparse (n, n)
        P, non-negative with row sums of at most one as a rule; anything with a non-singular I - discount P_ff works,
        by LU factors.
    discount : float
        g in (0, 1].
    targets : tuple of int
        States at which the walk stops.
    accuracy : Accuracy
        Residual of what is solved by iteration, relative to the largest entry of a column; eliminations are exact.
    transposed : bool
        Whether this is the transposed matrix.

    Notes
    -----
    Solutions are made in double precision, whatever the operand's.
    """

    transition: Any
    discount: float | complex = 1.0
    targets: tuple[int, ...] = field(default=(), kw_only=True)
    accuracy: Accuracy = field(default=Accuracy(1e-10), kw_only=True)
    transposed: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        P = as_csr(self.transition, "Visits(transition)")
        if arrays.home(P) != "numpy":
            msg = "visits are solved for on the host: pass transition.get(), and use_backend('auto')"
            raise BackendError(msg)
        if P.shape[0] != P.shape[1]:
            msg = f"a transition matrix is square, got shape {P.shape}"
            raise ValueError(msg)
        object.__setattr__(self, "transition", P)

    @property
    def shape(self) -> tuple[int, ...]:
        n = int(self.transition.shape[0])
        return (n, n)

    def _matmat(self, X: Array) -> Array:
        columns = np.moveaxis(X, -2, 0)
        flat = columns.reshape(columns.shape[0], -1)
        Y = np.zeros(flat.shape, np.result_type(flat.dtype, np.float64, self.dtype))
        f = self._states
        Y[f] = self._solved(np.ascontiguousarray(flat[f]))
        kind = arrays.dtype_of(arrays.precision(X), complex_=arrays.is_complex(X) or self.dtype.kind == "c")
        return np.moveaxis(Y.reshape(columns.shape), 0, -2).astype(kind)

    def _solved(self, B: Array) -> Array:
        if np.iscomplexobj(B) and self.dtype.kind != "c":
            both = self._solved(np.concatenate([B.real, B.imag], axis=1))
            return both[:, : B.shape[1]] + 1j * both[:, B.shape[1] :]
        if self._system is None:
            return self._general.solve(B.astype(self._kind), trans="T" if self.transposed else "N")
        return self._system.solve(B.astype(np.float64), transposed=self.transposed, tol=self.accuracy.tol)

    def transpose(self) -> Visits:
        other = dataclasses.replace(self, transposed=not self.transposed)
        for plan in ("_states", "_system", "_general"):  # one factor serves both
            if plan in self.__dict__:
                other.__dict__[plan] = self.__dict__[plan]
        return other

    def _place(self, width: str, target: str) -> Self:
        """As it is: what is close to singular needs every digit."""
        if target != "numpy":
            msg = "visits are solved for on the host: pass the operand as structmask.to_numpy(x)"
            raise BackendError(msg)
        return self

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """As dM = M d(g P) M, with U = M^H G and V = M X: g U V^H at the pattern of P, and <U, P V>."""
        G, X = (np.moveaxis(A, -2, 0).reshape(A.shape[-2], -1) for A in np.broadcast_arrays(G, X))
        U, V = self.mH._matmat(G), self._matmat(X)
        if self.transposed:
            U, V = V.conj(), U.conj()
        P, width = self.transition, arrays.precision(X)
        complex_ = arrays.is_complex(self.discount)
        g = np.conj(self.discount)
        d_transition = sparse_gradient(P, Sparse(P)._rows, g * U, V)
        d_g = np.vdot(P @ V, U)
        kind = arrays.dtype_of(width, complex_=arrays.is_complex(P))
        discount = np.asarray(d_g if complex_ else d_g.real, dtype=arrays.dtype_of(width, complex_=complex_))
        return {"transition": d_transition.astype(kind), "discount": discount}

    # --- the system -------------------------------------------------------------------------------------------------

    @cached_property
    def _states(self) -> Array:
        """The states that are no targets."""
        free = np.ones(self.shape[0], dtype=bool)
        free[list(self.targets)] = False
        return np.flatnonzero(free)

    @cached_property
    def _system(self) -> TransientSystem | None:
        """I - g P_ff by its off-diagonal entries and what leaves; None for what is no walk."""
        if self.dtype.kind == "c" or not np.real(self.discount) > 0 or (self.transition.data < 0).any():
            return None
        f, P, g = self._states, self.transition.astype(np.float64), float(np.real(self.discount))
        lost = 1 - row_sums(P)  # rows that sum to one do so up to rounding
        lost[np.abs(lost) <= 4 * np.finfo(float).eps * (2 + np.diff(P.indptr))] = 0
        rows = P[f]
        stop = rows @ np.isin(np.arange(self.shape[0]), self.targets).astype(float)
        leak = (1 - g) + g * (lost[f] + stop)
        if f.size and ((leak < 0).any() or not (leak > 0).any()):
            return None
        A = off_diagonal(rows[:, f])
        A.data *= g
        A.sort_indices()
        return TransientSystem(A, leak)

    @cached_property
    def _general(self) -> Any:
        f = self._states
        matrix = scipy.sparse.eye_array(f.size) - self.discount * self.transition.astype(self._kind)[f][:, f]
        return splu(scipy.sparse.csc_array(matrix).astype(self._kind))

    @property
    def _kind(self) -> Any:
        return np.complex128 if self.dtype.kind == "c" else np.float64

    def inverse_diagonal(self) -> Array:
        """M_ii (n,), by selected inversion of the factor: O(n) on a forest."""
        d = np.zeros(self.shape[0])
        if self._system is None:
            d[self._states] = np.diagonal(self._general.solve(np.eye(self._states.size)))
        elif self._states.size:
            d[self._states] = self._system.inverse_diagonal(self.accuracy.tol)
        return d

    # --- what is known of it ----------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """How a product with one column is computed."""
        return "lu" if self._system is None else self._system.method()

    @property
    def error_bound(self) -> float:
        """In the norm max |x|; zero for eliminations, nan where the walk may take long and the system is iterated."""
        if self._system is None or self._system.factor(1) is not None:
            return 0.0
        g = float(np.real(self.discount))
        return math.nan if self.transposed or g >= 1 else self.accuracy.tol / (1 - g)

    @property
    def error_estimate(self) -> float:
        bound = self.error_bound
        return self.accuracy.tol if math.isnan(bound) else bound

    def _work(self, columns: int) -> Work:
        factor: Factor | DenseFactor | None = None if self._system is None else self._system.factor(columns)
        steps = 1.0 if factor is not None else 60.0
        count = factor.operations if factor is not None else 4.0 * self.transition.nnz + 20.0 * self.shape[0]
        return Work(scan=steps * count * columns, calls=1)

    def _plan(self, columns: int) -> Plan:
        name = "lu" if self._system is None else self._system.method(columns)
        work = [(name, self._work(columns))]
        return make_plan(repr(self), columns, work, home="numpy", precision=arrays.precision(self))
