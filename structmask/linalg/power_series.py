"""Polynomials in a matrix by powers of it: what short walks on a graph expect to see.

    Y = sum_{l < T} c_l A^l X     by Horner's rule:     Y_{T-1} = c_{T-1} X,   Y_l = A Y_{l+1} + c_l X,   Y = Y_0

T - 1 products with A, and no power of A is ever formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
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
        """With X_l = A^l X and Z_l = conj(c_l) G + A^H Z_{l+1} the gradients are <G, X_l> for c_l and Z_{l+1} X_l^H."""
        return self._gradients(G, self._powers(X), self._adjoints(G))

    def _joint_pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients]:
        """The product with X, sum_l c_l X_l, that of the adjoint with G, Z_0, and the gradients."""
        powers, adjoints = self._powers(X), self._adjoints(G)
        c = self.coefficients[..., None, None]
        Y = c[..., -1, :, :] * powers[-1]
        for step in range(self.length - 2, -1, -1):
            Y = Y + c[..., step, :, :] * powers[step]
        Z = self._conjugates[..., 0, :, :] * G
        if adjoints:
            Z = Z + self.matrix.mH._matmat(adjoints[-1])
        return Y, Z, self._gradients(G, powers, adjoints)

    @property
    def _conjugates(self) -> Array:
        """Coefficients conj(c_l) (..., T, 1, 1)."""
        c = self.coefficients
        return (arrays.namespace(c).conj(c) if arrays.is_complex(c) else c)[..., None, None]

    def _powers(self, X: Array) -> list[Array]:
        """X_0 ... X_{T-1}."""
        powers = [X]
        for _ in range(1, self.length):
            powers.append(self.matrix._matmat(powers[-1]))
        return powers

    def _adjoints(self, G: Array) -> list[Array]:
        """Z_{T-1} ... Z_1."""
        adjoint, weights = self.matrix.mH, self._conjugates
        found: list[Array] = []
        for step in range(self.length - 1, 0, -1):
            Z = weights[..., step, :, :] * G
            found.append(Z + adjoint._matmat(found[-1]) if found else Z)
        return found

    def _gradients(self, G: Array, powers: list[Array], adjoints: list[Array]) -> Gradients:
        xp = arrays.namespace(powers[0])
        d_coefficients = xp.stack([_inner(G, power) for power in powers], axis=-1)
        pairs = list(zip(adjoints, powers[-2::-1], strict=True)) if adjoints else [(0 * G, powers[0])]
        complex_ = arrays.is_complex(self.coefficients)
        return {
            "matrix": self._matrix_pullback(pairs),
            "coefficients": unbroadcast(d_coefficients, tuple(self.coefficients.shape), complex_=complex_),
        }

    def _matrix_pullback(self, pairs: list[tuple[Array, Array]]) -> Gradients:
        """The pullbacks of the matrix added up: one of all columns side by side."""
        xp = arrays.namespace(pairs[0][0])
        sides = []
        for side in zip(*pairs, strict=True):
            batch = np.broadcast_shapes(*(tuple(part.shape[:-2]) for part in side))
            alike = arrays.as_same_kind(*side)
            sides.append(xp.concat([xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in alike], axis=-1))
        return self.matrix.pullback(*sides)

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
