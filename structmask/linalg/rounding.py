"""Which rows of a masked product rounding may have spoilt.

Local algorithms (tiles, scans, sparse products) are accurate row by row. A transform is not: it spreads its rounding
evenly over a column, so that rows much smaller than the others lose digits. The size of that error is known: per entry
about ``unit`` times the root mean square of the column that comes out, plus ``column`` times the 2-norm of the one that
went in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array

if TYPE_CHECKING:
    from structmask.linalg.base import StructuredMatrix

TOLERANCE = {"float32": 5e-6, "float64": 1e-10}  # error of a row, relative to the row, beyond which it is mended


class Rounding(NamedTuple):
    """Expected error of an entry of a product, relative to the rms of the result and to the 2-norm of the operand."""

    unit: float = 0.0
    column: float = 0.0

    @property
    def is_local(self) -> bool:
        """Whether every row is accurate relative to itself."""
        return self.unit == 0 and self.column == 0

    @property
    def is_known(self) -> bool:
        """Whether the error can be estimated."""
        return not math.isnan(self.unit + self.column)


UNKNOWN = Rounding(math.nan, math.nan)


def rounding_of(matrix: StructuredMatrix, unit: float) -> Rounding:
    """The rounding of a matrix's own product at a unit roundoff; a structure without `_rounding` is local."""
    method: Any = getattr(matrix, "_rounding", None)
    return Rounding() if method is None else method(unit)


def balanced(F: Array, G: Array) -> tuple[Array, Array]:
    """Features scaled by powers of two, F_r up as G_r down, so that the columns of G are about equally large.

    Their product is the same to the last bit, and a transform that takes several features at once no longer loses the
    digits of a small one beside a large one. On the host columns that are equally large already stay as they are.
    """
    xp = arrays.namespace(G)
    size = xp.sum(_squared(G), axis=-2, keepdims=True)
    known = (size > 0) & xp.isfinite(size)
    exponent = xp.round(xp.log2(xp.where(known, size, xp.ones_like(size))) / 2)
    if arrays.home(G) == "numpy" and np.all(np.ptp(exponent, axis=-1) <= 1):
        return F, G
    scale = xp.exp2(exponent) if hasattr(xp, "exp2") else 2.0**exponent
    return F * scale, G * (1 / scale)


def rows_at_risk(F: Array, G: Array, X: Array, Y: Array, mass: Array | None, rounding: Rounding) -> Array:
    """Indices of rows whose expected error, in any head, exceeds the tolerance relative to the row.

    F, G, X as in the masked product, Y its result and `mass` its row sums, tested alike if given. The squared error of
    row i is estimated by sum_r F_ir^2 column^2 |G_r x|^2 + |F_i|^2 unit^2 mean_j (Y_j / |F_j|)^2, the largest over x.
    """
    xp = arrays.namespace(X)
    if kernels.numba_runs(F, G, X, Y):
        return kernels.rows_at_risk(F, G, X, Y, mass, (*rounding, TOLERANCE[arrays.precision(Y)]))
    f, g, x = map(_squared, (F, G, X))
    bad = _exceeds(f, _of_pairs(_row_maxima(xp.matrix_transpose(g) @ x)), Y, rounding)
    if mass is not None:
        bad = bad | _exceeds(f, _of_pairs(xp.sum(g, axis=-2)), mass[..., None], rounding)
    if bad.ndim > 1:
        bad = xp.any(bad, axis=tuple(range(bad.ndim - 1)))
    return xp.nonzero(bad)[0]


def _of_pairs(norms: Array) -> Array:
    """The larger norm of each pair of features: two neighbours may be the parts of one complex transform."""
    xp, r = arrays.namespace(norms), norms.shape[-1]
    padded = xp.concat([norms, xp.zeros_like(norms[..., : r % 2])], axis=-1)
    pairs = xp.reshape(padded, (*norms.shape[:-1], -1, 2))
    largest = xp.broadcast_to(xp.max(pairs, axis=-1, keepdims=True), pairs.shape)
    return xp.reshape(largest, padded.shape)[..., :r]


def _exceeds(f: Array, norms: Array, Y: Array, rounding: Rounding) -> Array:
    """Rows (..., m) whose error is too large; f (..., m, r) squared features, norms (..., r) of the transformed."""
    xp = arrays.namespace(Y)
    y, weight = _squared(Y), _row_sums(f)
    safe = xp.where(weight == 0, xp.ones_like(weight), weight)
    level = xp.max(xp.matrix_transpose(y) @ (1 / safe)[..., None], axis=(-2, -1)) / Y.shape[-2]
    spread = (f @ norms[..., None])[..., 0]
    error = rounding.column**2 * spread + rounding.unit**2 * weight * level[..., None]
    return error > TOLERANCE[arrays.precision(Y)] ** 2 * _row_maxima(y)


def _row_sums(a: Array) -> Array:
    """Sums over the last axis, as a product: quick also where that axis is short."""
    xp = arrays.namespace(a)
    return (a @ xp.ones((a.shape[-1], 1), dtype=a.dtype))[..., 0]


def _row_maxima(a: Array) -> Array:
    """Largest entries over the last axis, with rows side by side: quick also where that axis is short."""
    xp = arrays.namespace(a)
    side_by_side = xp.reshape(xp.reshape(xp.matrix_transpose(a), (-1,)), (*a.shape[:-2], a.shape[-1], a.shape[-2]))
    return xp.max(side_by_side, axis=-2)


def _squared(a: Array) -> Array:
    """Squared absolute values."""
    xp = arrays.namespace(a)
    return xp.real(a * xp.conj(a)) if arrays.is_complex(a) else a * a
