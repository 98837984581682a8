"""Polynomials of a matrix in the Chebyshev basis, with their gradients: every function of a matrix is computed as one.

p(A) = sum_k c_k T_k(B),   B = (2 A - (high + low) I) / (high - low),   T_{k+1} = 2 B T_k - T_{k-1}
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.graph_kernels import Recurrence, has_recurrence
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Sparse
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding
from structmask.linalg.spectrum import Interval


@dataclass(frozen=True)
class Accuracy:
    """What is known about the 2-norm of an error: a certified bound (nan if there is none) and an estimate."""

    bound: float
    estimate: float


@dataclass(frozen=True, eq=False, repr=False)
class MatrixFunction(StructuredMatrix):
    """sum_k c_k T_k(B), B the matrix shifted and scaled from an interval to [-1, 1]; `matrix_function` makes one.

    Parameters
    ----------
    matrix : StructuredMatrix (..., n, n)
        Hermitian, with all eigenvalues in the interval. Gradients are those of the polynomial, for any perturbation.
    coefficients : array (..., K + 1)
        Chebyshev coefficients c_0 ... c_K, K >= 1. Leading axes are a batch: several functions from one recurrence.
    interval : (float, float)
        low < high.
    accuracy : Accuracy
        Error in the 2-norm against the function that the polynomial stands for; exact for the polynomial itself.

    Notes
    -----
    A product costs K products with the matrix and holds a few blocks the size of the operand, whatever K is.
    """

    matrix: StructuredMatrix
    coefficients: Array
    interval: Interval = field(kw_only=True)
    accuracy: Accuracy = field(default=Accuracy(0.0, 0.0), kw_only=True)

    def __post_init__(self) -> None:
        coefficients = arrays.as_array(self.coefficients, "MatrixFunction(coefficients)")
        if coefficients.ndim < 1 or coefficients.shape[-1] < 2:
            msg = f"MatrixFunction needs two or more coefficients (..., K + 1), got shape {tuple(coefficients.shape)}"
            raise ValueError(msg)
        check_square(self.matrix)
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "interval", checked_interval(self.interval))
        np.broadcast_shapes(tuple(coefficients.shape[:-1]), self.matrix.shape[:-2])

    @property
    def degree(self) -> int:
        """Degree K of the polynomial."""
        return int(self.coefficients.shape[-1]) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(tuple(self.coefficients.shape[:-1]), self.matrix.shape[:-2])
        return (*batch, *self.matrix.shape[-2:])

    def _matmat(self, X: Array) -> Array:
        if self._is_compiled:
            return self._recurrence.sum(X, self.coefficients)
        c = self.coefficients[..., None, None]
        T, following = X, self._scaled(self.matrix, X)
        Y = c[..., 0, :, :] * T + c[..., 1, :, :] * following
        for k in range(2, self.degree + 1):
            T, following = following, self._following(self.matrix, following, T)
            Y = Y + c[..., k, :, :] * following
        return Y

    @property
    def _is_compiled(self) -> bool:
        return isinstance(self.matrix, Sparse) and has_recurrence(self.matrix.csr.data)

    @cached_property
    def _recurrence(self) -> Recurrence:
        """The plan for a sparse matrix on the CPU, whose terms are formed and summed in one pass."""
        return Recurrence(self.matrix.csr, self.interval)  # type: ignore[attr-defined]  # a Sparse

    def _scaled(self, A: StructuredMatrix, X: Array, factor: float = 1.0) -> Array:
        """A multiple of B X."""
        low, high = self.interval
        return (2 * factor / (high - low)) * A._product(X) - (factor * (high + low) / (high - low)) * X

    def _following(self, A: StructuredMatrix, T: Array, previous: Array) -> Array:
        """T_{k+1} = 2 B T_k - T_{k-1}: also T_{k-1} from T_k and T_{k+1}, for the recurrence runs both ways."""
        return self._scaled(A, T, 2.0) - previous

    def transpose(self) -> MatrixFunction:
        return MatrixFunction(
            self.matrix.transpose(), self.coefficients, interval=self.interval, accuracy=self.accuracy
        )

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self._joint_pullback(G, X)[2]

    def _joint_pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients]:
        """The product with X, that of the adjoint with G, and the gradients.

        With R_k = conj(c_k) G + 2 B^H R_{k+1} - R_{k+2}, B has the gradient R_1 T_0^H + sum_{k>1} 2 R_k T_{k-1}^H, and
        the adjoint's product is conj(c_0) G + B^H R_1 - R_2. T_K comes first; then both recurrences run downwards
        together, and nothing is stored.
        """
        if self._is_compiled:
            x, g = arrays.one_batch(*arrays.as_same_kind(X, G), batch=self.shape[:-2])
            if (found := self._recurrence.pullback(x, g, self.coefficients)) is not None:
                Y, Z, d_c, d_data = found
                return Y, Z, self._gradients({"csr": d_data}, d_c)
        xp, adjoint, (low, high) = arrays.namespace(X), self.matrix.mH, self.interval
        c = self.coefficients[..., None, None]
        conj = arrays.conj(c)
        T, previous, d_matrix = self._scaled(self.matrix, X), X, None
        for _ in range(2, self.degree + 1):
            T, previous = self._following(self.matrix, T, previous), T
        Y, R, above = c[..., self.degree, :, :] * T, conj[..., self.degree, :, :] * G, xp.zeros_like(G)
        d_coefficients = [_inner(G, T)]
        for k in range(self.degree, 0, -1):
            weight = (2.0 if k == 1 else 4.0) / (high - low)
            d_matrix = _accumulated(d_matrix, self.matrix._pullback(*arrays.one_batch(weight * R, previous)))
            d_coefficients.append(_inner(G, previous))
            Y = Y + c[..., k - 1, :, :] * previous
            if k == 1:
                break
            R, above = conj[..., k - 1, :, :] * G + self._following(adjoint, R, above), R
            T, previous = previous, self._following(self.matrix, previous, T)
        Z = conj[..., 0, :, :] * G + self._scaled(adjoint, R) - above
        return Y, Z, self._gradients(d_matrix, xp.stack(d_coefficients[::-1], axis=-1))

    def _gradients(self, d_matrix: Any, d_c: Array) -> Gradients:
        shape, complex_ = tuple(self.coefficients.shape), arrays.is_complex(self.coefficients)
        return {"matrix": d_matrix, "coefficients": unbroadcast(d_c, shape, complex_=complex_)}

    def _norm_bound(self) -> float:
        """|T_k| <= 1 where the eigenvalues may lie."""
        xp = arrays.namespace(self.coefficients)
        return float(xp.max(xp.sum(xp.abs(self.coefficients), axis=-1)))

    def _work(self, columns: int) -> Work:
        vectors = Work(bytes=4.0 * self.dtype.itemsize * math.prod(self.shape[:-1]) * columns, calls=1)
        return (self.matrix._work(columns) + vectors) * self.degree

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN

    @property
    def error_bound(self) -> float:
        return self.accuracy.bound

    @property
    def error_estimate(self) -> float:
        return self.accuracy.estimate

    def __repr__(self) -> str:
        return f"MatrixFunction({self.matrix!r}, degree {self.degree})"


# --- parts ------------------------------------------------------------------------------------------------------------


def check_square(a: StructuredMatrix) -> None:
    """Refuses what has no powers."""
    if a.shape[-2] != a.shape[-1]:
        msg = f"a matrix function needs a square matrix, got {a!r}"
        raise ValueError(msg)


def checked_interval(interval: Any) -> Interval:
    """Finite ends, low < high."""
    low, high = map(float, interval)
    if not -math.inf < low < high < math.inf:
        msg = f"interval needs finite ends low < high, got ({low!r}, {high!r})"
        raise ValueError(msg)
    return low, high


def _inner(G: Array, T: Array) -> Array:
    """Gradient of Re <G, c T> for a scalar c, of every matrix of a batch."""
    xp = arrays.namespace(T)
    return xp.sum(G * (xp.conj(T) if arrays.is_complex(T) else T), axis=(-2, -1))


def _accumulated(total: Any, part: Any) -> Any:
    """Sum of two nested dicts of gradients."""
    if total is None:
        return part
    return {name: _accumulated(total[name], part[name]) for name in part} if isinstance(part, dict) else total + part
