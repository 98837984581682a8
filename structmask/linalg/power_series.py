"""Polynomials in a matrix by powers of it: what short walks on a graph expect to see.

    Y = sum_{l < T} c_l A^l X     by Horner's rule:     Y_{T-1} = c_{T-1} X,   Y_l = A Y_{l+1} + c_l X,   Y = Y_0

T - 1 products with A, and no power of A is ever formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding, rounding_of


@dataclass(frozen=True, eq=False, repr=False)
class PowerSeries(StructuredMatrix):
    """sum_l c_l A^l for l = 0 ... T - 1.

    Parameters
    ----------
    matrix : StructuredMatrix (..., n, n)
        A.
    coefficients : array (..., T)
        c_0 ... c_{T-1}, T >= 1. Leading axes are a batch: several polynomials in one matrix.

    Notes
    -----
    A product costs T - 1 products with A. Where the powers grow, or signs alternate, a series in Chebyshev polynomials
    (`matrix_function`) is the more accurate form.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Dense
    >>> from structmask.linalg import PowerSeries
    >>> PowerSeries(Dense([[0.0, 1.0], [0.0, 0.0]]), [1.0, 0.5, 7.0]).to_dense()
    array([[1. , 0.5],
           [0. , 1. ]])
    """

    matrix: StructuredMatrix
    coefficients: Array

    def __post_init__(self) -> None:
        coefficients = arrays.as_array(self.coefficients, "PowerSeries(coefficients)")
        if coefficients.ndim < 1 or coefficients.shape[-1] < 1:
            msg = f"PowerSeries needs one or more coefficients (..., T), got shape {tuple(coefficients.shape)}"
            raise ValueError(msg)
        if not isinstance(self.matrix, StructuredMatrix):
            msg = f"PowerSeries needs a StructuredMatrix, got {type(self.matrix).__name__}; wrap it as Dense or Sparse"
            raise TypeError(msg)
        if self.matrix.shape[-1] != self.matrix.shape[-2]:
            msg = f"powers need a square matrix, got {self.matrix!r}"
            raise ValueError(msg)
        object.__setattr__(self, "coefficients", coefficients)
        np.broadcast_shapes(tuple(coefficients.shape[:-1]), self.matrix.shape[:-2])

    @property
    def length(self) -> int:
        """Number T of coefficients."""
        return int(self.coefficients.shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(tuple(self.coefficients.shape[:-1]), self.matrix.shape[:-2])
        return (*batch, *self.matrix.shape[-2:])

    def _matmat(self, X: Array) -> Array:
        c = self.coefficients[..., None, None]
        Y = c[..., -1, :, :] * X
        for step in range(self.length - 2, -1, -1):
            Y = self.matrix._matmat(Y) + c[..., step, :, :] * X
        if self.length > 1 or Y.ndim >= self.ndim:
            return Y
        return arrays.namespace(X).broadcast_to(Y, (*self.shape[:-2], *Y.shape[-2:]))

    def transpose(self) -> PowerSeries:
        return PowerSeries(self.matrix.transpose(), self.coefficients)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self._forward(G, X, self._adjoints(G))[1]

    def _joint_pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients]:
        """The product with X, that of the adjoint with G, and the gradients."""
        Z, adjoints = self._adjoint(G)
        Y, gradients = self._forward(G, X, adjoints)
        return Y, Z, gradients

    def _adjoint(self, G: Array) -> tuple[Array, list[Array]]:
        """The adjoint's product with G, Z_0, and Z_1 ... Z_{T-1} on the way."""
        adjoints = self._adjoints(G)
        return self._adjoint_step(0, G, adjoints), adjoints

    def _adjoints(self, G: Array) -> list[Array]:
        """Z_1 ... Z_{T-1}."""
        found: list[Array] = []
        for step in range(self.length - 1, 0, -1):
            found.insert(0, self._adjoint_step(step, G, found))
        return found

    def _adjoint_step(self, step: int, G: Array, later: list[Array]) -> Array:
        """Z_l = conj(c_l) G + A^H Z_{l+1}, given those that follow."""
        Z = arrays.conj(self.coefficients[..., step, None, None]) * G
        return Z + self._adjoint_matrix._matmat(later[0]) if later else Z

    def _forward(self, G: Array, X: Array, adjoints: list[Array]) -> tuple[Array, Gradients]:
        """The product sum_l c_l X_l, X_l = A^l X, and the gradients: <G, X_l> for c_l, and Z_{l+1} X_l^H for A."""
        xp, c = arrays.namespace(X), self.coefficients[..., None, None]
        Y, d_c, d_matrix = c[..., 0, :, :] * X, [_inner(G, X)], None
        for step, Z in enumerate(adjoints, 1):
            own = self._matrix_pullback(Z, X)
            d_matrix = own if d_matrix is None else added(d_matrix, own)
            X = self.matrix._matmat(X)
            Y = Y + c[..., step, :, :] * X
            d_c.append(_inner(G, X))
        shape, complex_ = tuple(self.coefficients.shape), arrays.is_complex(self.coefficients)
        return Y, {
            "matrix": self._matrix_pullback(0 * G, X) if d_matrix is None else d_matrix,
            "coefficients": unbroadcast(xp.stack(d_c, axis=-1), shape, complex_=complex_),
        }

    def _matrix_pullback(self, Z: Array, X: Array) -> Gradients:
        return self.matrix.pullback(*arrays.one_batch(*arrays.as_same_kind(Z, X)))

    @cached_property
    def _adjoint_matrix(self) -> StructuredMatrix:
        return self.matrix.mH

    def _work(self, columns: int) -> Work:
        heads = math.prod(self.shape[:-2]) / max(1, math.prod(self.matrix.shape[:-2]))
        passes = Work(bytes=3.0 * self.dtype.itemsize * math.prod(self.shape[:-1]) * columns)
        return (self.matrix._work(columns) * max(1.0, heads) + passes) * (self.length - 1)

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if rounding_of(self.matrix, unit).is_local else UNKNOWN

    @property
    def error_bound(self) -> float:
        return 0.0 if self.length == 1 or self.matrix.error_bound == 0 else math.nan

    def __repr__(self) -> str:
        return f"PowerSeries({self.matrix!r}, {self.length} terms, {self.dtype})"


def _inner(G: Array, Y: Array) -> Array:
    """<Y, G> over the last two axes."""
    xp = arrays.namespace(G)
    return xp.sum(G * (xp.conj(Y) if arrays.is_complex(Y) else Y), axis=(-2, -1))
