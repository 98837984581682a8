"""MarkovProcess: jumps at rates, in continuous time. What does not depend on the clock is shared with `MarkovChain`."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from structmask.backends.arrays import Array
from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.first_passage import over_rates, passage_by_times
from structmask.graphs.markov_walk import TOL, Walk
from structmask.graphs.occupation import Occupation, Rates
from structmask.graphs.simulation import simulated_jumps
from structmask.graphs.stochastic import as_distribution, as_generator, as_indices, as_states, as_values
from structmask.graphs.transient_iterations import as_preconditioner
from structmask.graphs.uniformisation import TRIAL, evolved, expected, occupation_weights, uniformised
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
    root of the steps; where Q is stiff, implicit steps of high order, which need their logarithm.

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
        Q = as_adjacency(generator)
        self.dtype = Q.dtype
        self._A = as_generator(Q)

    @property
    def generator(self) -> Any:
        """Q (n, n) as csr_array, its diagonal included."""
        import scipy.sparse

        out = np.asarray(self._A.sum(axis=1)).reshape(-1)
        return scipy.sparse.csr_array(self._A - scipy.sparse.diags_array(out))

    def evolve(self, distribution: Any, time: float, /, *, tol: float = TOL) -> Array:
        """The distribution (..., n) after some time: p exp(t Q), for one distribution or a batch.

        Parameters
        ----------
        distribution : array (..., n)
        time : float
        tol : float
            Certified distance in total variation, sup_B |p'(B) - p(B)|, up to rounding.
        """
        p, t = as_distribution(distribution, self.size), _time(time)
        columns = np.ascontiguousarray(p.reshape(-1, self.size).T, dtype=np.float64)
        result = evolved(self._A, columns, t, self._measure if t > 0 else None, _tolerance(tol))
        return result.T.reshape(p.shape).astype(p.dtype)

    def expect(self, values: Any, time: float, /, *, tol: float = TOL) -> Array:
        """Expected values (n,) or (n, k) after some time, by starting state: exp(t Q) f, up to tol max |f|."""
        f = as_values(values, self.size)
        columns = np.ascontiguousarray(f[:, None] if f.ndim == 1 else f)
        t = _time(time)
        result = expected(self._A, columns, t, self._measure if t > 0 else None, _tolerance(tol))
        return result.reshape(f.shape).astype(f.dtype)

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
        rest, and take implicit steps otherwise; then up to 1e-10 of the time at best.
        """
        (P, q), t, accuracy = uniformised(self._A), _time(time), _tolerance(tol)
        if q * t > TRIAL:
            return Occupation(t, rates=Rates(self._A, accuracy))
        return PowerSeries(Sparse(P), occupation_weights(t, q, accuracy))

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
        return simulated_jumps(self._A, first, count, np.random.default_rng(rng))

    def hitting_transform(self, targets: Any, s: Any, /, *, tol: float = TOL) -> Array:
        """Transform E[exp(-s T)] (..., n) of the time T to the targets, for s >= 0 or an array of them."""
        way = self._passage(targets)
        return self._typed(over_rates(s, lambda one: way.transform(one, tol)))

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
        found = np.asarray(times)
        flat = np.array([_time(t) for t in found.ravel()])
        result = passage_by_times(self._A, as_states(targets, self.size), flat, _tolerance(tol))
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
