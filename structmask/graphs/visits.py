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
from structmask.graphs.elimination import DenseFactor, Factor
from structmask.graphs.stochastic import off_diagonal, row_sums
from structmask.graphs.transient import TransientSystem
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Sparse, as_csr, sparse_gradient
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Plan, Work, make_plan
from structmask.linalg.solve import solve


class Accuracy(NamedTuple):
    """What an iteration has to reach, and with which preconditioner: no generators, unlike plain numbers."""

    tol: float
    preconditioner: str = "auto"


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
        Residual of what is solved by iteration, relative to the largest entry of a column; eliminations are exact. And
        a preconditioner, as for `MarkovChain`.
    transposed : bool
        Whether this is the transposed matrix.

    Notes
    -----
    Solutions are made in double precision, whatever the operand's. On a device everything beyond 512 states is
    iterated, to a residual of `accuracy` relative to the 2-norm of a column.
    """

    transition: Any
    discount: float | complex = 1.0
    targets: tuple[int, ...] = field(default=(), kw_only=True)
    accuracy: Accuracy = field(default=Accuracy(1e-10), kw_only=True)
    transposed: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        P = as_csr(self.transition, "Visits(transition)")
        if P.shape[0] != P.shape[1]:
            msg = f"a transition matrix is square, got shape {P.shape}"
            raise ValueError(msg)
        object.__setattr__(self, "transition", P)

    @property
    def shape(self) -> tuple[int, ...]:
        n = int(self.transition.shape[0])
        return (n, n)

    def _matmat(self, X: Array) -> Array:
        xp = arrays.namespace(X)
        columns = xp.moveaxis(X, -2, 0)
        flat = xp.reshape(columns, (columns.shape[0], -1))
        Y = xp.reshape((self._eliminated if xp is np else self._iterated)(flat), columns.shape)
        kind = arrays.dtype_of(arrays.precision(X), complex_=arrays.is_complex(X) or self.dtype.kind == "c")
        return arrays.cast(xp.moveaxis(Y, 0, -2), kind)

    def _eliminated(self, X: Array) -> Array:
        """On the host, by what suits the structure of the chain."""
        Y, f = np.zeros(X.shape, np.result_type(X.dtype, np.float64, self.dtype)), self._states
        Y[f] = self._solved(np.ascontiguousarray(X[f]))
        return Y

    def _iterated(self, X: Array) -> Array:
        """On a device, by products."""
        forward, backward, free = self._restricted
        return free * solve(backward if self.transposed else forward, free * X, tol=self.accuracy.tol)

    def _solved(self, B: Array) -> Array:
        if np.iscomplexobj(B) and self.dtype.kind != "c":
            both = self._solved(np.concatenate([B.real, B.imag], axis=1))
            return both[:, : B.shape[1]] + 1j * both[:, B.shape[1] :]
        if self._system is None:
            return self._general.solve(B.astype(self._kind), trans="T" if self.transposed else "N")
        return self._system.solve(B.astype(np.float64), transposed=self.transposed, tol=self.accuracy.tol)

    def transpose(self) -> Visits:
        other = dataclasses.replace(self, transposed=not self.transposed)
        for plan in ("_states", "_system", "_general", "_restricted", "_pattern"):  # one factor serves both
            if plan in self.__dict__:
                other.__dict__[plan] = self.__dict__[plan]
        return other

    def _place(self, width: str, target: str) -> Self:
        """In double precision as it is: what is close to singular needs every digit."""
        if target == arrays.home(self.transition):
            return self
        other = dataclasses.replace(self, transition=arrays.move(self.transition, target))
        if arrays.home(self.transition) == "numpy":
            other.__dict__["_host"] = self.transition
        return other

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """As dM = M d(g P) M, with U = M^H G and V = M X: g U V^H at the pattern of P, and <U, P V>."""
        xp, P, width = arrays.namespace(X), self.transition, arrays.precision(X)
        G, X = (xp.moveaxis(A, -2, 0) for A in xp.broadcast_arrays(G, X))
        G, X = (xp.reshape(A, (A.shape[0], -1)) for A in (G, X))
        V = self._matmat(X)  # first: its plans serve the transposed matrix, too
        U = arrays.conj(self.transpose()._matmat(arrays.conj(G)))
        if self.transposed:
            U, V = arrays.conj(V), arrays.conj(U)
        complex_ = arrays.is_complex(self.discount)
        g = np.conj(self.discount)
        d_transition = sparse_gradient(P, self._pattern._rows, g * U, V)
        d_g = xp.sum(U * arrays.conj(P @ V))
        kind = arrays.dtype_of(width, complex_=arrays.is_complex(P))
        d_g = d_g if complex_ or not arrays.is_complex(d_g) else xp.real(d_g)
        return {
            "transition": arrays.cast(d_transition, kind),
            "discount": arrays.cast(d_g, arrays.dtype_of(width, complex_=complex_)),
        }

    # --- the system -------------------------------------------------------------------------------------------------

    @cached_property
    def _host(self) -> Any:
        """P on the host, from where the structure of the chain is read."""
        return arrays.to_numpy(self.transition)

    @cached_property
    def _free(self) -> Array:
        """One (n, 1) at the states that are no targets, zero at those that are."""
        free = np.ones((self.shape[0], 1))
        free[list(self.targets)] = 0
        return free

    @cached_property
    def _pattern(self) -> Sparse:
        """P with its own plans."""
        return Sparse(self.transition)

    @cached_property
    def _states(self) -> Array:
        """The states that are no targets."""
        return np.flatnonzero(self._free)

    @cached_property
    def _restricted(self) -> tuple[Sparse, Sparse, Array]:
        """I - g P_ff and the identity on the targets, the transposed matrix, and `_free`, where P lives."""
        free = scipy.sparse.diags_array(self._free[:, 0])
        P = free @ self._host.astype(self._kind) @ free
        Q = scipy.sparse.csr_array(scipy.sparse.eye_array(self.shape[0]) - self.discount * P)
        forward, backward, free = (arrays.move(a, arrays.home(self.transition)) for a in (Q, Q.T.tocsr(), self._free))
        return Sparse(forward), Sparse(backward), free

    @cached_property
    def _system(self) -> TransientSystem | None:
        """I - g P_ff by its off-diagonal entries and what leaves; None for what is no walk."""
        if self.dtype.kind == "c" or not np.real(self.discount) > 0 or (self._host.data < 0).any():
            return None
        f, P, g = self._states, self._host.astype(np.float64), float(np.real(self.discount))
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
        return TransientSystem(A, leak, preconditioner=self.accuracy.preconditioner)

    @cached_property
    def _general(self) -> Any:
        f = self._states
        matrix = scipy.sparse.eye_array(f.size) - self.discount * self._host.astype(self._kind)[f][:, f]
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
        return self._method(1)

    @property
    def error_bound(self) -> float:
        """In the norm max |x|; zero for eliminations, nan where the walk may take long and the system is iterated."""
        is_exact = self._system is None or self._system.factor(1) is not None
        if is_exact and not self._is_iterated:
            return 0.0
        g = float(np.real(self.discount))
        if self._system is None or self.transposed or g >= 1:
            return math.nan
        return self.accuracy.tol / (1 - g) * (math.sqrt(self.shape[0]) if self._is_iterated else 1.0)

    @property
    def error_estimate(self) -> float:
        bound = self.error_bound
        return self.accuracy.tol if math.isnan(bound) else bound

    def _method(self, columns: int) -> str:
        if self._is_iterated:
            return "krylov"
        return "lu" if self._system is None else self._system.method(columns)

    @property
    def _is_iterated(self) -> bool:
        """Whether products are made by products: on a device."""
        return arrays.home(self.transition) != "numpy"

    def _work(self, columns: int) -> Work:
        factor: Factor | DenseFactor | None = None if self._system is None else self._system.factor(columns)
        steps = 1.0 if factor is not None else 60.0
        count = factor.operations if factor is not None else 4.0 * self.transition.nnz + 20.0 * self.shape[0]
        return Work(scan=steps * count * columns, calls=1)

    def _plan(self, columns: int) -> Plan:
        work = [(self._method(columns), self._work(columns))]
        return make_plan(repr(self), columns, work, home="numpy", precision=arrays.precision(self))
