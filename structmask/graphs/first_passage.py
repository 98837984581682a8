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

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.markov_classes import can_reach
from structmask.graphs.stochastic import scaled_rows
from structmask.graphs.transient import TransientSystem, completed
from structmask.graphs.uniformisation import Clock, expected


@dataclass(frozen=True, eq=False)
class FirstPassage:
    """The way to `targets` by steps `A` (csr_array without a diagonal), absorbed in `avoid`.

    `measure` makes A symmetric, if known; `is_irreducible` spares the search for states that miss the targets;
    `preconditioner` is as in `transient`; what iterates does so in `home`. Solutions live where they are made.
    """

    A: Any
    targets: Array
    avoid: Array
    measure: Array | None = None
    is_irreducible: bool = False
    preconditioner: str = "auto"
    home: str = "numpy"

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
        return completed(h, self.is_certain, self._solved(system, np.ones(system.size), tol))

    def probabilities(self, tol: float) -> Array:
        """P(T < inf) (n,)."""
        p = np.zeros(self.A.shape[0])
        p[self.targets] = p[self.is_certain] = 1
        f = self.is_possible & ~self.is_certain
        return completed(p, f, _clipped(self._solved(self._system(f), (self.A @ p)[f], tol)))

    def transform(self, s: float, tol: float) -> Array:
        """E[exp(-s T)] (n,) for steps at rates, s >= 0."""
        if s == 0:
            return self.probabilities(tol)
        g = np.zeros(self.A.shape[0])
        g[self.targets] = 1
        if math.isinf(s):
            return g
        f = self.is_possible
        return completed(g, f, _clipped(self._solved(self._system(f, s), (self.A @ g)[f], tol)))

    def moments(self, order: int, stay: Array | None, tol: float) -> Array:
        """E[T^k] (order, n) for k = 1 ... order; `stay` (n,) are the probabilities to stay, for steps, None for rates.

        For steps E[(1 + T')^k] gives L_ff m_k = 1 + sum_{0 < j < k} binomial(k, j) P_ff m_j: no sign but plus.
        """
        base = np.full(self.A.shape[0], np.inf)
        base[self.targets] = 0
        system, found = self._certain_system, list[Array]()
        one = arrays.move(np.ones((system.size, 1)), system.home(self.home))
        own = None if stay is None else arrays.move(stay[self.is_certain, None], arrays.home(one))
        for k in range(1, order + 1):
            b = one if k == 1 or own is not None else k * found[-1]
            for j in range(1, k if own is not None else 1):
                b = b + math.comb(k, j) * (system.stepped(found[j - 1]) + own * found[j - 1])
            found.append(system.solve(b, tol=tol))
        m = [completed(base.copy(), self.is_certain, x[:, 0]) for x in found]
        return arrays.namespace(one).stack(m)

    def _solved(self, system: TransientSystem, b: Array, tol: float) -> Array:
        """The solution (size,) where it is made."""
        return system.solve(arrays.move(b[:, None], system.home(self.home)), tol=tol)[:, 0]

    @cached_property
    def _certain_system(self) -> TransientSystem:
        return self._system(self.is_certain)

    def _system(self, mask: Array, killing: float = 0.0) -> TransientSystem:
        """The walk among the states of a mask, which leaves for all others."""
        return TransientSystem(self.A, np.full(mask.size, killing), self.measure, mask, self.preconditioner)


def passage_distribution(step: Callable[[Array], Array], free: Array, steps: int) -> Array:
    """P(T = t) (steps + 1, n) for t = 0 ... steps, from products with P and the mask `free` (n, 1) of no targets."""
    found, p = arrays.namespace(free).empty((steps + 1, free.shape[0]), dtype=free.dtype), 1 - free
    for t in range(steps + 1):  # there is room for all, or the first line has said how much it would take
        p = step(p) * free if t else p
        found[t, :] = p[:, 0]
    return _clipped(found)


def passage_by_times(A: Any, targets: Array, times: Array, tol: float, home: str) -> Array:
    """P(T <= t) (times, n) for jumps at rates A: exp(tQ) for the targets' indicator, where targets are never left."""
    inside = np.zeros((A.shape[0], 1))
    inside[targets] = 1
    absorbed = scaled_rows(A, 1 - inside[:, 0]).copy()  # which shared the places of A
    absorbed.eliminate_zeros()
    clock, arrived = Clock(absorbed, functions=True), arrays.move(inside, home)
    reached, last, found = arrived, 0.0, {}
    for i in map(int, np.argsort(times)):
        reached = expected(clock, reached, float(times[i]) - last, None, tol / times.size)
        reached, last = arrays.namespace(reached).maximum(reached, arrived), float(times[i])
        found[i] = reached[:, 0]
    return arrays.namespace(arrived).stack([found[i] for i in range(times.size)])


def over_rates(s: Any, function: Callable[[float], Array]) -> Array:
    """function(s) for a number s >= 0, or for each of an array, stacked in front."""
    rates = np.asarray(arrays.to_numpy(s), dtype=np.float64)
    if not rates.size or not (rates >= 0).all():
        msg = f"the transform takes real s >= 0, one at least, got {s!r}"
        raise ValueError(msg)
    found = [function(float(one)) for one in rates.ravel()]
    return arrays.namespace(found[0]).stack(found).reshape(*rates.shape, -1)


def _clipped(p: Array) -> Array:
    """Probabilities, which rounding may have taken out of [0, 1]."""
    return arrays.namespace(p).clip(p, 0, 1)
