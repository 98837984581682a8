"""Chebyshev interpolation on an interval: coefficients of a function known by its values only.

With x = (high + low)/2 + (high - low)/2 cos(theta) every function is a cosine series in theta, and the coefficients of
its interpolant at the N Chebyshev points are one discrete cosine transform of the values there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.fft

from structmask.backends import arrays
from structmask.linalg.convergence import ConvergenceWarning

_POINTS = 1 << 15  # samples beyond which a function is too rough for a polynomial
_MOST_POINTS = 1 << 21  # samples beyond which even an analytic function is out of reach
_RADII = np.logspace(-7, 4, 600)  # rho - 1 of the ellipses that are tried
_NOISE = 1e-6  # coefficients that stop falling are rounding below this size, and unresolved oscillation above it
_ROUNDING = 20 * arrays.unit_roundoff("float64")


class Series(NamedTuple):
    """Coefficients (..., K + 1) of T_0 ... T_K, and an estimate of the largest error of their sum on the interval."""

    coefficients: Any
    error: float


def chebyshev_series(f: Callable[..., Any], interval: tuple[float, float], tol: float) -> Series:
    """The shortest series found for f to an absolute error of `tol`, sampled at 16, 32, 64, ... points.

    The samples suffice when the last third of the coefficients sums to less than tol / 2; of the others, those that sum
    to another tol / 2 are dropped. Warns with `ConvergenceWarning` where 32768 points, or double precision, do not do.
    """
    count, tail = 8, np.inf
    while True:
        count, before = 2 * count, tail
        coefficients = chebyshev_coefficients(f, interval, count)
        size = np.abs(coefficients).reshape(-1, count)
        scale = float(size.sum(axis=1).max())
        goal = max(tol, _ROUNDING * scale) / 2
        tail = float(size[:, -(count // 3) :].sum(axis=1).max())
        is_noise = before / 2 <= tail <= _NOISE * scale  # the values of f have no more digits
        if tail <= goal or is_noise or count >= _POINTS:
            break
    sums = np.cumsum(size[:, ::-1], axis=1)[:, ::-1].max(axis=0)  # sums[k] = |c_k| + |c_k+1| + ...
    kept = max(2, int(np.count_nonzero(sums > goal)))
    dropped = float(sums[kept]) if kept < count else 0.0
    _warn_if_missed(interval, tol, tail, scale, kept - 1)
    return Series(coefficients[..., :kept], tail + dropped)


def certified_series(
    f: Callable[..., Any], log_bound: Callable[[Any], Any], interval: tuple[float, float], tol: float
) -> Series:
    """The shortest series for f whose error is proved to be below `tol`, as far as double precision goes.

    `log_bound(rho)` is the logarithm of a bound of |f| on the Bernstein ellipses with parameters rho (R,): half-axes
    (rho + 1/rho)/2 and (rho - 1/rho)/2 times half the interval; infinite where f has a pole inside. With such a bound M
    the interpolant at N points is 4 M rho^(1 - N) / (rho - 1) from f at most, for every rho; N is chosen by that,
    before f is sampled. Of the coefficients those that sum to less than tol are dropped; the error includes all.

    Raises
    ------
    ValueError
        If that takes more than 2^21 samples.
    """
    rho = 1 + _RADII
    size = log_bound(rho) + np.log(4 / _RADII)
    needed = np.min((size - np.log(tol / 16)) / np.log(rho)) + 1
    if not needed < _MOST_POINTS:
        msg = (
            f"a polynomial of degree {needed:.1e} would be needed on [{interval[0]:.3g}, {interval[1]:.3g}] for "
            f"tol={tol:.1e}; scale the weights, shorten the time or raise tol"
        )
        raise ValueError(msg)
    count = scipy.fft.next_fast_len(max(4, math.ceil(needed)), real=True)
    remainder = float(np.exp(np.min(size - (count - 1) * np.log(rho))))
    return shortened(chebyshev_coefficients(f, interval, count), tol, remainder)


def shortened(coefficients: Any, tol: float, remainder: float) -> Series:
    """A series without its last coefficients as far as the error, with what it was off before, stays below tol.

    Nothing is gained by keeping what is below the rounding of the others.
    """
    count = coefficients.shape[-1]
    absolute = np.abs(coefficients).reshape(-1, count)
    scale = float(absolute.sum(axis=1).max(initial=0.0))
    sums = np.cumsum(absolute[:, ::-1], axis=1)[:, ::-1].max(axis=0, initial=0.0)  # |c_k| + |c_k+1| + ...
    kept = max(2, int(np.count_nonzero(sums > max(tol - remainder, _ROUNDING * scale / 2))))
    dropped = float(sums[kept]) if kept < count else 0.0
    return Series(coefficients[..., :kept], dropped + remainder)


def chebyshev_coefficients(f: Callable[..., Any], interval: tuple[float, float], count: int) -> Any:
    """Coefficients (..., count) of the interpolant of f at `count` Chebyshev points.

    Raises
    ------
    ValueError
        If f does not return one finite value a point.
    """
    low, high = interval
    half_angles = (np.arange(count) + 0.5) * (np.pi / (2 * count))
    points = low * np.sin(half_angles) ** 2 + high * np.cos(half_angles) ** 2  # accurate beside an end at zero
    values = arrays.as_array(f(points), "the value of f")
    if values.ndim == 0:
        values = np.full(count, values)
    if values.shape[-1] != count:
        msg = f"f was called with {count} eigenvalues and returned shape {values.shape}; it needs (..., {count})"
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = (
            f"f is not finite everywhere on the interval [{low:.6g}, {high:.6g}]; pass a narrower "
            "interval=(low, high) that holds all eigenvalues and on which f is smooth"
        )
        raise ValueError(msg)
    kind = arrays.dtype_of("float64", complex_=arrays.is_complex(values))
    coefficients = scipy.fft.dct(arrays.cast(values, kind), type=2, axis=-1) / count
    coefficients[..., 0] /= 2
    return coefficients


def _warn_if_missed(interval: tuple[float, float], tol: float, tail: float, scale: float, degree: int) -> None:
    if tail > max(tol, _ROUNDING * scale):
        msg = (
            f"matrix_function: a polynomial of degree {degree} misses tol={tol:.1e}: its last coefficients sum to "
            f"{tail:.1e}, since f is not smooth on [{interval[0]:.6g}, {interval[1]:.6g}] or has no more digits; "
            "raise tol or narrow the interval"
        )
    elif tol < _ROUNDING * scale * (1 + degree):
        msg = (
            f"matrix_function: tol={tol:.1e} is below the rounding of {degree} steps in double precision, about "
            f"{_ROUNDING * scale * (1 + degree):.1e}; raise tol"
        )
    else:
        return
    warnings.warn(msg, ConvergenceWarning, stacklevel=4)
