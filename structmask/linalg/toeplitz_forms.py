"""Tables with more structure than their offsets say: constants, bands, products over the axes.

A table is looked at once, in time linear in its size. What is found replaces the transform in products, never in
gradients: the gradient of a table reaches all of its offsets, whatever their values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.kronecker import Kronecker
from structmask.linalg.low_rank import LowRank
from structmask.linalg.planning import acting_backend, seconds
from structmask.linalg.toeplitz import Toeplitz

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALLEST = 64  # rows from which on it pays to look
_ROUNDINGS = 8  # by which a table may differ from a product over axes: as many as its own evaluation commits
_PROBES = 16


def simpler(mask: Toeplitz) -> StructuredMatrix | None:
    """The same matrix in a structure with a cheaper product, or None; for tables on the host."""
    if arrays.home(mask.offsets) != "numpy" or min(mask.shape[-2:]) < _SMALLEST or 0 in mask.shape:
        return None
    table = np.asarray(mask.offsets)
    if constant := _constant(mask, table):
        return constant
    found = _band(mask, table) if mask.levels == 1 else separable(mask)
    return found if found is not None and _pays(found, mask) else None


def _pays(found: StructuredMatrix, mask: Toeplitz) -> bool:
    """Whether a product with many columns is expected to take less time than by transforms."""
    if isinstance(found, Band):  # it would come back to this table otherwise
        return found.is_tiled
    backend, precision = acting_backend(mask._home), arrays.precision(mask)
    works = found._work(64), mask._circulant.work(64)
    own, transform = (seconds(work, backend, precision) for work in works)
    return own < transform


def _constant(mask: Toeplitz, table: NDArray[Any]) -> LowRank | None:
    """A constant is a product of two columns of ones, and has rank one."""
    m, n = mask.shape[-2:]
    heads = table.reshape(*table.shape[: -mask.levels], 1, -1)
    value = heads[..., :1]
    if not (heads == value).all():
        return None
    return LowRank(value * np.ones((m, 1), table.dtype), np.ones((n, 1), table.dtype))


def _band(mask: Toeplitz, table: NDArray[Any]) -> Band | None:
    """The offsets between the first and the last that are not zero in some head."""
    m, n = mask.shape[-2:]
    places = np.flatnonzero((table != 0).reshape(-1, table.shape[-1]).any(axis=0))
    first, last = int(places[0]), int(places[-1])
    if m != n or last - first >= n - 1 or not first <= n - 1 <= last:
        return None
    return Band(table[..., first : last + 1], n, upper=n - 1 - first)


def separable(mask: Toeplitz) -> Kronecker | None:
    """f(s_1, ..., s_d) = f_1(s_1) ... f_d(s_d): the Kronecker product of the matrices of the f_l, or None.

    The f_l are the lines through the largest entry, all but the first divided by it; for tables on the host.
    """
    if mask.levels == 1 or arrays.home(mask.offsets) != "numpy" or 0 in mask.shape:
        return None
    table, levels = np.asarray(mask.offsets), mask.levels
    sides = table.shape[-levels:]
    heads = table.reshape(-1, *sides)
    size = np.abs(heads).reshape(len(heads), -1)
    peaks = np.stack(np.unravel_index(size.argmax(axis=1), sides))
    if not size.max(axis=1).all():
        return None
    lines = [_lines(heads, peaks, level) for level in range(levels)]
    if not _is_product(heads, lines, size):
        return None
    pairs, batch = zip(lines, mask.column_grid, strict=True), table.shape[:-levels]
    return Kronecker(tuple(Toeplitz(line.reshape(*batch, -1), columns=(n,)) for line, n in pairs))


def _lines(heads: NDArray[Any], peaks: NDArray[Any], level: int) -> NDArray[Any]:
    """The lines (heads, N_l) through the peaks along an axis, divided by the peak on all axes but the first."""
    lines = []
    for table, peak in zip(heads, peaks.T, strict=True):
        index: list[Any] = list(peak)
        index[level] = slice(None)
        lines.append(table[tuple(index)] / (table[tuple(peak)] if level else 1))
    return np.stack(lines)


def _is_product(heads: NDArray[Any], lines: list[NDArray[Any]], size: NDArray[Any]) -> bool:
    """Whether the tables are the products of their lines up to rounding: at a few places, then everywhere."""
    unit = arrays.unit_roundoff(arrays.precision(heads))
    level = np.sqrt(np.mean(size**2, axis=1))
    places = np.random.default_rng(0).integers(0, size.shape[1], _PROBES)
    points = np.unravel_index(places, heads.shape[1:])
    probed = math.prod((line[:, point] for line, point in zip(lines, points, strict=True)), start=np.ones(()))
    flat = heads.reshape(size.shape)
    if not _agree(flat[:, places], probed, level, unit):
        return False
    product: Array = lines[0]
    for line in lines[1:]:
        product = product[..., None] * line.reshape(len(line), *(1,) * (product.ndim - 1), -1)
    return _agree(flat, product.reshape(size.shape), level, unit)


def _agree(a: NDArray[Any], b: NDArray[Any], level: NDArray[Any], unit: float) -> bool:
    """Whether entries differ by a few roundings of themselves or of their root mean square."""
    return bool((np.abs(a - b) <= _ROUNDINGS * unit * np.maximum(np.abs(a), level[:, None])).all())
