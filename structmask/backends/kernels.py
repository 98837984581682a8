"""Operations that arrays cannot say well: one entry each, to numba for host arrays, else to the standard form."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft

from structmask.backends import _standard
from structmask.backends.arrays import Array, as_same_kind, broadcast_shapes, home, is_complex, namespace
from structmask.backends.config import get_backend, processors

_SERIAL_TRANSFORM = 1 << 16  # numbers below which the transforms of a library stay on one thread


def numba_runs(*operands: Array, complex_: bool = False) -> bool:
    """Whether the numba kernels take these arrays: on the host, all of one dtype, real unless `complex_`."""
    if get_backend() == "numpy":
        return False
    dtype = operands[0].dtype
    for x in operands:  # the plain loop that a small product has time for
        if home(x) != "numpy" or x.dtype != dtype:
            return False
    return complex_ or dtype.kind != "c"


def cupy_runs(*operands: Array) -> bool:
    """Whether the CUDA kernels take these arrays: on the device, real numbers of one precision."""
    return all(home(x) == "cupy" and x.dtype == operands[0].dtype and x.dtype.kind == "f" for x in operands)


def transform_threads(X: Array) -> AbstractContextManager[None]:
    """Lets the FFT of a host library use all processors, where that pays."""
    if get_backend() == "numpy" or home(X) != "numpy" or X.size < _SERIAL_TRANSFORM:
        return nullcontext()
    return scipy.fft.set_workers(processors())


def linear_scan(X: Array, decay: Array, *, upper: bool) -> Array:
    """Y_i = X_i + decay_i Y_{i-1}, or transposed; X (..., n, k), decay (..., n) of X's or double precision."""
    X, decay = as_same_kind(X, decay)
    if numba_runs(X, complex_=True):
        from structmask.backends._numba.scan import linear_scan as scan

        batch = broadcast_shapes(X.shape[:-2], decay.shape[:-1])
        Y = scan(flat(X, batch, 2), shared(decay, batch, 1), upper)
        return Y.reshape(*batch, *X.shape[-2:])
    if home(X) == "cupy" and not is_complex(decay):
        from structmask.backends import _cupy

        return _cupy.linear_scan(X, decay, upper=upper)
    if not upper:
        return _standard.linear_scan(X, decay)
    xp = namespace(X)
    Y = _standard.linear_scan(xp.flip(X, axis=-2), _standard.reversed_decay(decay))
    return xp.flip(Y, axis=-2)


def causal_hadamard(F: Array, G: Array, X: Array, decay: Array, *, upper: bool) -> tuple[Array, Array]:
    """(M * F G^T) X and its row sums for a decay mask M, or its transpose; F, G (..., n, r), X (..., n, k)."""
    if numba_runs(F, G, X) and not is_complex(decay):
        from structmask.backends._numba.causal import causal_hadamard as chunked

        batch = broadcast_shapes(*(a.shape[:-2] for a in (F, G, X)), decay.shape[:-1])
        f, g, x = (flat(a, batch, 2) for a in (F, G, X))
        Y, mass = chunked(f, g, x, shared(decay, batch, 1), upper)
        return Y.reshape(*batch, *X.shape[-2:]), mass.reshape(*batch, X.shape[-2])
    if not upper:
        return _standard.causal_hadamard(F, G, X, decay)
    xp = namespace(X)
    F, G, X = (xp.flip(a, axis=-2) for a in (F, G, X))
    Y, mass = _standard.causal_hadamard(F, G, X, _standard.reversed_decay(decay))
    return xp.flip(Y, axis=-2), xp.flip(mass, axis=-1)


def causal_pullback(
    F: Array, G: Array, P: Array, X: Array, decay: Array, *, upper: bool, columns: int
) -> tuple[Array, Array, Array]:
    """Gradients of <P, (M * F G^T) X> for F, G and the first columns of X, where `numba_runs`; shapes as above."""
    from structmask.backends._numba.causal_pullback import causal_pullback as walks

    batch, along = broadcast_shapes(*(a.shape[:-2] for a in (F, G, P, X)), decay.shape[:-1]), -1 if upper else 1
    f, g, p, x = (flat(a[..., ::along, :], batch, 2) for a in (F, G, P, X))  # a transposed mask is read from its end
    rates = shared(_standard.reversed_decay(decay) if upper else decay, batch, 1)
    gradients = walks(f, g, p, x, rates, columns)
    dF, dG, dX = (a.reshape(*batch, *a.shape[1:])[..., ::along, :] for a in gradients)
    return dF, dG, dX


def low_rank_hadamard(F: Array, G: Array, X: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """(left right^T * F G^T) X and its row sums, where `numba_runs`; left (..., m, p), right (..., n, p)."""
    from structmask.backends._numba.low_rank import low_rank_hadamard as chunks

    batch = broadcast_shapes(*(a.shape[:-2] for a in (F, G, X, left, right)))
    f, g, x = (flat(a, batch, 2) for a in (F, G, X))
    Y, mass = chunks(f, g, x, shared(left, batch, 2), shared(right, batch, 2))
    return Y.reshape(*batch, *Y.shape[-2:]), mass.reshape(*batch, Y.shape[-2])


def low_rank_pullback(
    F: Array, G: Array, P: Array, X: Array, left: Array, right: Array, *, columns: int
) -> tuple[Array, ...]:
    """Gradients of <P, (left right^T * F G^T) X> for F, G, the first columns of X, left and right."""
    from structmask.backends._numba.low_rank_pullback import low_rank_pullback as chunks

    batch = broadcast_shapes(*(a.shape[:-2] for a in (F, G, P, X, left, right)))
    f, g, p, x = (flat(a, batch, 2) for a in (F, G, P, X))
    gradients = chunks(f, g, p, x, shared(left, batch, 2), shared(right, batch, 2), columns)
    return tuple(a.reshape(*batch, *a.shape[1:]) for a in gradients)


def walsh_hadamard(X: Array) -> Array:
    """Products of X (..., n, k), n a power of two, with the Hadamard matrix (-1)^popcount(i & j), without scaling."""
    if not numba_runs(X, complex_=True):
        return _standard.walsh_hadamard(X)
    from structmask.backends._numba.walsh import walsh_hadamard as transform

    return transform(np.array(X, order="C").reshape(-1, *X.shape[-2:])).reshape(X.shape)


def as_real(X: Array) -> Array:
    """A complex host array (..., k) as a real one (..., 2k): real and imaginary parts side by side."""
    return np.ascontiguousarray(X).view(X.real.dtype)


def as_complex(X: Array) -> Array:
    """The inverse of `as_real`."""
    return np.ascontiguousarray(X).view(np.result_type(X.dtype, np.complex64))


class Convolution:
    """Products with real Toeplitz tables (*batch, m_1 + n_1 - 1, ...) on the CPU; plan and spectra are made once."""

    def __init__(self, offsets: Array, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        from structmask.backends._numba import fft_plan

        self.table = tuple(offsets.shape[-len(rows) :])
        self.batch = tuple(offsets.shape[: -len(rows)])
        sides = [pair for pair in zip(rows, columns, strict=True) if pair != (1, 1)] or [(1, 1)]
        rows, columns = zip(*sides, strict=True)
        self.plan = fft_plan.plan(rows, columns, offsets.dtype)
        self.offsets = offsets.reshape(-1, *self.plan.table_shape)
        self._phases: dict[int, Any] = {}

    @property
    def lengths(self) -> tuple[int, ...]:
        """Sides of the circulant."""
        return tuple(2 * axis.h for axis in self.plan.axes)

    @cached_property
    def spectrum(self) -> Array:
        return self.plan.spectrum(self.offsets)

    def _in_phases(self, count: int) -> Any:
        """The matrix for so few columns that several phases of each fill a vector."""
        from structmask.backends._numba import polyphase

        if count not in self._phases:
            self._phases[count] = polyphase.in_phases(self.plan, self.offsets, count)
        return self._phases[count]

    def product(self, X: Array) -> Array:
        """M @ X for X (..., n, k)."""
        from structmask.backends._numba import convolution, polyphase

        count = polyphase.phase_count(self.plan, X.shape[-1])
        phases = self._in_phases(count) if count > 1 else None
        heads, spectrum, (x,) = self._flat(phases.spectrum if phases else self.spectrum, X)
        Y = phases.product(spectrum, x) if phases else convolution.product(self.plan, spectrum, x)
        return self._shaped(Y, heads)

    def correlation(self, G: Array, X: Array) -> Array:
        """Gradient of <G, M X> for the table, summed over columns, and over heads that share the table."""
        from structmask.backends._numba import convolution

        heads, spectrum, (g, x) = self._flat(self.spectrum, G, X)
        table = convolution.offsets_gradient(self.plan, g, x, spectrum.shape[0])
        return table.reshape(*(heads if spectrum.shape[0] > 1 else self.batch), *self.table)

    def hadamard(self, F: Array, G: Array, X: Array) -> Array:
        """(M * F G^T) X, features multiplied in the first and contracted in the last stage of the transform."""
        from structmask.backends._numba import fused

        heads, spectrum, (f, g, x) = self._flat(self.spectrum, F, G, X)
        return self._shaped(fused.hadamard(self.plan, spectrum, f, g, x), heads)

    def hadamard_pullback(self, F: Array, G: Array, X: Array, P: Array) -> tuple[Array, Array, Array, Array]:
        """Gradients of <P, (M * F G^T) X> for F, G, X and the table."""
        from structmask.backends._numba import fused

        heads, spectrum, operands = self._flat(self.spectrum, F, G, X, P)
        *gradients, table = fused.hadamard_pullback(self.plan, spectrum, *operands)
        dF, dG, dX = (self._shaped(gradient, heads) for gradient in gradients)
        return dF, dG, dX, table.reshape(*(heads if spectrum.shape[0] > 1 else self.batch), *self.table)

    def _flat(self, spectrum: Array, *operands: Array) -> tuple[tuple[int, ...], Array, list[Array]]:
        heads = broadcast_shapes(self.batch, *(a.shape[:-2] for a in operands))
        spectrum = shared(spectrum.reshape(*self.batch, *spectrum.shape[1:]), heads, 1)
        return heads, spectrum, [flat(a, heads, 2) for a in operands]

    @staticmethod
    def _shaped(Y: Array, heads: tuple[int, ...]) -> Array:
        return Y.reshape(*heads, *Y.shape[-2:])


def csr_product(A: Array, values: Array, X: Array) -> Array:
    """Sparse matrices (..., m, n) with the pattern of A and stored entries (..., nnz), times X (..., n, k)."""
    if home(X) == "cupy" and cupy_runs(values, X.real):
        from structmask.backends import _cupy

        return _cupy.csr_product(A, values, X)
    if not numba_runs(values, X, complex_=True):
        return _standard.csr_product(A, values, X)
    from structmask.backends._numba.sparse import csr_product as product

    batch = broadcast_shapes(values.shape[:-1], X.shape[:-2])
    Y = product(A.indptr, A.indices, shared(values, batch, 1), flat(X, batch, 2), A.shape[0])
    return Y.reshape(*batch, A.shape[0], X.shape[-1])


def sampled_product(A: Array, rows: Array, F: Array, G: Array) -> Array:
    """The entries (..., nnz) of F G^T at the stored positions of a sparse matrix, `rows` being their rows."""
    batch = broadcast_shapes(F.shape[:-2], G.shape[:-2])
    if numba_runs(F, G, complex_=True):
        from structmask.backends._numba.sparse import sampled_product as sample

        return sample(A.indptr, A.indices, flat(F, batch, 2), flat(G, batch, 2)).reshape(*batch, A.indices.shape[0])
    if cupy_runs(F, G):
        from structmask.backends import _cupy

        return _cupy.sampled_product(A, rows, F, G)
    return _standard.sampled_product(rows, A.indices, F, G)


def rows_at_risk(
    F: Array, G: Array, X: Array, Y: Array, mass: Array | None, limits: tuple[float, float, float]
) -> Array:
    """Indices of rows that rounding may have spoilt in some head; limits as in the kernel."""
    from structmask.backends._numba.risk import rows_at_risk as risk

    heads = Y.shape[:-2]
    sums = np.full(Y.shape[:-1], np.nan, Y.dtype) if mass is None else mass
    f, g, x, y = (flat(a, heads, 2) for a in (F, G, X, Y))
    bad = risk(f, g, x, y, flat(sums, heads, 1), limits)
    return np.flatnonzero(bad.any(axis=0))


def dense_toeplitz(form: Any, batch: tuple[int, ...], F: Array, G: Array, X: Array) -> Any:
    """(M * F G^T) X and its row sums by tiles, M a Toeplitz matrix in gather form whose batch is given."""
    from structmask.backends._numba.dense import dense_toeplitz as tiles

    table, rows, columns, run, filled = form
    heads = broadcast_shapes(batch, *(a.shape[:-2] for a in (F, G, X)))
    tables = shared(table.reshape(*batch, table.shape[-1]), heads, 1)
    if filled.shape[0] > 1:
        filled = flat(filled.reshape(*batch, filled.shape[-1]), heads, 1)
    f, g, x = (flat(a, heads, 2) for a in (F, G, X))
    Y, mass = tiles(f, g, x, tables, rows, columns, run, filled)
    return Y.reshape(*heads, *Y.shape[-2:]), mass.reshape(*heads, mass.shape[-1])


def dense_toeplitz_pullback(form: Any, batch: tuple[int, ...], F: Array, G: Array, X: Array, P: Array) -> Any:
    """Gradients of <P, (M * F G^T) X> for F, G, X and the flat table (*batch, N), M as for `dense_toeplitz`."""
    from structmask.backends._numba.dense_pullback import dense_toeplitz_pullback as tiles

    table, rows, columns, run, _ = form
    heads = broadcast_shapes(batch, *(a.shape[:-2] for a in (F, G, X, P)))
    tables = shared(table.reshape(*batch, table.shape[-1]), heads, 1)
    f, g, x, p = (flat(a, heads, 2) for a in (F, G, X, P))
    *gradients, d_table = tiles(f, g, x, p, tables, rows, columns, run)
    dF, dG, dX = (gradient.reshape(*heads, *gradient.shape[-2:]) for gradient in gradients)
    return dF, dG, dX, d_table.reshape(*(heads if tables.shape[0] > 1 else batch), -1)


def dense_array(A: Array, F: Array, G: Array, X: Array) -> Any:
    """(A * F G^T) X and its row sums by tiles, A an array (..., m, n)."""
    from structmask.backends._numba.dense import dense_array as tiles

    heads = broadcast_shapes(*(a.shape[:-2] for a in (A, F, G, X)))
    f, g, x = (flat(a, heads, 2) for a in (F, G, X))
    Y, mass = tiles(f, g, x, shared(A, heads, 2))
    return Y.reshape(*heads, *Y.shape[-2:]), mass.reshape(*heads, mass.shape[-1])


def flat(a: Array, batch: tuple[int, ...], tail: int) -> Array:
    """A host array with its batch broadcast and flattened into one leading axis, C-contiguous."""
    if not batch and a.ndim == tail:
        return np.ascontiguousarray(a)[None]
    own, ends = a.shape[: a.ndim - tail], a.shape[a.ndim - tail :]
    full = a if own == batch else np.broadcast_to(a, (*batch, *ends))
    return np.ascontiguousarray(full.reshape(math.prod(batch), *ends) if len(batch) != 1 else full)


def shared(a: Array, batch: tuple[int, ...], tail: int) -> Array:
    """As `flat`, but one leading entry only where the array has no batch of its own."""
    if math.prod(a.shape[: a.ndim - tail]) == 1:
        return np.ascontiguousarray(a.reshape(1, *a.shape[a.ndim - tail :]))
    return flat(a, batch, tail)
