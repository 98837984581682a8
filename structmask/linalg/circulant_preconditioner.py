"""Circulants near Toeplitz matrices: preconditioners that cost two transforms.

The table f is weighted by a window w and wrapped onto a period of N >= n offsets; the transform of that is the spectrum
of a circulant, and the leading n x n corner of its inverse is the preconditioner:

    lambda_j = sum_k w(k) f(k) exp(-2 pi i j k / N)        P = R F^-1 diag(1 / lambda) F R^T

One axis after the other for several levels. With N = n, w = 1 is Strang's circulant and w = 1 - |k| / n is T. Chan's.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.fft

from structmask.backends import _standard, arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.buckets import Buckets
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.elementary import Diagonal
from structmask.linalg.kronecker import Identity, Kronecker
from structmask.linalg.low_rank import LowRank
from structmask.linalg.stationary import Stationary
from structmask.linalg.toeplitz import Toeplitz

_ROOM = 1 / 16  # of a side: so much longer is the period, so that its two ends do not meet
_SMALLEST = 1e-13  # of the largest eigenvalue: below, one is zero as far as rounding tells
_FLOOR = 1e-4  # the same for a matrix that has no positive circulant: no eigenvalue is inverted to more
_FEW_COLUMNS = 2  # up to which the transforms are cheaper than the kernel of many columns


class Window(NamedTuple):
    """Weights of a table by distance, as a fraction of the side or of half the period."""

    weight: Callable[[np.ndarray], np.ndarray]
    of_period: bool = False

    def __call__(self, n: int) -> np.ndarray:
        """Weights of the offsets -(n - 1) ... n - 1."""
        return self.weight(np.abs(np.arange(1 - n, n)) / (period(n) / 2 if self.of_period else n))


def _parzen(x: np.ndarray) -> np.ndarray:
    """The cubic spline that the self-convolution of a triangle is: its transform is positive, and flat at zero."""
    return np.where(2 * x < 1, 1 - 6 * x**2 * (1 - x), 2 * (1 - x) ** 3)


WINDOWS = {
    "strang": Window(lambda x: np.heaviside(1 - x, 0.5), of_period=True),
    "parzen": Window(_parzen),
    "chan": Window(lambda x: 1 - x),
}


class Symbol(NamedTuple):
    """Eigenvalues (*batch, N_1, ..., N_d) of a circulant on a grid; without a grid, of a multiple of the identity."""

    values: Array
    grid: tuple[int, ...]


class CirculantInverse:
    """The leading corner of the inverse of a circulant, given by its eigenvalues; a function of blocks (..., n, k)."""

    def __init__(self, values: Array, grid: tuple[int, ...], lengths: tuple[int, ...], *, real: bool) -> None:
        self.grid, self.lengths, self.real = grid, lengths, real
        self.inverse = 1.0 / values

    def __call__(self, R: Array) -> Array:
        xp, k = arrays.namespace(R), R.shape[-1]
        if self.real and arrays.is_complex(R):
            parts = self(xp.concat([xp.real(R), xp.imag(R)], axis=-1))
            return parts[..., :k] + 1j * parts[..., k:]
        if self._has_kernel and k > _FEW_COLUMNS:
            return self.matrix._circulant.product(R)
        with kernels.transform_threads(R):
            return _standard.circulant_product(self._spectrum, R, self.grid, self.grid, self.lengths, real=self.real)

    @cached_property
    def _spectrum(self) -> Array:
        return self.inverse[..., : self.lengths[-1] // 2 + 1] if self.real else self.inverse

    @property
    def _has_kernel(self) -> bool:
        one_level = self.real and tuple(self.inverse.shape[-1:]) == self.lengths
        return one_level and kernels.numba_runs(self.inverse, complex_=True)

    @cached_property
    def matrix(self) -> Toeplitz:
        """The same as a Toeplitz matrix: a corner of a circulant is one."""
        xp, levels = arrays.namespace(self.inverse), len(self.grid)
        axes = tuple(range(-levels, 0))
        inverse = arrays.cast(self.inverse, "complex128")
        table = arrays.fft_module(xp).ifftn(inverse, axes=axes)
        table = xp.real(table) if self.real else table
        for axis, (n, period) in zip(axes, zip(self.grid, self.lengths, strict=True), strict=True):
            table = xp.take(table, xp.arange(1 - n, n) % period, axis=axis)
        return Toeplitz(table, levels=levels)


def circulant_inverse(
    a: StructuredMatrix, windows: Iterable[str], *, hermitian: bool
) -> tuple[CirculantInverse, float] | None:
    """The preconditioner by the first window whose circulant is positive, and the spread of its eigenvalues.

    None where the structure has no circulant. If no circulant of a Hermitian matrix is positive, that of the first
    window enters by the absolute values of its eigenvalues, so that the preconditioner is positive definite anyway.
    """
    first = None
    for window in windows:
        symbol = circulant_symbol(a, WINDOWS[window])
        if symbol is None or not symbol.grid:
            return None
        xp = arrays.namespace(symbol.values)
        values = xp.real(symbol.values) if hermitian else symbol.values
        size = xp.abs(values)
        largest = float(xp.max(size))
        low = float(xp.min(values if hermitian else size))
        found = Symbol(values, symbol.grid)
        first = first or found
        if low > _SMALLEST * largest:
            return _inverse(found, a), largest - low
    if first is None or (largest := float(xp.max(xp.abs(first.values)))) == 0:
        return None
    return _inverse(_floored(first, _FLOOR * largest, hermitian=hermitian), a), largest


def _inverse(symbol: Symbol, a: StructuredMatrix) -> CirculantInverse:
    return CirculantInverse(symbol.values, symbol.grid, tuple(map(period, symbol.grid)), real=a.dtype.kind != "c")


def _floored(symbol: Symbol, least: float, *, hermitian: bool) -> Symbol:
    """Eigenvalues none of which is small; absolute values for a Hermitian matrix."""
    xp, values = arrays.namespace(symbol.values), symbol.values
    size = xp.abs(values)
    return Symbol(xp.where(size < least, xp.full_like(values, least), size if hermitian else values), symbol.grid)


def circulant_symbol(a: StructuredMatrix, window: Window) -> Symbol | None:
    """Eigenvalues of a circulant near a matrix, by its structure; None where it has none.

    Sums, products and Kronecker products of matrices have those of their circulants, a diagonal matrix has its mean
    (the nearest circulant in the Frobenius norm), and a low-rank term, which moves few eigenvalues, has none.
    """
    match a:
        case Toeplitz() if a.row_grid == a.column_grid and 0 not in a.shape:
            return Symbol(_sampled(a.offsets, a.row_grid, window), a.row_grid)
        case Band() | Buckets() | Stationary():
            return circulant_symbol(a.toeplitz, window)
        case Diagonal():
            return Symbol(arrays.namespace(a.d).sum(a.d, axis=-1) / max(1, a.shape[-1]), ())
        case LowRank(has_sparse_factors=False):
            return Symbol(arrays.namespace(a.left).zeros((), dtype=a.left.dtype), ())
        case Scaled():
            inner = circulant_symbol(a.matrix, window)
            return None if inner is None else Symbol(a.factor * inner.values, inner.grid)
        case Sum():
            return _joined(operator.add, a.terms, window)
        case Product():
            return _joined(operator.mul, (a.left, a.right), window)
        case Kronecker():
            return _outer(a.factors, window)
    return None


def circulant_spectrum(a: Toeplitz) -> Array:
    """Eigenvalues (*batch, n_1, ..., n_d) of a Toeplitz matrix that is a circulant."""
    table = a.offsets
    for axis, n in zip(range(-a.levels, 0), a.row_grid, strict=True):
        xp = arrays.namespace(table)
        table = xp.take(table, xp.arange(n - 1, 2 * n - 1), axis=axis)
    return _transformed(table, a.levels)


def period(n: int) -> int:
    """Length of the period for a side: a fast one with some room."""
    return int(scipy.fft.next_fast_len(math.ceil((1 + _ROOM) * n), real=True))


def _sampled(table: Array, grid: tuple[int, ...], window: Window) -> Array:
    """Transform of a weighted table (..., 2 n_1 - 1, ...), wrapped onto its period."""
    xp, levels = arrays.namespace(table), len(grid)
    axes = tuple(range(-levels, 0))
    for axis, n in zip(axes, grid, strict=True):
        table = table * xp.asarray(np.reshape(window(n), (-1,) + (1,) * (-1 - axis)))
        table = _wrapped(table, n, axis)
    return _transformed(table, levels)


def _transformed(table: Array, levels: int) -> Array:
    xp = arrays.namespace(table)
    table = table if xp is np else arrays.cast(table, "complex128")  # numpy's transforms of real numbers take half
    return arrays.fft_module(xp).fftn(table, axes=tuple(range(-levels, 0)))


def _wrapped(table: Array, n: int, axis: int) -> Array:
    """Offsets -(n - 1) ... n - 1 along an axis, modulo the period, from 0 on."""
    xp = arrays.namespace(table)
    table = xp.moveaxis(table, axis, -1)
    gap = xp.zeros((*table.shape[:-1], period(n) - n), dtype=table.dtype)
    front = xp.concat([table[..., n - 1 :], gap], axis=-1)
    back = xp.concat([gap, xp.zeros_like(table[..., :1]), table[..., : n - 1]], axis=-1)
    return xp.moveaxis(front + back, -1, axis)


def _joined(operation: Any, parts: Iterable[StructuredMatrix], window: Window) -> Symbol | None:
    """The sum or product of circulants on one grid."""
    symbols = [circulant_symbol(part, window) for part in parts]
    known = [symbol for symbol in symbols if symbol is not None]
    grids = {symbol.grid for symbol in known} - {()}
    if len(known) < len(symbols) or len(grids) > 1:
        return None
    grid = grids.pop() if grids else ()
    lifted = [symbol.values if symbol.grid == grid else _placed(symbol, 0, len(grid)) for symbol in known]
    return Symbol(functools.reduce(operation, lifted), grid)


def _outer(factors: Iterable[StructuredMatrix], window: Window) -> Symbol | None:
    """The Kronecker product of circulants; a multiple of the identity has the same eigenvalue along its axis."""
    known = [(f, None if isinstance(f, Identity) else circulant_symbol(f, window)) for f in factors]
    if any(symbol is None and not isinstance(f, Identity) for f, symbol in known):
        return None
    grids = [symbol.grid if symbol is not None and symbol.grid else (f.shape[-1],) for f, symbol in known]
    grid = sum(grids, ())
    values, before = None, 0
    for own, (_, symbol) in zip(grids, known, strict=True):
        if symbol is not None:
            part = _placed(symbol, before, len(grid))
            values = part if values is None else values * part
        before += len(own)
    return None if values is None else Symbol(values, grid)


def _placed(symbol: Symbol, before: int, levels: int) -> Array:
    """Eigenvalues with axes of length one around their own, to be some of several levels."""
    values, own = symbol.values, len(symbol.grid)
    shape, batch = tuple(values.shape), values.ndim - own
    around = (1,) * before, (1,) * (levels - before - own)
    return arrays.namespace(values).reshape(values, (*shape[:batch], *around[0], *shape[batch:], *around[1]))
