"""Recurrences of sparse matrices on the CPU: plans are made once, and the order of the nodes is theirs alone."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from structmask.backends.arrays import Array, home, is_complex, namespace
from structmask.backends.kernels import cupy_runs, numba_runs

_NEAR = 2048  # |i - j| up to which all stored entries may lie for several terms to pass over the nodes at once
_FAR = 4096  # their mean above which another order of the nodes may pay if they do not
_GAIN = 4  # by which it has to fall


def has_recurrence(values: Array) -> bool:
    """Whether there are kernels for the recurrences of a sparse matrix with these entries."""
    return numba_runs(values) or cupy_runs(values)


class Recurrence:
    """Sums of Chebyshev polynomials of one real sparse matrix A (n, n), its spectrum in an interval."""

    def __init__(self, A: Array, interval: tuple[float, float]) -> None:
        low, high = interval
        scale, shift = 2 / (high - low), (high + low) / (high - low)
        if home(A) == "cupy":
            from structmask.backends._cupy import ChebyshevSteps

            self._steps: Any = ChebyshevSteps(A, scale, shift)
        else:
            self._steps = _HostSteps(A, scale, shift)
        self._slope = 2 * scale

    def sum(self, X: Array, c: Array) -> Array:
        """sum_k c[..., k] T_k(B) X for X (..., n, q) and c (..., K + 1), batches broadcast; real or complex."""
        xp, batch, tail = namespace(X), np.broadcast_shapes(c.shape[:-1], X.shape[:-2]), tuple(X.shape[-2:])
        if math.prod(c.shape[:-1]) == 1:  # operands that share the function are columns side by side
            columns = xp.moveaxis(X, -2, 0).reshape(tail[0], math.prod(X.shape[:-2]) * tail[1])
            Y = self._one(columns, c.reshape(1, -1))[0].reshape(tail[0], *X.shape[:-2], tail[1])
            return xp.moveaxis(Y, 0, -2).reshape(*batch, *tail)
        operands, functions = X.reshape(math.prod(X.shape[:-2]), *tail), c.reshape(-1, c.shape[-1])
        x_index, c_index = (
            np.broadcast_to(np.arange(math.prod(own)).reshape(own), batch).reshape(-1)
            for own in (X.shape[:-2], c.shape[:-1])
        )
        Y = xp.empty((x_index.size, *tail), dtype=np.result_type(X.dtype, c.dtype))
        for x in range(len(operands)):
            mine = np.flatnonzero(x_index == x).tolist()
            sums = self._one(operands[x], xp.stack([functions[f] for f in c_index[mine].tolist()]))
            for place, own in zip(mine, sums, strict=True):
                Y[place] = own
        return Y.reshape(*batch, *tail)

    def pullback(self, X: Array, G: Array, c: Array) -> tuple[Array, Array, Array, Array] | None:
        """The sum, and its cotangents for X, c and the stored entries of A, from that of the result, G.

        X and G (..., n, q) have one batch, which that of c (..., K + 1) broadcasts to, as that of its cotangent does.
        None where there is no kernel for it: on a GPU, for matrices that are not symmetric and complex coefficients.
        """
        steps = self._steps
        if not isinstance(steps, _HostSteps) or is_complex(c) or X.dtype != G.dtype or not X.size:
            return None
        if not (X.real.dtype == c.dtype == steps.matrix[2].dtype) or not steps.is_symmetric:
            return None
        if math.prod(c.shape[:-1]) == 1:  # all operands are columns side by side
            x, g = (np.moveaxis(a, -2, 0).reshape(X.shape[-2], -1) for a in (X, G))
            Y, Z, d_c, d_data = self._one_pullback(x, g, c.reshape(-1))
            Y, Z = (np.moveaxis(a.reshape(X.shape[-2], *X.shape[:-2], -1), 0, -2) for a in (Y, Z))
            return Y, Z, d_c.reshape(c.shape), d_data
        c = np.broadcast_to(c, (*X.shape[:-2], c.shape[-1]))
        parts = [self._one_pullback(X[at], G[at], c[at]) for at in np.ndindex(*X.shape[:-2])]
        Y, Z, d_c, d_data = zip(*parts, strict=True)
        Y, Z, d_c = (np.stack(part).reshape(*X.shape[:-2], *part[0].shape) for part in (Y, Z, d_c))
        return Y, Z, d_c, sum(d_data)

    def _one_pullback(self, X: Array, G: Array, c: Array) -> tuple[Array, Array, Array, Array]:
        """For one operand (n, q) and one function (K + 1,)."""
        kind = X.dtype
        X, G = (np.ascontiguousarray(a).view(c.dtype) for a in (X, G))
        Y, Z, d_c, d_data = self._steps.pullback(X, G, c)
        Y, Z = (np.ascontiguousarray(a).view(kind) for a in (Y, Z))
        return Y, Z, d_c.astype(c.dtype), (self._slope * d_data).astype(c.dtype)

    def _one(self, X: Array, c: Array) -> Array:
        """All functions c (F, K + 1) of one operand (n, q), as (F, n, q)."""
        xp = namespace(X)
        if is_complex(c):
            sums = self._one(X, xp.concatenate([c.real, c.imag]))
            return sums[: len(c)] + 1j * sums[len(c) :]
        if is_complex(X):
            X = xp.ascontiguousarray(X)
            return self._one(X.view(X.real.dtype), c).view(X.dtype)
        return self._steps.sums(X, c)


class _HostSteps:
    """The terms of the recurrence on the CPU, several in one passage over an order of the nodes of its own."""

    def __init__(self, A: Array, scale: float, shift: float) -> None:
        from structmask.backends._numba.chebyshev import AHEAD

        n, order = A.shape[0], _shorter_order(A)
        self._given, self.order = A, np.arange(n) if order is None else order
        values = np.concatenate([2 * scale * A.data, np.full(n, -2 * shift, A.dtype)])
        ends = tuple(np.concatenate([end, np.arange(n)]) for end in _ends(A, _inverse(self.order)))
        B = scipy.sparse.csr_array(scipy.sparse.coo_array((values, ends), shape=A.shape))  # entries of zero stay
        B.sort_indices()
        self.reach = int(_distances(B).max(initial=0))
        indices = np.concatenate([B.indices.astype(np.int32), np.zeros(AHEAD, np.int32)])
        self.matrix = B.indptr.astype(np.int64), indices, np.ascontiguousarray(B.data, dtype=A.dtype)

    @cached_property
    def entries(self) -> Array:
        """Positions here of the given stored entries."""
        (indptr, indices, data), n = self.matrix, np.int64(self.order.size)
        keys = np.repeat(np.arange(n), np.diff(indptr)) * n + indices[: data.size]
        rows, columns = _ends(self._given, _inverse(self.order))
        return np.searchsorted(keys, rows * n + columns)

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether the matrix is its own transpose: then one recurrence serves both."""
        return not (self._given != self._given.T).nnz

    def sums(self, X: Array, c: Array) -> Array:
        """sum_k c[f, k] T_k(B) X as (functions, n, q), for real X (n, q) and c (functions, K + 1)."""
        from structmask.backends._numba.chebyshev import chebyshev_sum

        return chebyshev_sum(self.matrix, self.order, self.reach, np.ascontiguousarray(X), np.ascontiguousarray(c))

    def pullback(self, X: Array, G: Array, c: Array) -> tuple[Array, Array, Array, Array]:
        """The sum, and its cotangents for X (n, q), c (K + 1,) and the given stored entries of 2 B."""
        from structmask.backends._numba.chebyshev_pullback import chebyshev_pullback

        operands = map(np.ascontiguousarray, (X, G, c))
        Y, Z, d_c, d_data = chebyshev_pullback(self.matrix, self.order, self.reach, *operands)
        return Y, Z, d_c, d_data[self.entries]


def _shorter_order(A: Array) -> Array | None:
    """An order of the nodes in which neighbours are near, if it brings all of them near or most much nearer."""
    before = _distances(A)
    if before.max(initial=0) <= _NEAR:
        return None
    order = reverse_cuthill_mckee(scipy.sparse.csr_array(A), symmetric_mode=True).astype(np.int64)
    after = _distances(A, _inverse(order))
    is_much_nearer = before.mean() >= _FAR and after.mean() * _GAIN < before.mean()
    return order if after.max() <= _NEAR or is_much_nearer else None


def _inverse(order: Array) -> Array:
    """The place of every node in an order."""
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return place


def _ends(A: Array, place: Array) -> tuple[Array, Array]:
    """Row and column of every stored entry, each node at its place."""
    return np.repeat(place, np.diff(A.indptr)), place[A.indices]


def _distances(A: Array, place: Array | None = None) -> Array:
    """|i - j| of every stored entry."""
    rows, columns = _ends(A, np.arange(A.shape[0]) if place is None else place)
    return np.abs(rows - columns)
