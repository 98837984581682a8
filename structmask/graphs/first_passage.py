"""First passage: the time T until a walk meets its targets, by conditioning on the first step.

With f the states that are no targets, A the rates (or probabilities) of the steps, and L = diag(A 1) - A,

    E[T]            L_ff h = 1                                  infinite where a target may be missed
    P(T < inf)      L_ff p = A_f,targets 1                      the smallest non-negative solution
    E[exp(-s T)]    (s + L_ff) g = A_f,targets 1                for jumps at rates; exp(s) - 1 in place of s for steps
    E[T^k]          L_ff m_k = k m_k-1                          for rates; binomial sums for steps

Theorem (first-step analysis). On the states that reach a target surely L_ff is non-singular and the solutions above are
the expectations. Which states these are is a matter of reachability alone: every other value is 0, 1 or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends.arrays import Array
from structmask.graphs.markov_classes import can_reach
from structmask.graphs.stochastic import scaled_rows
from structmask.graphs.transient import TransientSystem
from structmask.graphs.uniformisation import expected


@dataclass(frozen=True, eq=False)
class FirstPassage:
    """The way to `targets` by steps `A` (csr_array without a diagonal), absorbed in `avoid`.

    `measure` makes A symmetric, if known; `is_irreducible` spares the search for states that miss the targets;
    `preconditioner` is as in `transient`.
    """

    A: Any
    targets: Array
    avoid: Array
    measure: Array | None = None
    is_irreducible: bool = False
    preconditioner: str = "auto"

    @cached_property
    def is_free(self) -> Array:
        """Mask of the states that are neither targets nor avoided."""
        free = np.ones(self.A.shape[0], dtype=bool)
        free[self.targets] = free[self.avoid] = False
        return free

    @cached_property
    def is_possible(self) -> Array:
        """Mask of the free states that can reach a target."""
        if self.is_irreducible and not self.avoid.size:
            return self.is_free
        return can_reach(self.A, self.targets, self.is_free) & self.is_free

    @cached_property
    def is_certain(self) -> Array:
        """Mask of the free states that reach a target with probability one: they cannot get to where it is missed."""
        missed = self.is_free & ~self.is_possible
        missed[self.avoid] = True
        if not missed.any():
            return self.is_possible
        return self.is_possible & ~can_reach(self.A, np.flatnonzero(missed), self.is_free)

    # --- solutions --------------------------------------------------------------------------------------------------

    def times(self, tol: float) -> Array:
        """E[T] (n,)."""
        h = np.full(self.A.shape[0], np.inf)
        h[self.targets] = 0
        system = self._certain_system
        h[self.is_certain] = system.solve(np.ones((system.size, 1)), tol=tol)[:, 0]
        return h

    def probabilities(self, tol: float) -> Array:
        """P(T < inf) (n,)."""
        p = np.zeros(self.A.shape[0])
        p[self.targets] = p[self.is_certain] = 1
        f = self.is_possible & ~self.is_certain
        into = (self.A @ p)[f, None]
        p[f] = np.clip(self._system(f).solve(into, tol=tol)[:, 0], 0, 1)
        return p

    def transform(self, s: float, tol: float) -> Array:
        """E[exp(-s T)] (n,) for steps at rates, s >= 0."""
        if s == 0:
            return self.probabilities(tol)
        g = np.zeros(self.A.shape[0])
        g[self.targets] = 1
        if math.isinf(s):
            return g
        f = self.is_possible
        into = (self.A @ g)[f, None]
        g[f] = np.clip(self._system(f, s).solve(into, tol=tol)[:, 0], 0, 1)
        return g

    def moments(self, order: int, stay: Array | None, tol: float) -> Array:
        """E[T^k] (order, n) for k = 1 ... order; `stay` (n,) are the probabilities to stay, for steps, None for rates.

        For steps E[(1 + T')^k] gives L_ff m_k = 1 + sum_{0 < j < k} binomial(k, j) P_ff m_j: no sign but plus.
        """
        m = np.full((order, self.A.shape[0]), np.inf)
        m[:, self.targets] = 0
        f, system = np.flatnonzero(self.is_certain), self._certain_system
        for k in range(1, order + 1):
            b = np.ones(f.size) if k == 1 or stay is not None else k * m[k - 2, f]
            for j in range(1, k if stay is not None else 1):
                b += math.comb(k, j) * (system.A @ m[j - 1, f] + stay[f] * m[j - 1, f])  # type: ignore[index]
            m[k - 1, f] = system.solve(b[:, None], tol=tol)[:, 0]
        return m

    @cached_property
    def _certain_system(self) -> TransientSystem:
        return self._system(self.is_certain)

    def _system(self, mask: Array, killing: float = 0.0) -> TransientSystem:
        """The walk among the states of a mask, which leaves for all others."""
        return TransientSystem(self.A, np.full(mask.size, killing), self.measure, mask, self.preconditioner)


def passage_distribution(P: Any, targets: Array, steps: int) -> Array:
    """P(T = t) (steps + 1, n) for t = 0 ... steps of a chain with transition matrix P."""
    n = P.shape[0]
    f = np.ones((n, 1))
    f[targets] = 0
    distribution = np.zeros((steps + 1, n))
    distribution[0, targets] = 1
    for t in range(1, steps + 1):
        distribution[t] = P @ distribution[t - 1] * f[:, 0]
    return np.clip(distribution, 0, 1)


def passage_by_times(A: Any, targets: Array, times: Array, tol: float) -> Array:
    """P(T <= t) (times, n) for jumps at rates A: exp(tQ) for the targets' indicator, where targets are never left."""
    inside = np.zeros(A.shape[0])
    inside[targets] = 1
    absorbed = scaled_rows(A, 1 - inside).copy()  # which shared the places of A
    absorbed.eliminate_zeros()
    distribution, reached, last = np.empty((times.size, A.shape[0])), inside[:, None], 0.0
    for i in np.argsort(times):
        reached = expected(absorbed, reached, float(times[i]) - last, None, tol / times.size)
        distribution[i], last = reached[:, 0], float(times[i])
    distribution[:, targets] = 1
    return distribution


def over_rates(s: Any, function: Callable[[float], Array]) -> Array:
    """function(s) for a number s >= 0, or for each of an array, stacked in front."""
    rates = np.asarray(s, dtype=np.float64)
    if not (rates >= 0).all():
        msg = f"the transform takes real s >= 0, got {s!r}"
        raise ValueError(msg)
    return np.stack([function(float(one)) for one in rates.ravel()]).reshape(*rates.shape, -1)
