"""Recurrences of sparse matrices on the CPU: plans are made once, and the order of the nodes is theirs alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from structmask.backends.arrays import Array, blocks, home, is_complex, namespace
from structmask.backends.kernels import cupy_runs, numba_runs

_FAR = 4096  # mean |i - j| of the stored entries above which another order of the nodes may pay
_GAIN = 4  # by which it has to fall
_LANES = 8  # columns of a vector
_COLUMNS = 32  # of a block: rows of it fill a few cache lines


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
            self.columns: int | None = None
        else:
            self._steps, self.columns = _HostSteps(A, scale, shift), _COLUMNS

    def sum(self, X: Array, c: Array) -> Array:
        """sum_k c[..., k] T_k(B) X for X (..., n, q) and c (..., K + 1), batches broadcast; real or complex."""
        xp, batch, tail = namespace(X), np.broadcast_shapes(c.shape[:-1], X.shape[:-2]), tuple(X.shape[-2:])
        if math.prod(c.shape[:-1]) == 1:  # operands that share the function are columns side by side
            columns = xp.moveaxis(X, -2, 0).reshape(tail[0], -1)
            Y = self._one(columns, c.reshape(1, -1))[0].reshape(tail[0], *X.shape[:-2], tail[1])
            return xp.moveaxis(Y, 0, -2).reshape(*batch, *tail)
        operands, functions = X.reshape(-1, *tail), c.reshape(-1, c.shape[-1])
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

    def _one(self, X: Array, c: Array) -> Array:
        """All functions c (F, K + 1) of one operand (n, q), as (F, n, q)."""
        xp = namespace(X)
        if is_complex(c):
            sums = self._one(X, xp.concatenate([c.real, c.imag]))
            return sums[: len(c)] + 1j * sums[len(c) :]
        if is_complex(X):
            X = xp.ascontiguousarray(X)
            return self._one(X.view(X.real.dtype), c).view(X.dtype)
        step = self.columns or max(1, X.shape[1])
        parts = [self._steps.sums(X[:, a:b], c) for a, b in blocks(X.shape[1], step)]
        return parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=-1)


class _HostSteps:
    """The terms of the recurrence on the CPU, formed and summed in one pass over an order of the nodes of its own."""

    def __init__(self, A: Array, scale: float, shift: float) -> None:
        from structmask.backends._numba.chebyshev import AHEAD

        self.scale, self.shift = scale, shift
        self.order = _shorter_order(A)
        if self.order is not None:
            A = A[self.order][:, self.order]
            A.sort_indices()
        indices = np.concatenate([A.indices.astype(np.int32), np.zeros(AHEAD, np.int32)])
        self.matrix = A.indptr.astype(np.int64), indices, np.ascontiguousarray(A.data)

    def sums(self, X: Array, c: Array) -> Array:
        """sum_k c[f, k] T_k(B) X as (functions, n, q), for real X (n, q) and c (functions, K + 1)."""
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
