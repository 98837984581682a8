"""Functions of a Hermitian matrix as polynomials of it: f(A) X from products with A alone.

    f(A) = sum_k c_k T_k(B),   B = (2 A - (high + low) I) / (high - low),   T_{k+1} = 2 B T_k - T_{k-1}

On an interval that holds the spectrum |T_k| <= 1, so that what is left out of the series is the error in the 2-norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.backends.graph_kernels import Recurrence
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.chebyshev import chebyshev_series
from structmask.linalg.elementary import Sparse
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding
from structmask.linalg.spectrum import Interval, enclosure, is_hermitian

_NARROWEST = 1 / 8  # half the width of an interval beside its ends: B loses digits to cancellation below


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
        _check_square(self.matrix)
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "interval", _checked_interval(self.interval))
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
        if isinstance(self.matrix, Sparse) and kernels.numba_runs(self.matrix.csr.data):
            return self._recurrence.sum(X, self.coefficients)
        c = self.coefficients[..., None, None]
        T, following = X, self._scaled(self.matrix, X)
        Y = c[..., 0, :, :] * T + c[..., 1, :, :] * following
        for k in range(2, self.degree + 1):
            T, following = following, self._following(self.matrix, following, T)
            Y = Y + c[..., k, :, :] * following
        return Y

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
        """With R_k = conj(c_k) G + 2 B^H R_{k+1} - R_{k+2}, B has the gradient R_1 T_0^H + sum_{k>1} 2 R_k T_{k-1}^H.

        T_K comes first; then both recurrences run downwards together, and nothing is stored.
        """
        xp, adjoint, (low, high) = arrays.namespace(X), self.matrix.mH, self.interval
        c = xp.conj(self.coefficients) if arrays.is_complex(self.coefficients) else self.coefficients
        c, d_matrix = c[..., None, None], None
        T, previous = self._scaled(self.matrix, X), X
        for _ in range(2, self.degree + 1):
            T, previous = self._following(self.matrix, T, previous), T
        R, above = c[..., self.degree, :, :] * G, xp.zeros_like(G)
        d_coefficients = [_inner(G, T)]
        for k in range(self.degree, 0, -1):
            weight = (2.0 if k == 1 else 4.0) / (high - low)
            d_matrix = _accumulated(d_matrix, self._matrix_pullback(weight * R, previous))
            d_coefficients.append(_inner(G, previous))
            if k == 1:
                break
            R, above = c[..., k - 1, :, :] * G + self._following(adjoint, R, above), R
            T, previous = previous, self._following(self.matrix, previous, T)
        d_c = xp.stack(d_coefficients[::-1], axis=-1)
        shape = tuple(self.coefficients.shape)
        return {
            "matrix": d_matrix,
            "coefficients": unbroadcast(d_c, shape, complex_=arrays.is_complex(self.coefficients)),
        }

    def _matrix_pullback(self, R: Array, T: Array) -> Gradients:
        xp, batch = arrays.namespace(R), np.broadcast_shapes(tuple(R.shape[:-2]), tuple(T.shape[:-2]))
        return self.matrix._pullback(*(xp.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (R, T)))

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


def matrix_function(
    a: StructuredMatrix, f: Callable[..., Any], /, *, interval: Interval | None = None, tol: float = 1e-8
) -> MatrixFunction:
    """The function f(A) = V f(Lambda) V^H of a Hermitian matrix A = V Lambda V^H, never formed.

    Parameters
    ----------
    a : StructuredMatrix (..., n, n)
        Real symmetric or complex Hermitian.
    f : callable
        Called with arrays (N,) of float64 eigenvalues, wherever the matrix lives; returns (N,), real or complex, or
        (..., N) for several functions at once, which become leading axes of the result. Must be smooth on the interval:
        the degree grows with its width and roughness.
    interval : (float, float), optional
        Ends low < high of an interval that holds all eigenvalues; a narrow one is cheap. By default it is computed from
        the structure: sums of absolute values, and for a Toeplitz matrix the eigenvalues of its circulant embedding.
    tol : float
        Absolute error in the 2-norm: ||(p(A) - f(A)) X|| <= tol ||X|| in exact arithmetic.

    Returns
    -------
    MatrixFunction
        A Chebyshev polynomial p(A). f is known by samples only, so `error_bound` is nan and `error_estimate` has the
        figure, rounding included in the precision of the matrix. Gradients hold the coefficients as generators beside
        the matrix's own: those of p for fixed interval.

    Raises
    ------
    TypeError
        If `a` is no structured matrix or f cannot be called.
    ValueError
        If the matrix is not square or not Hermitian, if f is not finite on the interval, if a given interval does not
        hold the spectrum, or if none is given and the structure does not tell one.

    Warns
    -----
    ConvergenceWarning
        If tol is not reached with 32768 samples of f, or lies below rounding.

    Notes
    -----
    A product costs K products with A, K the degree. See L. N. Trefethen, "Approximation Theory and Approximation
    Practice" (2013), chapters 3 and 8.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Toeplitz, matrix_function
    >>> second_difference = Toeplitz.from_column_row([2.0, -1.0, 0.0, 0.0])
    >>> heat = matrix_function(second_difference, lambda x: np.exp(-x))
    >>> values, V = np.linalg.eigh(second_difference.to_dense())
    >>> x = np.arange(4.0)
    >>> np.allclose(heat @ x, V @ (np.exp(-values) * (V.T @ x)))
    True
    """
    _check_arguments(a, f, tol)
    if not is_hermitian(a):
        msg = (
            f"matrix_function needs a symmetric (Hermitian) matrix, but {a!r} and its adjoint differ on a random "
            "vector; symmetrise it as (a + a.mH) / 2 if that is what you mean"
        )
        raise ValueError(msg)
    ends = _widened(a) if interval is None else _checked_interval(interval)
    series = chebyshev_series(f, ends, tol)
    p = MatrixFunction(a, _beside(a, series.coefficients), interval=ends)
    if interval is not None:
        _check_spectrum(p)
    size = float(np.abs(series.coefficients).sum(axis=-1).max())
    shift = max(1.0, abs(ends[0] + ends[1]) / (ends[1] - ends[0]))
    rounding = 20 * arrays.unit_roundoff(arrays.precision(a)) * (1 + p.degree * shift) * size
    return MatrixFunction(a, p.coefficients, interval=ends, accuracy=Accuracy(math.nan, series.error + rounding))


# --- arguments --------------------------------------------------------------------------------------------------------


def _check_arguments(a: Any, f: Any, tol: Any) -> None:
    if not isinstance(a, StructuredMatrix):
        msg = f"matrix_function takes a StructuredMatrix, got {type(a).__name__}; wrap it: Dense(x) or Sparse(x)"
        raise TypeError(msg)
    if not callable(f):
        msg = f"matrix_function needs a callable on arrays of eigenvalues, got {type(f).__name__}"
        raise TypeError(msg)
    if not 0 < tol < math.inf:
        msg = f"tol must be positive and finite, got {tol!r}"
        raise ValueError(msg)
    _check_square(a)


def _check_square(a: StructuredMatrix) -> None:
    if a.shape[-2] != a.shape[-1]:
        msg = f"a matrix function needs a square matrix, got {a!r}"
        raise ValueError(msg)


def _checked_interval(interval: Any) -> Interval:
    low, high = map(float, interval)
    if not -math.inf < low < high < math.inf:
        msg = f"interval needs finite ends low < high, got ({low!r}, {high!r})"
        raise ValueError(msg)
    return low, high


def _widened(a: StructuredMatrix) -> Interval:
    """The structure's own enclosure, not narrower than the scaling to [-1, 1] can stand."""
    if 0 in a.shape:
        return -1.0, 1.0
    low, high = enclosure(a)
    if not math.isfinite(high - low):
        msg = f"the structure of {a!r} does not tell where its eigenvalues lie; pass interval=(low, high)"
        raise ValueError(msg)
    center, half = (low + high) / 2, max((high - low) / 2, _NARROWEST * max(abs(low), abs(high))) or 1.0
    return center - half, center + half


def _beside(a: StructuredMatrix, coefficients: Array) -> Array:
    """Coefficients in the precision and home of a matrix."""
    return arrays.move(arrays.cast_precision(coefficients, arrays.precision(a)), a._home)


def _check_spectrum(p: MatrixFunction) -> None:
    """|T_k(B) x| <= |x| for every k where the interval holds the spectrum; beyond it T_k explodes."""
    if 0 in p.shape:
        return
    x = np.random.default_rng(0).standard_normal((p.shape[-1], 1))
    T: Array = arrays.move(x, p._home)
    previous, limit = T, 2 * float(np.linalg.norm(x))
    T = p._scaled(p.matrix, T)
    for _ in range(1, p.degree):
        T, previous = p._following(p.matrix, T, previous), T
    xp = arrays.namespace(T)
    if not float(xp.max(xp.sum(xp.abs(T) ** 2, axis=-2))) <= limit**2:
        msg = (
            f"the interval [{p.interval[0]:.6g}, {p.interval[1]:.6g}] does not hold all eigenvalues of {p.matrix!r}: "
            "the Chebyshev recurrence grows; widen it, or leave it out"
        )
        raise ValueError(msg)


# --- gradients --------------------------------------------------------------------------------------------------------


def _inner(G: Array, T: Array) -> Array:
    """Gradient of Re <G, c T> for a scalar c, of every matrix of a batch."""
    xp = arrays.namespace(T)
    return xp.sum(G * (xp.conj(T) if arrays.is_complex(T) else T), axis=(-2, -1))


def _accumulated(total: Any, part: Any) -> Any:
    """Sum of two nested dicts of gradients."""
    if total is None:
        return part
    return {name: _accumulated(total[name], part[name]) for name in part} if isinstance(part, dict) else total + part
