"""Edges as parameters: the Laplacian as a function of one weight an edge, and gradients back to the weights.

With U holding each edge once, W = U + U^T without counting loops twice, and the symmetric Laplacian is

    L = D - W   or   L = I - S W S,  S = D^-1/2;   the random-walk one is S L S^-1 of the latter.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs.laplacian import Kind, adjacency_laplacian, degrees, inverse_root


class Edges:
    """Weights of edges (a CSR matrix on and above the diagonal), and the matrices that are made of them on the host."""

    def __init__(self, upper: Array, kind: Kind) -> None:
        self.home, self.kind = arrays.home(upper.data), kind
        self.upper = scipy.sparse.csr_array(arrays.to_numpy(upper))
        self.u = np.repeat(np.arange(self.upper.shape[0]), np.diff(self.upper.indptr))
        self.v = self.upper.indices
        self.is_strict = self.u != self.v

    @cached_property
    def adjacency(self) -> Any:
        """W, both directions of every edge, in double precision."""
        w, strict = self.upper.data.astype(np.float64), self.is_strict
        ends = np.r_[self.u, self.v[strict]], np.r_[self.v, self.u[strict]]
        return scipy.sparse.csr_array(scipy.sparse.coo_array((np.r_[w, w[strict]], ends), shape=self.upper.shape))

    @cached_property
    def wide_laplacian(self) -> Any:
        """The symmetric Laplacian on the host, in double precision."""
        kind: Kind = "combinatorial" if self.kind == "combinatorial" else "symmetric"
        return adjacency_laplacian(self.adjacency, kind)

    @cached_property
    def _host_laplacian(self) -> Any:
        return self.wide_laplacian.astype(self.upper.dtype, copy=False)

    @cached_property
    def laplacian(self) -> Any:
        """The symmetric Laplacian, in the precision and home of the weights."""
        return arrays.move(self._host_laplacian, self.home)

    @cached_property
    def degrees(self) -> Array:
        """Sums of weights at each node."""
        return degrees(self.adjacency)

    @cached_property
    def roots(self) -> Array:
        """1 / sqrt(d), one for nodes without edges: their rows of L are zero anyway."""
        return np.where(self.degrees > 0, inverse_root(self.degrees), 1.0)

    @cached_property
    def _scales(self) -> tuple[Array, Array]:
        """The square roots and their inverses in the precision of the weights."""
        return self.roots.astype(self.upper.dtype), (1 / self.roots).astype(self.upper.dtype)

    @cached_property
    def condition(self) -> float:
        """By how much errors of the symmetric form grow: 1, or sqrt(d_max / d_min) for the random-walk kind."""
        d = self.degrees[self.degrees > 0]
        return math.sqrt(d.max() / d.min()) if self.kind == "random_walk" and d.size else 1.0

    def sides(self, *, is_transposed: bool) -> tuple[Array, Array] | None:
        """Left and right factors around the function of the symmetric Laplacian; None if there are none."""
        if self.kind != "random_walk":
            return None
        s = arrays.placed(self, "_scales", self.home)
        return (s[1], s[0]) if is_transposed else (s[0], s[1])

    # --- gradients --------------------------------------------------------------------------------------------------

    def laplacian_pullback(self, E: Array) -> Array:
        """Gradient for the weights of a gradient E (nnz,) for the stored entries of the symmetric Laplacian."""
        xp, (u, v, strict, forth, back) = arrays.namespace(E), self._placed("_ends")
        E = arrays.cast_precision(E, "float64")
        both = xp.take(E, forth) + xp.take(E, back)
        if self.kind == "combinatorial":
            own = xp.take(E, self._placed("_diagonal"))
            return self._finished(xp.where(strict, xp.take(own, u) + xp.take(own, v) - both, 0 * both))
        s, w = self._placed("roots"), self._placed("_wide_weights")
        both = xp.where(strict, both, both / 2)
        s_u, s_v = xp.take(s, u), xp.take(s, v)
        d_s = -self._summed("_starts", w * s_v * both) - self._summed("_targets", w * s_u * both)
        return self._finished(self._of_roots(d_s) - s_u * s_v * both)

    def sides_pullback(self, d_left: Array, d_right: Array, *, is_transposed: bool) -> Array:
        """Gradient for the weights of gradients (n,) for the factors of `sides`."""
        direct, inverse = (d_right, d_left) if is_transposed else (d_left, d_right)
        return self._finished(self._of_roots(direct - inverse / self._placed("roots") ** 2))

    def _of_roots(self, d_s: Array) -> Array:
        """Gradient for the weights of one for the roots: d s_i = -s_i^3 / 2 times the change of the degree."""
        xp, (u, v, strict, *_) = arrays.namespace(d_s), self._placed("_ends")
        s, d = self._placed("roots"), self._placed("degrees")
        d_degrees = xp.where(d > 0, -(s**3) / 2 * d_s, 0 * s)
        far = xp.take(d_degrees, v)
        return xp.take(d_degrees, u) + xp.where(strict, far, 0 * far)

    def _placed(self, name: str) -> Any:
        return arrays.placed(self, name, self.home)

    def _summed(self, name: str, values: Array) -> Array:
        """Sums (n,) of values of edges over the nodes that they start from, or lead to."""
        matrix = self._placed(name)
        return kernels.csr_product(matrix, matrix.data, values[:, None])[:, 0]

    @cached_property
    def _ends(self) -> tuple[Array, ...]:
        """Of every edge: nodes, whether it is no loop, places of both directions among the entries of the Laplacian."""
        return self.u, self.v, self.is_strict, self._place(self.u, self.v), self._place(self.v, self.u)

    @cached_property
    def _diagonal(self) -> Array:
        nodes = np.arange(self.upper.shape[0])
        return self._place(nodes, nodes)

    @cached_property
    def _wide_weights(self) -> Array:
        return self.upper.data.astype(np.float64)

    @cached_property
    def _starts(self) -> Any:
        return self._incidence(self.u)

    @cached_property
    def _targets(self) -> Any:
        return self._incidence(self.v)

    def _incidence(self, ends: Array) -> Any:
        shape = (self.upper.shape[0], ends.size)
        return scipy.sparse.csr_array((np.ones(ends.size), (ends, np.arange(ends.size))), shape=shape)

    def _place(self, i: Array, j: Array) -> Array:
        """Positions of entries among those stored of the symmetric Laplacian."""
        return np.searchsorted(self._keys, i * np.int64(self.upper.shape[0]) + j)

    @cached_property
    def _keys(self) -> Array:
        L = self._host_laplacian
        return np.repeat(np.arange(L.shape[0]), np.diff(L.indptr)) * np.int64(L.shape[0]) + L.indices

    def _finished(self, gradient: Array) -> Array:
        return arrays.cast(gradient, self.upper.dtype.name)
