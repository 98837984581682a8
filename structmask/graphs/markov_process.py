"""MarkovProcess: jumps at rates, in continuous time. What does not depend on the clock is shared with `MarkovChain`."""

from __future__ import annotations

import math
import operator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.first_passage import over_rates, passage_by_times
from structmask.graphs.markov_walk import TOL, Walk
from structmask.graphs.occupation import Occupation, Rates
from structmask.graphs.simulation import simulated_jumps
from structmask.graphs.stochastic import (
    as_distribution,
    as_generator,
    as_host,
    as_indices,
    as_states,
    as_values,
    row_sums,
)
from structmask.graphs.transient_iterations import as_preconditioner
from structmask.graphs.uniformisation import TRIAL, Clock, evolved, expected, occupation_weights
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Sparse
from structmask.linalg.power_series import PowerSeries


class MarkovProcess(Walk):
    """A Markov process in continuous time on finitely many states, sparse throughout.

    Parameters
    ----------
    generator : sparse or dense matrix (n, n), or anything `as_adjacency` takes
        Q, Q_ij the rate of jumps from i to j. The rates off the diagonal are the data; the diagonal is minus the sum of
        its row, whether given or left out, so that the weights of a graph are a generator as they are.
    preconditioner : str
        As for `MarkovChain`: how systems are solved.

    Raises
    ------
    ValueError
        If a rate is negative or a diagonal does not fit its row: the message names the row.

    Notes
    -----
    ``evolve``, ``expect`` and ``occupation`` run uniformisation, which stops early where nothing changes any more; the
    first two, where Q is reversible and the time long beside its rates, Chebyshev polynomials, which need the square
    root of the steps; where Q is stiff, implicit steps of high order, which need their logarithm and run on the host.
    What runs where is as for `MarkovChain`.

    Examples
    --------
    >>> import numpy as np, scipy.linalg
    >>> from structmask import MarkovProcess
    >>> rates = np.array([[0.0, 2.0], [1.0, 0.0]])
    >>> process = MarkovProcess(rates)
    >>> Q = process.generator.toarray()
    >>> np.allclose(process.evolve([1.0, 0.0], 0.7), np.array([1.0, 0.0]) @ scipy.linalg.expm(0.7 * Q))
    True
    """

    def __init__(self, generator: Any, /, *, preconditioner: str = "auto") -> None:
        self.preconditioner = as_preconditioner(preconditioner)
        given, self._given_home = as_host(generator)
        Q = as_adjacency(given)
        self.dtype = Q.dtype
        self._A = as_generator(Q)

    @property
    def generator(self) -> Any:
        """Q (n, n) as csr_array, its diagonal included."""
        return scipy.sparse.csr_array(self._A - scipy.sparse.diags_array(row_sums(self._A)))

    def evolve(self, distribution: Any, time: float, /, *, tol: float = TOL) -> Array:
        """The distribution (..., n) after some time: p exp(t Q), for one distribution or a batch.

        Parameters
        ----------
        distribution : array (..., n)
        time : float
        tol : float
            Certified distance in total variation, sup_B |p'(B) - p(B)|, up to rounding.
        """
        p, t = as_distribution(distribution, self.size, self._home), _time(time)
        xp = arrays.namespace(p)
        columns = arrays.cast(xp.matrix_transpose(xp.reshape(p, (-1, self.size))), "float64")
        result = evolved(self._distributions, columns, t, self._placed_measure if t > 0 else None, _tolerance(tol))
        return arrays.cast(xp.reshape(xp.matrix_transpose(result), p.shape), arrays.precision(p))

    def expect(self, values: Any, time: float, /, *, tol: float = TOL) -> Array:
        """Expected values (n,) or (n, k) after some time, by starting state: exp(t Q) f, up to tol max |f|."""
        f, t = as_values(values, self.size, self._home), _time(time)
        columns = f[:, None] if f.ndim == 1 else f
        result = expected(self._functions, columns, t, self._placed_measure if t > 0 else None, _tolerance(tol))
        return arrays.cast(arrays.namespace(f).reshape(result, f.shape), arrays.dtype_name(f))

    @property
    def _placed_measure(self) -> Array | None:
        return None if self._measure is None else arrays.placed(self, "_measure", self._home)

    @cached_property
    def _distributions(self) -> Clock:
        return Clock(self._A, functions=False)

    @cached_property
    def _functions(self) -> Clock:
        return Clock(self._A, functions=True)

    def occupation(self, time: float, /, *, tol: float = TOL) -> StructuredMatrix:
        """Expected time (n, n) in state j until some time, from state i: the integral of exp(s Q) for s from 0 to t.

        A structured matrix: ``p @ process.occupation(t)`` are the times from a distribution p, which add up to t.

        Parameters
        ----------
        time : float
        tol : float
            Certified error, summed over the states j, from any i.

        Notes
        -----
        sum_k P(N > k) / q P^k with P = I + Q / q and N a Poisson number of mean q t: about q t + 7 sqrt(q t) products,
        as a `PowerSeries`. Beyond 20,000 of them an `Occupation`, whose products stop early where the process comes to
        rest, and take implicit steps on the host otherwise; then up to 1e-10 of the time at best.
        """
        clock, t, accuracy = self._functions, _time(time), _tolerance(tol)
        if clock.rate * t > TRIAL:
            return Occupation(t, rates=Rates(self._A, accuracy))
        return self._where_given(PowerSeries(Sparse(clock.P), occupation_weights(t, clock.rate, accuracy)))

    def simulate(self, start: Any, steps: int, /, *, rng: Any = None) -> tuple[Array, Array]:
        """Path (..., steps + 1) and the times at which its states are entered, for walks of so many jumps.

        Parameters
        ----------
        start : int or array of int
            Starting states (...).
        steps : int
            Number of jumps. A state without exits is entered again and again, at infinity.
        rng : Generator or seed, optional
            The same seed gives the same walks, on every backend.
        """
        first, count = as_indices(start, self.size, "start"), operator.index(steps)
        if count < 0:
            msg = f"steps must be at least 0, got {count}"
            raise ValueError(msg)
        return simulated_jumps(self._steps, row_sums(self._A), first, count, np.random.default_rng(rng))

    @property
    def _weights(self) -> Any:
        return scipy.sparse.csr_array(self._A + scipy.sparse.diags_array((row_sums(self._A) == 0).astype(np.float64)))

    def hitting_transform(self, targets: Any, s: Any, /, *, tol: float = TOL) -> Array:
        """Transform E[exp(-s T)] (..., n) of the time T to the targets, for s >= 0 or an array of them."""
        way = self._passage(targets)
        return over_rates(s, lambda one: self._typed(way.transform(one, tol)))

    def hitting_moments(self, targets: Any, order: int, /, *, tol: float = TOL) -> Array:
        """E[T^k] (order, n) for k = 1 ... order; infinite where T may be."""
        if (count := operator.index(order)) < 1:
            msg = f"order must be at least 1, got {count}"
            raise ValueError(msg)
        return self._typed(self._passage(targets).moments(count, None, tol))

    def first_passage_distribution(self, targets: Any, times: Any, /, *, tol: float = TOL) -> Array:
        """P(T <= t) (..., n) that a target is met until a time t, or each of an array (...), by starting state.

        Certified as in `expect`: every entry is within `tol`.

        Examples
        --------
        >>> import numpy as np
        >>> from structmask import MarkovProcess
        >>> process = MarkovProcess(np.array([[0.0, 2.0], [1.0, 0.0]]))
        >>> np.allclose(process.first_passage_distribution(1, [0.0, 0.7]), [[0, 1], [1 - np.exp(-1.4), 1]])
        True
        """
        found = np.asarray(arrays.to_numpy(times))
        flat = np.array([_time(t) for t in found.ravel()])
        goal = as_states(targets, self.size)
        if not flat.size:
            return self._typed(np.zeros((*found.shape, self.size)))
        result = passage_by_times(self._A, goal, flat, _tolerance(tol), self._home)
        return self._typed(result.reshape(*found.shape, self.size))


def _time(time: Any) -> float:
    if np.ndim(time) or np.iscomplexobj(time):
        msg = f"time is one real number, got {time!r}"
        raise TypeError(msg)
    t = float(time)
    if not 0 <= t < math.inf:
        msg = f"time must be finite and not negative, got {time!r}"
        raise ValueError(msg)
    return t


def _tolerance(tol: Any) -> float:
    if not 0 < tol < 1:
        msg = f"tol must lie strictly between 0 and 1, got {tol!r}"
        raise ValueError(msg)
    return float(tol)
