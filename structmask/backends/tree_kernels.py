"""Sweeps over forests: one entry each, to numba for host arrays, else to the standard form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import _standard_tree, arrays
from structmask.backends._standard_tree import Paths
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.backends.kernels import flat, numba_runs, shared


@dataclass(frozen=True)
class Sweep:
    """A forest as its sweeps need it: nodes by position, and by position parents, pointers to children, heavy paths."""

    order: Array
    position: Array
    up: Array
    first: Array
    paths: Paths

    def to(self, home: str) -> Sweep:
        """The same in another home."""
        moved = {name: arrays.move(getattr(self, name), home) for name in ("order", "position", "up", "first")}
        return Sweep(**moved, paths=self.paths)

    @property
    def roots(self) -> int:
        """Number of roots, which come first."""
        return self.paths.roots

    @cached_property
    def pieces(self) -> Any:
        """The forest in pieces that stay in cache, on a host."""
        from structmask.backends._numba.tree_pieces import pieces

        return pieces(self.first, self.up, self.roots)


def tree_product(sweep: Sweep, E: Array, X: Array, *, shrinks: bool) -> Array:
    """Decay masks of factors E (..., n), by position and zero at roots, times X (..., n, k), in X's precision.

    `shrinks` says that no factor is larger than 1 in absolute value: two sweeps that subtract are exact enough then.
    """
    E, X = _of_one_kind(E, X)
    if shrinks and numba_runs(X, complex_=True):
        from structmask.backends._numba.tree import tree_product as product

        batch = np.broadcast_shapes(X.shape[:-2], E.shape[:-1])
        forest = sweep.order, sweep.position, sweep.first, sweep.up, sweep.roots
        Y = product(*forest, shared(E, batch, 1), flat(X, batch, 2))
        return Y.reshape(*batch, *X.shape[-2:])
    S, R = tree_sums(sweep, E, X)
    Y = arrays.namespace(X).take(S + E[..., None] * R, sweep.position, axis=-2)
    return arrays.cast_precision(Y, arrays.precision(X))


def tree_hadamard(sweep: Sweep, E: Array, F: Array, G: Array, X: Array) -> Array:
    """(M * F G^T) X for the decay masks M of real factors E (..., n), none beyond 1, and real host arrays of one dtype.

    F, G (..., n, r), X (..., n, k). O(n r k) operations, O(n (r + k)) memory.
    """
    from structmask.backends._numba.tree_hadamard import tree_hadamard as fused

    batch = np.broadcast_shapes(*(a.shape[:-2] for a in (F, G, X)), E.shape[:-1])
    f, g, x = (flat(a, batch, 2) for a in (F, G, X))
    Y = fused(sweep.pieces, sweep.order, shared(E, batch, 1), f, g, x)
    return Y.reshape(*batch, *X.shape[-2:])


def tree_hadamard_pullback(
    sweep: Sweep, E: Array, F: Array, G: Array, P: Array, X: Array
) -> tuple[Array, Array, Array, Array]:
    """Gradients of <P, (M * F G^T) X> for F, G, X, and for the factors (..., n), by position; all else as above."""
    from structmask.backends._numba.tree_hadamard_pullback import tree_hadamard_pullback as fused

    batch = np.broadcast_shapes(*(a.shape[:-2] for a in (F, G, P, X)), E.shape[:-1])
    operands = (flat(a, batch, 2) for a in (F, G, P, X))
    found = fused(sweep.pieces, sweep.order, shared(E, batch, 1), *operands)
    dF, dG, dX, dE = (d.reshape(*batch, *d.shape[1:]) for d in found)
    return dF, dG, dX, dE


def tree_sums(sweep: Sweep, E: Array, X: Array) -> tuple[Array, Array]:
    """S and R (..., n, k), by position and in double precision, for X (..., n, k) in the caller's order.

    S[i] sums what is at and below i, R[i] everything else of its tree as it arrives at the parent of i: the product's
    row is S + E R.
    """
    E, X = _of_one_kind(E, X)
    if not numba_runs(X, complex_=True):
        xp = arrays.namespace(X)
        ordered = xp.take(arrays.cast_precision(X, "float64"), sweep.order, axis=-2)
        return _standard_tree.tree_sums(sweep.paths.on(arrays.home(X)), E, ordered)
    from structmask.backends._numba.tree import tree_sums as sums

    batch = np.broadcast_shapes(X.shape[:-2], E.shape[:-1])
    S, R = sums(sweep.order, sweep.first, shared(E, batch, 1), flat(X, batch, 2))
    return S.reshape(*batch, *X.shape[-2:]), R.reshape(*batch, *X.shape[-2:])


def _of_one_kind(E: Array, X: Array) -> tuple[Array, Array]:
    """Factors in double precision, both complex if one is."""
    E, X = arrays.as_same_kind(E, X)
    return arrays.cast_precision(E, "float64"), X


def least_elements(lengths: Array, order: Array) -> tuple[Array, Array, Array]:
    """For each node of a graph, in CSR form, the nodes that are closer to it than all before them in an order.

    Returns pointers (n + 1,), and for the entries of each node their places in the order, increasing, and their
    distances, decreasing.
    """
    graph = (lengths.indptr.astype(np.int64), lengths.indices.astype(np.int64), lengths.data, order.astype(np.int64))
    if get_backend() == "numpy":
        found = _standard_tree.least_elements(*graph)
    else:
        from structmask.backends._numba.plain_trees import least_elements as compiled

        found = compiled(*graph)
    nodes, ranks, distances = found
    by_node = np.argsort(nodes, kind="stable")
    pointers = np.searchsorted(nodes[by_node], np.arange(order.size + 1))
    return pointers, ranks[by_node], distances[by_node]
