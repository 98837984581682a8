"""Kernels of the symmetric Laplacian L = I - W as series in W = D^-1/2 A D^-1/2: a(W) = h(I - W), and their roots.

The spectrum of W lies in [-1, 1]. Series are given up to the term beyond which all others together are rounding errors
beside a(1) = h(0). Each of these kernels has a square root of the same kind, so that no root need be computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.walks import check_real

__all__ = ["WalkSeries", "heat", "matern", "random_walk", "regularized"]

_ROUNDOFF = arrays.unit_roundoff("float64")
_LONGEST = 1 << 16


@dataclass(frozen=True, eq=False)
class WalkSeries:
    """A power series in the adjacency matrix and its square root.

    Parameters
    ----------
    coefficients : array (T,)
        a, for `PowerSeries`: the kernel itself.
    modulation : array (S,)
        f with f * f = a (convolution), for `graph_random_features`.
    """

    coefficients: Array
    modulation: Array


def heat(time: float, /) -> WalkSeries:
    """Diffusion exp(-time L): a_l = exp(-time) time^l / l!, and its root is that of half the time.

    Examples
    --------
    >>> from structmask.graphs import walk_series
    >>> walk_series.heat(1.0).coefficients[:3].round(4)
    array([0.3679, 0.3679, 0.1839])
    """
    _check_positive(time, "time")
    if time > 700:
        msg = f"exp(-time) is no number in double precision for time={time}; use diffusion_kernel for long times"
        raise ValueError(msg)
    return WalkSeries(_exponential(time), _exponential(time / 2))


def regularized(strength: float, /) -> WalkSeries:
    """Regularised Laplacian (I + strength L)^-1: a_l = r^l / (1 + strength), r = strength / (1 + strength)."""
    _check_positive(strength, "strength")
    shift = 1 + 1 / strength
    return WalkSeries(_binomial(shift, -1, strength**-1), _binomial(shift, -0.5, strength**-0.5))


def matern(nu: float, kappa: float, /) -> WalkSeries:
    """Matern kernel (2 nu / kappa^2 I + L)^-nu: a binomial series."""
    _check_positive(nu, "nu")
    _check_positive(kappa, "kappa")
    shift = 1 + 2 * nu / kappa**2
    return WalkSeries(_binomial(shift, -nu), _binomial(shift, -nu / 2))


def random_walk(steps: int, shift: float = 2.0, /) -> WalkSeries:
    """Walk of some steps, (shift I - L)^steps for shift >= 2; an odd number of steps needs a shift above 2."""
    if not shift >= 2 or int(steps) != steps or steps < 0 or (steps % 2 and shift == 2):
        msg = (
            "(shift I - L)^steps has a series with a square root for shift >= 2 and steps = 0, 2, 4, ..., and for "
            f"shift > 2 with any number of steps, got shift={shift}, steps={steps}"
        )
        raise ValueError(msg)
    return WalkSeries(_binomial(shift - 1, steps), _binomial(shift - 1, steps / 2))


def _exponential(time: float) -> Array:
    """Series of exp(-time + time x)."""
    return _summed(math.exp(-time), lambda step: time / step)


def _binomial(shift: float, power: float, factor: float = 1.0) -> Array:
    """Series of factor (shift + x)^power for positive powers, of factor (shift - x)^power for negative ones."""
    sign = 1.0 if power >= 0 else -1.0
    return _summed(factor * shift**power, lambda step: sign * (power - step + 1) / (step * shift))


def _summed(first: float, ratio: Callable[[int], float]) -> Any:
    """Terms, each ratio(step) times the one before, until those that follow fall geometrically and add nothing."""
    terms, total = [first], abs(first)
    for step in itertools.count(1):
        r = ratio(step)
        if abs(terms[-1] * r) <= _ROUNDOFF * total * (1 - abs(r)):
            return np.array(terms)
        terms.append(terms[-1] * r)
        total += abs(terms[-1])
        if step >= _LONGEST:
            break
    msg = f"the series does not end within {_LONGEST} terms; use spectral_filter for such a kernel"
    raise ValueError(msg)


def _check_positive(value: float, name: str) -> None:
    check_real(value, name)
    if not 0 < value < math.inf:
        msg = f"{name} must be a positive number, got {value!r}"
        raise ValueError(msg)
