"""Recurrences of sparse matrices on the CPU: plans are made once, and the order of the nodes is theirs alone."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from structmask.backends.arrays import Array, blocks, is_complex

_FAR = 4096  # mean |i - j| of the stored entries above which another order of the nodes may pay
_GAIN = 4  # by which it has to fall
_COLUMNS = 32  # of a block: rows of it fill a few cache lines


class Recurrence:
    """Sums of Chebyshev polynomials of one real sparse matrix A (n, n), its spectrum in an interval."""

    def __init__(self, A: Array, interval: tuple[float, float]) -> None:
        from structmask.backends._numba.chebyshev import AHEAD

        low, high = interval
        self.scale, self.shift = 2 / (high - low), (high + low) / (high - low)
        self.order = _shorter_order(A)
        if self.order is not None:
            A = A[self.order][:, self.order]
            A.sort_indices()
        indices = np.concatenate([A.indices.astype(np.int32), np.zeros(AHEAD, np.int32)])
        self.matrix = A.indptr.astype(np.int64), indices, np.ascontiguousarray(A.data)

    def sum(self, X: Array, c: Array) -> Array:
        """sum_k c[..., k] T_k(B) X for X (..., n, q) and c (..., K + 1), batches broadcast; real or complex."""
        batch, tail = np.broadcast_shapes(c.shape[:-1], X.shape[:-2]), tuple(X.shape[-2:])
        if math.prod(c.shape[:-1]) == 1:  # operands that share the function are columns side by side
            columns = np.moveaxis(X, -2, 0).reshape(tail[0], -1)
            Y = self._one(columns, c.reshape(1, -1))[0].reshape(tail[0], *X.shape[:-2], tail[1])
            return np.moveaxis(Y, 0, -2).reshape(*batch, *tail)
        operands, functions = X.reshape(-1, *tail), c.reshape(-1, c.shape[-1])
        x_index, c_index = (
            np.broadcast_to(np.arange(math.prod(own)).reshape(own), batch).reshape(-1)
            for own in (X.shape[:-2], c.shape[:-1])
        )
        Y = np.empty((x_index.size, *tail), np.result_type(X, c))
        for x in range(len(operands)):
            mine = np.flatnonzero(x_index == x)
            Y[mine] = self._one(operands[x], functions[c_index[mine]])
        return Y.reshape(*batch, *tail)

    def _one(self, X: Array, c: Array) -> Array:
        """All functions c (F, K + 1) of one operand (n, q), as (F, n, q)."""
        if is_complex(c):
            real, imaginary = np.split(self._one(X, np.concatenate([c.real, c.imag])), 2)
            return real + 1j * imaginary
        if is_complex(X):
            X = np.ascontiguousarray(X)
            return self._one(X.view(X.real.dtype), c).view(X.dtype)
        parts = [self._block(X[:, a:b], c) for a, b in blocks(X.shape[1], _COLUMNS)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _block(self, X: Array, c: Array) -> Array:
        from structmask.backends._numba.chebyshev import chebyshev_sum

        x = np.ascontiguousarray(X if self.order is None else X[self.order])
        Y = chebyshev_sum(self.matrix, x, np.ascontiguousarray(c), self.scale, self.shift)
        if self.order is None:
            return Y
        back = np.empty_like(Y)
        back[:, self.order] = Y
        return back


def _shorter_order(A: Array) -> Array | None:
    """An order of the nodes in which the neighbours of a node are near it, if that is a gain and worth it."""
    if A.shape[0] <= _FAR or (before := _mean_distance(A, np.arange(A.shape[0]))) < _FAR:
        return None
    order = reverse_cuthill_mckee(scipy.sparse.csr_array(A), symmetric_mode=True)
    place = np.empty(order.size, dtype=np.int64)
    place[order] = np.arange(order.size)
    return order if _mean_distance(A, place) * _GAIN < before else None


def _mean_distance(A: Array, place: Array) -> float:
    rows = np.repeat(place, np.diff(A.indptr))
    return float(np.mean(np.abs(rows - place[A.indices]))) if A.nnz else 0.0
