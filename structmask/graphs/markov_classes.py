"""Communicating classes, periods, reachability and reversibility: what the graph of a chain decides alone.

States that can reach each other form a class; a class that cannot be left is recurrent. Whatever a solver is asked,
the answers that are infinite, zero or one are read off here first, so that no system is ever singular.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from structmask.backends.arrays import Array

_BALANCE = 1e-9  # difference of the logarithms of opposite flows that is rounding


@dataclass(frozen=True, eq=False)
class Classes:
    """Communicating classes of a chain.

    Attributes
    ----------
    labels : array (n,)
        Class of each state: 0 ... count - 1, in the order of their first states.
    is_recurrent : array (count,)
        Whether a class cannot be left.
    """

    labels: Array
    is_recurrent: Array

    @property
    def count(self) -> int:
        """Number of classes."""
        return int(self.is_recurrent.size)

    @property
    def is_irreducible(self) -> bool:
        """Whether all states can reach each other."""
        return self.count == 1

    @property
    def recurrent(self) -> tuple[Array, ...]:
        """States of each recurrent class."""
        order = np.argsort(self.labels, kind="stable")
        bounds = np.searchsorted(self.labels[order], np.arange(self.count + 1))
        return tuple(order[bounds[c] : bounds[c + 1]] for c in np.flatnonzero(self.is_recurrent))

    @property
    def transient(self) -> Array:
        """States of no recurrent class."""
        return np.flatnonzero(~self.is_recurrent[self.labels])

    def __repr__(self) -> str:
        return f"Classes({self.count}, of which {int(self.is_recurrent.sum())} recurrent)"


def communicating_classes(A: Any) -> Classes:
    """Classes of the chain that goes from i to j where A stores an entry; O(n + nnz)."""
    n = A.shape[0]
    count, found = csgraph.connected_components(A, directed=True, connection="strong")
    first = np.full(count, n)
    np.minimum.at(first, found, np.arange(n))
    rank = np.empty(count, np.int64)
    rank[np.argsort(first)] = np.arange(count)
    labels = rank[found]
    rows = labels[np.repeat(np.arange(n), np.diff(A.indptr))]
    is_recurrent = np.ones(count, dtype=bool)
    is_recurrent[rows[rows != labels[A.indices]]] = False
    return Classes(labels, is_recurrent)


def class_period(A: Any, states: Array) -> int:
    """Greatest common divisor of the lengths of all closed walks in a class; 0 if there are none.

    With d the breadth-first distances from one of its states, it is gcd of d_i + 1 - d_j over all steps i -> j.
    """
    own = A[states][:, states] if states.size < A.shape[0] else A
    if not own.nnz:
        return 0
    d = csgraph.shortest_path(own, unweighted=True, indices=0)
    rows = np.repeat(np.arange(states.size), np.diff(own.indptr))
    return int(np.gcd.reduce(np.abs(d[rows] + 1 - d[own.indices]).astype(np.int64)))


def can_reach(A: Any, targets: Array, through: Array | None = None) -> Array:
    """Which states (n,) have a path to a target, the targets included, over states of a mask `through` only."""
    n = A.shape[0]
    if through is not None and not through.all():
        kept = through.copy()
        kept[targets] = True
        inside = np.flatnonzero(kept)
        position = np.cumsum(kept) - 1
        found = np.zeros(n, dtype=bool)
        found[inside] = can_reach(scipy.sparse.csr_array(A[inside][:, inside]), position[targets])
        return found
    backwards = scipy.sparse.csr_array(A.T)
    indptr = np.append(backwards.indptr, backwards.indptr[-1] + targets.size)
    indices = np.append(backwards.indices, targets)
    extended = scipy.sparse.csr_array((np.ones(indices.size, np.float64), indices, indptr), shape=(n + 1, n + 1))
    found = np.zeros(n + 1, dtype=bool)
    found[csgraph.breadth_first_order(extended, n, return_predecessors=False)] = True
    return found[:n]


def reversing_measure(A: Any) -> Array | None:
    """A measure m > 0 (n,) with m_i A_ij = m_j A_ji for all i != j, largest entry one in every component; or None.

    Along a spanning forest m_j = m_i A_ij / A_ji; the other steps are then tested (Kolmogorov's criterion). In
    logarithms, for m may span more than the range of numbers.
    """
    T = scipy.sparse.csr_array(A.T)
    if not (np.array_equal(A.indptr, T.indptr) and np.array_equal(A.indices, T.indices)):
        return None
    n, ratio = A.shape[0], np.log(A.data) - np.log(T.data)  # log m_j - log m_i along the step i -> j
    count, component = csgraph.connected_components(A, directed=False)
    rows = np.repeat(np.arange(n), np.diff(A.indptr))
    log_m = _potential(A, ratio, component, count)
    slack = np.abs(log_m[rows] + ratio - log_m[A.indices])
    if slack.size and slack.max() > _BALANCE * max(1.0, math.sqrt(n) / 1e3):
        return None
    top = np.full(count, -np.inf)
    np.maximum.at(top, component, log_m)
    measure: Array = np.exp(log_m - top[component])
    return measure


def _potential(A: Any, ratio: Array, component: Array, count: int) -> Array:
    """Sums of a ratio along the paths of a breadth-first forest, level by level of pointer jumps."""
    n = A.shape[0]
    first = np.full(count, n)
    np.minimum.at(first, component, np.arange(n))
    indptr = np.append(A.indptr, A.indptr[-1] + count)
    indices = np.append(A.indices, first)
    above = scipy.sparse.csr_array((np.ones(indices.size), indices, indptr), shape=(n + 1, n + 1))
    _, parents = csgraph.breadth_first_order(above, n)
    up = np.where(parents[:n] == n, np.arange(n), parents[:n]).astype(np.int64)
    keys = np.repeat(np.arange(n), np.diff(A.indptr)) * np.int64(n) + A.indices
    wanted = up * np.int64(n) + np.arange(n)
    potential = np.zeros(n)
    inner = up != np.arange(n)
    potential[inner] = ratio[np.searchsorted(keys, wanted[inner])]
    while (up[up] != up).any():  # as many rounds as the depth has binary digits
        potential, up = potential + potential[up], up[up]
    return potential
