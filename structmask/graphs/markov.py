"""MarkovChain: steps between states in discrete time. What does not depend on the clock is in `markov_walk`."""

from __future__ import annotations

import math
import operator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import undirected
from structmask.graphs.first_passage import over_rates, passage_distribution
from structmask.graphs.markov_classes import class_period
from structmask.graphs.markov_walk import TOL, Walk
from structmask.graphs.simulation import simulated_walks
from structmask.graphs.stochastic import (
    as_distribution,
    as_host,
    as_indices,
    as_states,
    as_transition,
    as_values,
    off_diagonal,
    row_sums,
    scaled_rows,
)
from structmask.graphs.transient_iterations import as_preconditioner
from structmask.graphs.visits import Accuracy, Visits
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Diagonal

_FAR = 700.0  # exp(-s) is as good as zero beyond
_ROUND = 5040  # steps after which columns may be back: so many that all periods up to ten divide them


class MarkovChain(Walk):
    """A Markov chain in discrete time on finitely many states, sparse throughout.

    Parameters
    ----------
    transition : sparse or dense matrix (n, n), or anything `as_adjacency` takes
        P, P_ij the probability of a step from i to j. Rows sum to one; they are divided by their sums. One on a device
        is copied to the host once, where its structure is read; results live on the device.
    preconditioner : str
        How systems are solved: "auto" by structure, eliminations or iterations. By name they are iterated, with the
        diagonal ("jacobi"), approximate elimination ("elimination"; random, symmetric where the chain is reversible) or
        algebraic multigrid by pyamg ("amg").

    Raises
    ------
    ValueError
        If a probability is negative or a row does not sum to one: the message names the row. For an unknown name.

    Notes
    -----
    Solvers run in double precision; results have the precision of P. They live where P does, or where the backend in
    force wants them: steps and walks run there, and so does what iterates, with the diagonal as preconditioner; what
    the graph decides, eliminations, other preconditioners, resistances and Kemeny's constant are the host's.

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

    def __init__(self, transition: Any, /, *, preconditioner: str = "auto") -> None:
        self.preconditioner = as_preconditioner(preconditioner)
        given, self._given_home = as_host(transition)
        self.transition = as_transition(given)
        self.dtype = self.transition.dtype
        self._A = off_diagonal(self.transition)

    @classmethod
    def from_graph(cls, graph: Any, /, *, preconditioner: str = "auto") -> MarkovChain:
        """The simple random walk P = D^-1 W on a graph without negative weights; an isolated node is never left.

        Parameters
        ----------
        graph : anything `as_adjacency` takes
            Undirected graphs make reversible chains; take `MarkovChain(P)` for directed ones.
        preconditioner : str
            As for `MarkovChain`.
        """
        given, home = as_host(graph)
        W = undirected(given, "MarkovChain.from_graph")
        if (W.data == 0).any():
            W = W.copy()
            W.eliminate_zeros()
        d = row_sums(W)
        if (d == 0).any():
            W = scipy.sparse.csr_array(W + scipy.sparse.diags_array((d == 0).astype(W.dtype)))
            d = np.where(d == 0, 1.0, d)
        chain = cls(scaled_rows(W, 1 / d), preconditioner=preconditioner)
        chain.__dict__.update(_measure=d, _is_graph=True, _given_home=home)
        return chain

    # --- step by step -----------------------------------------------------------------------------------------------

    def evolve(self, distribution: Any, steps: int, /) -> Array:
        """The distribution (..., n) after some steps: p P^t, for one distribution or a batch."""
        p, count = as_distribution(distribution, self.size, self._home), _count(steps)
        xp = arrays.namespace(p)
        columns = self._stepped("_transposed", xp.matrix_transpose(xp.reshape(p, (-1, self.size))), count)
        columns = columns / xp.sum(columns, axis=0) if count else columns
        return xp.reshape(xp.matrix_transpose(columns), p.shape)

    def expect(self, values: Any, steps: int, /) -> Array:
        """Expected values (n,) or (n, k) after some steps, by starting state: P^t f."""
        f = as_values(values, self.size, self._home)
        columns = self._stepped("transition", f[:, None] if f.ndim == 1 else f, _count(steps))
        return arrays.namespace(f).reshape(columns, f.shape)

    @cached_property
    def _transposed(self) -> Any:
        return scipy.sparse.csr_array(self.transition.T)

    def _stepped(self, name: str, X: Array, count: int) -> Array:
        """Columns after some products with one of our matrices.

        Columns that come back, as they do once rounding is all that moves them, come back ever after.
        """
        P = arrays.placed(self, name, arrays.home(X))
        data, X = arrays.as_same_kind(arrays.cast_precision(P.data, arrays.precision(X)), X)
        while count:
            before, steps = X, min(count, _ROUND)
            for _ in range(steps):
                X = kernels.csr_product(P, data, X)
            count -= steps
            if count and bool(arrays.namespace(X).all(before == X)):
                count %= _ROUND
        return X

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
        return simulated_walks(self._steps, first, _count(steps), np.random.default_rng(rng))

    @property
    def _weights(self) -> Any:
        return self.transition

    # --- first passage, by steps ------------------------------------------------------------------------------------

    def hitting_transform(self, targets: Any, s: Any, /, *, tol: float = TOL) -> Array:
        """Transform E[exp(-s T)] (..., n) of the number T of steps to the targets, for s >= 0 or an array of them."""
        way = self._passage(targets)
        return over_rates(s, lambda one: self._typed(way.transform(math.expm1(min(one, _FAR)), tol)))

    def hitting_moments(self, targets: Any, order: int, /, *, tol: float = TOL) -> Array:
        """E[T^k] (order, n) for k = 1 ... order; infinite where T may be."""
        way = self._passage(targets)
        return self._typed(way.moments(_count(order, "order"), self.transition.diagonal().astype(np.float64), tol))

    def first_passage_distribution(self, targets: Any, steps: int, /) -> Array:
        """P(T = t) (steps + 1, n) for t = 0 ... steps, by starting state."""
        start = np.ones((self.size, 1))
        start[as_states(targets, self.size)] = 0
        free = arrays.move(start, self._home)
        return self._typed(passage_distribution(lambda x: self._stepped("transition", x, 1), free, _count(steps)))

    # --- visits, as structured matrices -----------------------------------------------------------------------------

    def visits(self, targets: Any, /, *, tol: float = TOL) -> Visits:
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
        visits = Visits(self.transition, 1.0, targets=tuple(map(int, way.targets)), accuracy=self._accuracy(tol))
        return self._where_given(visits)

    def discounted_visits(self, discount: float, /, *, tol: float = TOL) -> Visits:
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
        return self._where_given(Visits(self.transition, _discount(discount), accuracy=self._accuracy(tol)))

    def _accuracy(self, tol: float) -> Accuracy:
        return Accuracy(tol, self.preconditioner)

    def first_passage_kernel(self, discount: float, /, *, tol: float = TOL) -> StructuredMatrix:
        """K_ij = E_i[discount^(T_j)], T_j the steps to state j: a structured matrix with entries in [0, 1], K_jj = 1.

        K_ij = M_ij / M_jj for the discounted visits M, since every visit follows the first. On a tree the product and
        the diagonal cost O(n). Exact where M is eliminated; up to the accuracy of both where it is iterated.
        """
        M = Visits(self.transition, _discount(discount), accuracy=self._accuracy(tol))
        kernel: StructuredMatrix = M @ Diagonal(1 / M.inverse_diagonal())
        return self._where_given(kernel)


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
