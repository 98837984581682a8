"""Walk: what chains and processes share. Each method is a line; the theory is beside it.

`markov_classes` (what reachability decides), `first_passage`, `stationary`, `resistance`, and below them all
`transient`, one kind of system with its solvers.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from structmask.backends import arrays, walk_kernels
from structmask.backends.arrays import Array
from structmask.backends.walk_kernels import Steps
from structmask.graphs import resistance
from structmask.graphs.first_passage import FirstPassage
from structmask.graphs.markov_classes import Classes, communicating_classes, reversing_measure
from structmask.graphs.resistance import Estimate
from structmask.graphs.stationary import stationary_distribution
from structmask.graphs.stochastic import as_indices, as_states
from structmask.linalg.base import StructuredMatrix

M = TypeVar("M", bound=StructuredMatrix)

TOL = 1e-10
_NONE = np.zeros(0, np.int64)


class Walk(ABC):
    """What chains and processes share: everything that depends on the way and not on the clock."""

    _A: Any  # steps i -> j, i != j: probabilities or rates, csr_array in double precision
    dtype: np.dtype[Any]
    preconditioner: str
    _given_home: str

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

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

    def _passage(self, targets: Any, avoid: Any = None, *, home: str | None = None) -> FirstPassage:
        """The question; what iterates does so in a home, that of the results by default."""
        goal = as_states(targets, self.size)
        never = _NONE if avoid is None else as_states(avoid, self.size, name="avoid", may_be_empty=True)
        if (both := np.intersect1d(goal, never)).size:
            msg = f"state {int(both[0])} is both a target and avoided; take it out of one of the two"
            raise ValueError(msg)
        measure = self.__dict__.get("_measure")
        known = measure, self._classes.is_irreducible
        return FirstPassage(self._A, goal, never, *known, self.preconditioner, home or self._home)

    # --- where things are -------------------------------------------------------------------------------------------

    @property
    def _home(self) -> str:
        """Where results live."""
        return arrays.settled_home(self._given_home, "the matrix of the walk")

    def _typed(self, x: Array) -> Array:
        """A result in the precision of the walk, where results live."""
        return arrays.cast(arrays.move(x, self._home), self.dtype.name)

    def _where_given(self, matrix: M) -> M:
        """A structured matrix beside the matrix that the walk was made of."""
        return matrix if self._given_home == "numpy" else matrix.to(self._given_home)

    @property
    def _steps(self) -> Steps:
        """Where walks go next, where results live."""
        return Steps(*arrays.placed(self, "_host_steps", self._home))

    @cached_property
    def _host_steps(self) -> Steps:
        return walk_kernels.steps(self._weights)

    @property
    @abstractmethod
    def _weights(self) -> Any:
        """Steps are drawn in proportion to these."""

    # --- in the long run --------------------------------------------------------------------------------------------

    def stationary(self, *, tol: float = TOL) -> Array:
        """The distribution (n,) that time does not change.

        Zero on transient states. Relative accuracy in every component where the chain is reversible or solved by
        elimination.

        Raises
        ------
        ValueError
            If there is more than one: several recurrent classes.
        """
        return self._typed(self._stationary(tol, self._home))

    def _stationary(self, tol: float, home: str) -> Array:
        measure = self.__dict__.get("_measure")
        return stationary_distribution(self._A, self._classes, measure, tol, self.preconditioner, home)

    # --- first passage ----------------------------------------------------------------------------------------------

    def hitting_times(self, targets: Any, /, *, tol: float = TOL) -> Array:
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

    def hitting_probabilities(self, targets: Any, /, *, avoid: Any = None, tol: float = TOL) -> Array:
        """Probability (n,) to ever meet a target, before any state of `avoid`: the smallest non-negative solution.

        Exactly 0 and 1 where the graph decides.
        """
        return self._typed(self._passage(targets, avoid).probabilities(tol))

    def absorption_probabilities(self, *, tol: float = TOL) -> Array:
        """Probability (n, classes) to end in each recurrent class, in the order of `classes().recurrent`."""
        recurrent = self._classes.recurrent
        columns = [arrays.move(self._passage(states).probabilities(tol), self._home) for states in recurrent]
        xp = arrays.namespace(columns[0])
        result = xp.stack(columns, axis=1)
        return self._typed(result / xp.sum(result, axis=1, keepdims=True))

    def mean_first_passage(self, targets: Any = None, /, *, tol: float = TOL) -> Array:
        """Expected times (n, len(targets)) to each of several states alone; all of them by default."""
        states = np.arange(self.size) if targets is None else as_indices(np.atleast_1d(targets), self.size, "targets")
        columns = [self._typed(self._passage(int(j)).times(tol)) for j in states]
        if not columns:
            return self._typed(np.zeros((self.size, 0)))
        return arrays.namespace(columns[0]).stack(columns, axis=1)

    # --- distances --------------------------------------------------------------------------------------------------

    def commute_times(self, pairs: Any, /, *, tol: float = TOL) -> Array:
        """Expected time (pairs,) from i to j and back, for pairs (pairs, 2) of states; infinite if that may fail."""
        found = self._pairs(pairs)
        if self._measure is not None and self._classes.is_irreducible:
            return self._typed(self._conductance_measure.sum() * self._resistances(found, tol))

        def both(j: int, sources: Array) -> Array:
            there = self._passage(j, home="numpy").times(tol)[sources]
            back = [self._passage(int(i), home="numpy").times(tol)[j] for i in sources]
            return there + np.array(back)

        return self._typed(resistance.pair_hits(found, both))

    def effective_resistance(self, pairs: Any, /, *, tol: float = TOL) -> Array:
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
        network = self._A, self._conductance_measure, self._classes.labels
        return resistance.resistances(*network, pairs, tol, self.preconditioner)

    @property
    def _conductance_measure(self) -> Array:
        """The reversing measure in the units of conductances."""
        m: Any = self._measure
        if "_is_graph" in self.__dict__:
            return m
        labels = self._classes.labels
        return m / np.bincount(labels, weights=m)[labels]

    def kemeny_constant(self, *, samples: int | None = None, rng: Any = None, tol: float = TOL) -> float | Estimate:
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
        p = self._stationary(tol, "numpy")
        if samples is None:
            return resistance.kemeny_exact(self._A, p, tol, self.preconditioner)
        if operator.index(samples) < 1:
            msg = f"samples counts random vectors: it must be at least 1, got {samples}"
            raise ValueError(msg)
        return resistance.kemeny_estimate(self._A, p, samples, np.random.default_rng(rng), tol, self.preconditioner)

    def _pairs(self, pairs: Any) -> Array:
        given = np.asarray(arrays.to_numpy(pairs))
        if given.ndim != 2 or given.shape[1] != 2:
            msg = f"pairs of states have shape (pairs, 2), got {given.shape}"
            raise ValueError(msg)
        return as_indices(given, self.size, "pairs")
