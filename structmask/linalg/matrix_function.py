"""Functions of a Hermitian matrix as polynomials of it: f(A) X from products with A alone.

    f(A) = sum_k c_k T_k(B),   B = (2 A - (high + low) I) / (high - low),   T_{k+1} = 2 B T_k - T_{k-1}

On an interval that holds the spectrum |T_k| <= 1, so that what is left out of the series is the error in the 2-norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.chebyshev import chebyshev_series
from structmask.linalg.matrix_polynomial import Accuracy, MatrixFunction, check_square, checked_interval
from structmask.linalg.spectrum import Interval, enclosure, is_hermitian

_NARROWEST = 1 / 8  # half the width of an interval beside its ends: B loses digits to cancellation below


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
    ends = _widened(a) if interval is None else checked_interval(interval)
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
    check_square(a)


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
