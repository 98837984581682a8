"""MarkovChain: steps between states, and what can be asked of them. Each method is a line; the theory is beside it.

`markov_classes` (what reachability decides), `first_passage`, `stationary`, `visits`, `resistance`, and below them all
`transient`, one kind of system with its solvers.
"""

from __future__ import annotations

import math
import operator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs import resistance
from structmask.graphs.adjacency import undirected
from structmask.graphs.first_passage import FirstPassage, passage_distribution
from structmask.graphs.markov_classes import Classes, class_period, communicating_classes, reversing_measure
from structmask.graphs.resistance import Estimate
from structmask.graphs.simulation import simulated_walks
from structmask.graphs.stationary import stationary_distribution
from structmask.graphs.stochastic import (
    as_distribution,
    as_indices,
    as_states,
    as_transition,
    as_values,
    off_diagonal,
    row_sums,
    scaled_rows,
)
from structmask.graphs.visits import Accuracy, Visits
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Diagonal

_TOL = 1e-10
_NONE = np.zeros(0, np.int64)
_FAR = 700.0  # exp(-s) is as good as zero beyond


class Walk:
    """What chains and processes share: everything that depends on the way and not on the clock."""

    _A: Any  # steps i -> j, i != j: probabilities or rates, csr_array in double precision
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Number of states."""
        return int(self._A.shape[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size} states, {self._A.nnz} steps, {self.dtype})"

    # --- what reachability decides ----------------------------------------------------------------------------------

    def classes(self) -> Classes:
        """Communicating classes: `labels`, `is_recurrent`, and the states of the `recurrent` ones."""
        return self._classes

    @cached_property
    def _classes(self) -> Classes:
        return communicating_classes(self._A)

    def is_reversible(self) -> bool:
        """Whether some measure m > 0 has m_i P_ij = m_j P_ji for all steps, up to rounding."""
        return self._measure is not None

    @cached_property
    def _measure(self) -> Array | None:
        """Makes diag(measure) A symmetric."""
        return reversing_measure(self._A)

    def _passage(self, targets: Any, avoid: Any = None) -> FirstPassage:
        goal = as_states(targets, self.size)
        never = _NONE if avoid is None else as_states(avoid, self.size, name="avoid", may_be_empty=True)
        if (both := np.intersect1d(goal, never)).size:
            msg = f"state {int(both[0])} is both a target and avoided; take it out of one of the two"
            raise ValueError(msg)
        measure = self.__dict__.get("_measure")
        return FirstPassage(self._A, goal, never, measure, self._classes.is_irreducible)

    def _typed(self, x: Array) -> Array:
        return x.astype(self.dtype, copy=False)

    # --- in the long run --------------------------------------------------------------------------------------------

    def stationary(self, *, tol: float = _TOL) -> Array:
        """The distribution (n,) that time does not change.

        Zero on transient states. Relative accuracy in every component where the chain is reversible or solved by
        elimination.

        Raises
        ------
        ValueError
            If there is more than one: several recurrent classes.
        """
        measure = self.__dict__.get("_measure")
        return self._typed(stationary_distribution(self._A, self._classes, measure, tol))

    # --- first passage ----------------------------------------------------------------------------------------------

    def hitting_times(self, targets: Any, /, *, tol: float = _TOL) -> Array:
        """Expected time (n,) until a target is met: 0 there, infinite where it may never happen.

        Parameters
        ----------
        targets : int, array of int, or mask (n,)
            States; negative indices count from the end.
        tol : float
            Relative error of every entry, where the system is solved by iteration. Eliminations, taken on trees, small
            chains and where they fill little, subtract nothing: all digits but the last few are right.

        Warns
        -----
        ConvergenceWarning
            If the iteration misses `tol`.

        Notes
        -----
        O(n) on trees; otherwise what a sparse factor or a preconditioned iteration costs. See J. G. Kemeny and J. L.
        Snell, "Finite Markov Chains" (1960).

        Examples
        --------
        >>> import numpy as np
        >>> from structmask import MarkovChain
        >>> path = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
        >>> chain = MarkovChain.from_graph(path)
        >>> P, h = chain.transition.toarray(), chain.hitting_times(0)
        >>> h
        array([0., 5., 8., 9.])
        >>> np.allclose(h[1:], np.linalg.solve(np.eye(3) - P[1:, 1:], np.ones(3)))
        True
        """
        return self._typed(self._passage(targets).times(tol))

    def hitting_probabilities(self, targets: Any, /, *, avoid: Any = None, tol: float = _TOL) -> Array:
        """Probability (n,) to ever meet a target, before any state of `avoid`: the smallest non-negative solution.

        Exactly 0 and 1 where the graph decides.
        """
        return self._typed(self._passage(targets, avoid).probabilities(tol))

    def absorption_probabilities(self, *, tol: float = _TOL) -> Array:
        """Probability (n, classes) to end in each recurrent class, in the order of `classes().recurrent`."""
        recurrent = self._classes.recurrent
        columns = [self._passage(states).probabilities(tol) for states in recurrent]
        result = np.stack(columns, axis=1)
        return self._typed(result / result.sum(axis=1, keepdims=True))

    def mean_first_passage(self, targets: Any = None, /, *, tol: float = _TOL) -> Array:
        """Expected times (n, len(targets)) to each of several states alone; all of them by default."""
        states = np.arange(self.size) if targets is None else as_indices(np.atleast_1d(targets), self.size, "targets")
        columns = [self._passage(int(j)).times(tol) for j in states]
        return self._typed(np.stack(columns, axis=1) if columns else np.zeros((self.size, 0)))

    # --- distances --------------------------------------------------------------------------------------------------

    def commute_times(self, pairs: Any, /, *, tol: float = _TOL) -> Array:
        """Expected time (pairs,) from i to j and back, for pairs (pairs, 2) of states; infinite if that may fail."""
        found = self._pairs(pairs)
        if self._measure is not None and self._classes.is_irreducible:
            return self._typed(self._conductance_measure.sum() * self._resistances(found, tol))

        def both(j: int, sources: Array) -> Array:
            there = self._passage(j).times(tol)[sources]
            back = [self._passage(int(i)).times(tol)[j] for i in sources]
            return there + np.array(back)

        return self._typed(resistance.pair_hits(found, both))

    def effective_resistance(self, pairs: Any, /, *, tol: float = _TOL) -> Array:
        """Resistance (pairs,) between pairs (pairs, 2) of states, infinite between components.

        Conductances are the weights of the graph for a chain made `from_graph`; otherwise m_i P_ij (rates m_i Q_ij)
        with the reversing measure m that sums to one in each component, for which it is the commute time.

        Raises
        ------
        ValueError
            If the walk is not reversible.
        """
        return self._typed(self._resistances(self._pairs(pairs), tol))

    def _resistances(self, pairs: Array, tol: float) -> Array:
        if self._measure is None:
            msg = "effective resistance needs a reversible walk, but detailed balance fails; see commute_times"
            raise ValueError(msg)
        return resistance.resistances(self._A, self._conductance_measure, pairs, self._classes.labels, tol)

    @property
    def _conductance_measure(self) -> Array:
        """The reversing measure in the units of conductances."""
        m: Any = self._measure
        if "_is_graph" in self.__dict__:
            return m
        labels = self._classes.labels
        return m / np.bincount(labels, weights=m)[labels]

    def kemeny_constant(self, *, samples: int | None = None, rng: Any = None, tol: float = _TOL) -> float | Estimate:
        """sum_j p_j E_i[T_j], p the stationary distribution and T_j = 0 for j = i: the same from every state i.

        Parameters
        ----------
        samples : int, optional
            Estimate by so many random vectors, a solution each. The default is exact.
        rng : Generator or seed, optional
            Where they come from.

        Returns
        -------
        float, or Estimate(value, standard_error)
        """
        if not self._classes.is_irreducible:
            msg = f"Kemeny's constant needs an irreducible chain, got {self._classes!r}"
            raise ValueError(msg)
        p = stationary_distribution(self._A, self._classes, self.__dict__.get("_measure"), tol)
        if samples is None:
            return resistance.kemeny_exact(self._A, p, tol)
        if operator.index(samples) < 1:
            msg = f"samples counts random vectors: it must be at least 1, got {samples}"
            raise ValueError(msg)
        return resistance.kemeny_estimate(self._A, p, samples, np.random.default_rng(rng), tol)

    def _pairs(self, pairs: Any) -> Array:
        given = np.asarray(pairs)
        if given.ndim != 2 or given.shape[1] != 2:
            msg = f"pairs of states have shape (pairs, 2), got {given.shape}"
            raise ValueError(msg)
        return as_indices(given, self.size, "pairs")


class MarkovChain(Walk):
    """A Markov chain in discrete time on finitely many states, sparse throughout.

    Parameters
    ----------
    transition : sparse or dense matrix (n, n), or anything `as_adjacency` takes
        P, P_ij the probability of a step from i to j. Rows sum to one; they are divided by their sums.

    Raises
    ------
    ValueError
        If a probability is negative or a row does not sum to one: the message names the row.

    Notes
    -----
    Solvers run on the host and in double precision; results have the precision of P.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import MarkovChain
    >>> chain = MarkovChain([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])
    >>> p = chain.stationary()
    >>> p
    array([0.25, 0.5 , 0.25])
    >>> np.allclose(p @ chain.transition.toarray(), p)
    True
    """

    def __init__(self, transition: Any, /) -> None:
        self.transition = as_transition(transition)
        self.dtype = self.transition.dtype
        self._A = off_diagonal(self.transition)

    @classmethod
    def from_graph(cls, graph: Any, /) -> MarkovChain:
        """The simple random walk P = D^-1 W on a graph without negative weights; an isolated node is never left.

        Parameters
        ----------
        graph : anything `as_adjacency` takes
            Undirected graphs make reversible chains; take `MarkovChain(P)` for directed ones.
        """
        W = undirected(graph, "MarkovChain.from_graph")
        if (W.data == 0).any():
            W = W.copy()
            W.eliminate_zeros()
        d = row_sums(W)
        if (d == 0).any():
            W = scipy.sparse.csr_array(W + scipy.sparse.diags_array((d == 0).astype(W.dtype)))
            d = np.where(d == 0, 1.0, d)
        chain = cls(scaled_rows(W, 1 / d))
        chain.__dict__.update(_measure=d, _is_graph=True)
        return chain

    # --- step by step -----------------------------------------------------------------------------------------------

    def evolve(self, distribution: Any, steps: int, /) -> Array:
        """The distribution (..., n) after some steps: p P^t, for one distribution or a batch."""
        p, count = as_distribution(distribution, self.size), _count(steps)
        columns = np.ascontiguousarray(p.reshape(-1, self.size).T)
        for _ in range(count):
            columns = self._applied(self._transposed, columns)
        return (columns / columns.sum(axis=0)).T.reshape(p.shape) if count else p

    def expect(self, values: Any, steps: int, /) -> Array:
        """Expected values (n,) or (n, k) after some steps, by starting state: P^t f."""
        f = as_values(values, self.size)
        columns = f[:, None] if f.ndim == 1 else f
        for _ in range(_count(steps)):
            columns = self._applied(self.transition, columns)
        return columns.reshape(f.shape)

    @cached_property
    def _transposed(self) -> Any:
        return scipy.sparse.csr_array(self.transition.T)

    @staticmethod
    def _applied(P: Any, X: Array) -> Array:
        data, X = arrays.as_same_kind(arrays.cast_precision(P.data, arrays.precision(X)), X)
        return kernels.csr_product(P, data, X)

    def period(self, state: int | None = None, /) -> int:
        """Greatest common divisor of the lengths of all ways back to a state; of an irreducible chain by default."""
        if state is None:
            if len(self._classes.recurrent) != 1:
                msg = f"several recurrent classes have periods of their own ({self._classes!r}); name a state"
                raise ValueError(msg)
            states = self._classes.recurrent[0]
        else:
            own = int(as_indices(state, self.size, "state"))
            states = np.flatnonzero(self._classes.labels == self._classes.labels[own])
        return class_period(self.transition, states)

    def simulate(self, start: Any, steps: int, /, *, rng: Any = None) -> Array:
        """Path (..., steps + 1) of a walk from each of some starting states (...), itself the first.

        Parameters
        ----------
        start : int or array of int
        steps : int
        rng : Generator or seed, optional
            The same seed gives the same walks, on every backend.
        """
        first = as_indices(start, self.size, "start")
        return simulated_walks(self.transition, first, _count(steps), np.random.default_rng(rng))

    # --- first passage, by steps ------------------------------------------------------------------------------------

    def hitting_transform(self, targets: Any, s: Any, /, *, tol: float = _TOL) -> Array:
        """Transform E[exp(-s T)] (..., n) of the number T of steps to the targets, for s >= 0 or an array of them."""
        way = self._passage(targets)
        return self._typed(over_rates(s, lambda one: way.transform(math.expm1(min(one, _FAR)), tol)))

    def hitting_moments(self, targets: Any, order: int, /, *, tol: float = _TOL) -> Array:
        """E[T^k] (order, n) for k = 1 ... order; infinite where T may be."""
        way = self._passage(targets)
        return self._typed(way.moments(_count(order, "order"), self.transition.diagonal().astype(np.float64), tol))

    def first_passage_distribution(self, targets: Any, steps: int, /) -> Array:
        """P(T = t) (steps + 1, n) for t = 0 ... steps, by starting state."""
        P = self.transition.astype(np.float64)
        return self._typed(passage_distribution(P, as_states(targets, self.size), _count(steps)))

    # --- visits, as structured matrices -----------------------------------------------------------------------------

    def visits(self, targets: Any, /, *, tol: float = _TOL) -> Visits:
        """Expected visits before the targets are met: (I - P_ff)^-1, with zero rows and columns at the targets.

        Raises
        ------
        ValueError
            If some state cannot reach a target: its visits are infinite.
        """
        way = self._passage(targets)
        never = np.flatnonzero(way.is_free & ~way.is_possible)
        if never.size:
            msg = f"state {int(never[0])} cannot reach a target, so that visits are infinite; add targets there"
            raise ValueError(msg)
        return Visits(self.transition, 1.0, targets=tuple(map(int, way.targets)), accuracy=Accuracy(tol))

    def discounted_visits(self, discount: float, /, *, tol: float = _TOL) -> Visits:
        """(I - discount P)^-1 = sum_t discount^t P^t; times 1 - discount it is personalised PageRank.

        A structured matrix: a mask for attention, with gradients in `discount` and the stored entries of P.

        Examples
        --------
        >>> import numpy as np
        >>> from structmask import MarkovChain
        >>> P = np.array([[0.5, 0.5], [1.0, 0.0]])
        >>> M = MarkovChain(P).discounted_visits(0.8)
        >>> np.allclose(M.to_dense(), np.linalg.inv(np.eye(2) - 0.8 * P))
        True
        """
        return Visits(self.transition, _discount(discount), accuracy=Accuracy(tol))

    def first_passage_kernel(self, discount: float, /, *, tol: float = _TOL) -> StructuredMatrix:
        """K_ij = E_i[discount^(T_j)], T_j the steps to state j: a structured matrix with entries in [0, 1], K_jj = 1.

        K_ij = M_ij / M_jj for the discounted visits M, since every visit follows the first. On a tree the product and
        the diagonal cost O(n).
        """
        M = self.discounted_visits(discount, tol=tol)
        kernel: StructuredMatrix = M @ Diagonal(1 / M.inverse_diagonal())
        return kernel


def over_rates(s: Any, function: Any) -> Array:
    """function(s) for a number s >= 0, or for each of an array, stacked in front."""
    rates = np.asarray(s, dtype=np.float64)
    if not (rates >= 0).all():
        msg = f"the transform takes real s >= 0, got {s!r}"
        raise ValueError(msg)
    return np.stack([function(float(one)) for one in rates.ravel()]).reshape(*rates.shape, -1)


def _count(value: Any, name: Literal["steps", "order"] = "steps") -> int:
    count, least = operator.index(value), 0 if name == "steps" else 1
    if count < least:
        msg = f"{name} must be at least {least}, got {count}"
        raise ValueError(msg)
    return count


def _discount(discount: Any) -> float:
    if not 0 < discount < 1:
        msg = f"discount must lie strictly between 0 and 1, got {discount!r}; for 1 take visits(targets)"
        raise ValueError(msg)
    return float(discount)
