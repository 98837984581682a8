"""The responses as formulas: values, slopes by the parameters, bounds on ellipses, and what resolvents make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from structmask.backends.arrays import Array
from structmask.graphs.response import Response, height, left_reach, log_positive, root_height

_SPEEDS = np.geomspace(2, 64, 11)  # times over shift: the best for tolerances from 1e-2 to 1e-14 is among them


@dataclass(frozen=True, eq=False)
class Heat(Response):
    """exp(-t x); for imaginary t the phases of the Schroedinger equation."""

    time: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (t,) = parameters
        return np.exp(-t * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        """|exp(-t z)| = exp(-Re(t) Re(z) + Im(t) Im(z))."""
        (t,) = parameters
        reach, forward = left_reach(rho, b), np.real(t)
        return np.where(forward >= 0, forward * reach, -forward * (b + reach)) + np.abs(np.imag(t)) * height(rho, b)

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        return {"time": -x * np.exp(-parameters[0] * x)}

    def fall(self, x: Array, *parameters: Array) -> Array:
        return warming(x, parameters[0])

    def shifts(self, *parameters: Array) -> Array:
        """Of several times the shortest has the longest polynomial, unless they are far apart."""
        (t,) = parameters
        if np.iscomplexobj(t) or not (t > 0).any():
            return np.empty(0)
        least, most = t[t > 0].min(), t.max()
        return np.unique(np.outer([least, np.sqrt(least * most)], 1 / _SPEEDS))

    def remainder(self, shift: float, count: int, *parameters: Array) -> float:
        """From the total variation V of the m-th derivative: at most 4 V / (pi m (count - 1 - m)^m) is left out.

        With z = t / s the function is exp(z - z / y). By Cauchy's estimate on the circle of radius y around y its
        derivative of order k is at most k! y^-k exp(z - z / (2 y)).
        """
        (t,) = parameters
        z = np.unique(t[t > 0])[:, None] / shift
        m = np.arange(1, count // 2)
        k = m + 1
        y = np.minimum(1.0, z / (2 * k))
        variation = gammaln(k + 1) - k * np.log(y) + z - z / (2 * y) - m * np.log(2)
        left_out = np.log(4 / np.pi) + variation - np.log(m) - m * np.log(count - 1 - m)
        return float(np.exp(np.minimum(left_out.min(axis=1), 100)).max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Regularized(Response):
    """1 / (1 + s^2 x), with a pole at -1 / s^2."""

    scale: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (s,) = parameters
        return 1 / (1 + s**2 * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return -log_positive(1 - parameters[0] ** 2 * left_reach(rho, b))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        (s,) = parameters
        return {"scale": -2 * s * x / (1 + s**2 * x) ** 2}

    def fall(self, x: Array, *parameters: Array) -> Array:
        return parameters[0] ** 2 * self.formula(x, *parameters)

    def shifts(self, *parameters: Array) -> Array:
        return _pole_shifts(parameters[0] ** 2)

    def remainder(self, shift: float, count: int, *parameters: Array) -> float:
        return _pole_remainder(parameters[0] ** 2 / shift, count)


@dataclass(frozen=True, eq=False)
class Matern(Response):
    """(1 + kappa^2 x / (2 nu))^-nu, with a branch point at -2 nu / kappa^2."""

    smoothness: Array
    length: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        nu, kappa = parameters
        return np.exp(-nu * np.log1p(kappa**2 * x / (2 * nu)))

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        nu, kappa = parameters
        return -nu * log_positive(1 - kappa**2 * left_reach(rho, b) / (2 * nu))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        nu, kappa = parameters
        z, h = kappa**2 * x / (2 * nu), self.formula(x, nu, kappa)
        return {"smoothness": h * (z / (1 + z) - np.log1p(z)), "length": -h * kappa * x / (1 + z)}

    def fall(self, x: Array, *parameters: Array) -> Array:
        nu, kappa = parameters
        safe = np.where(x > 0, x, 1.0)
        drop = -np.expm1(-nu * np.log1p(kappa**2 * safe / (2 * nu))) / safe
        return np.where(x > 0, drop, kappa**2 / 2)


@dataclass(frozen=True, eq=False)
class RandomWalk(Response):
    """(a - x)^p."""

    shift: Array
    steps: int

    def formula(self, x: Array, *parameters: Array) -> Array:
        return (parameters[0] - x) ** self.steps

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return self.steps * np.log(np.abs(parameters[0] - b / 2) + b / 4 * (rho + 1 / rho))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        p = self.steps
        return {"shift": p * (parameters[0] - x) ** max(0, p - 1)}


@dataclass(frozen=True, eq=False)
class InverseCosine(Response):
    """cos(pi x / 4)."""

    def formula(self, x: Array, *parameters: Array) -> Array:
        return np.cos(np.pi / 4 * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return np.pi / 4 * height(rho, b)


@dataclass(frozen=True, eq=False)
class PageRank(Response):
    """r / (r + (1 - r) x), with a pole at -r / (1 - r)."""

    restart: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (r,) = parameters
        return r / (r + (1 - r) * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        (r,) = parameters
        return -log_positive(1 - (1 - r) / r * left_reach(rho, b))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        (r,) = parameters
        return {"restart": x / (r + (1 - r) * x) ** 2}

    def fall(self, x: Array, *parameters: Array) -> Array:
        (r,) = parameters
        return (1 - r) / (r + (1 - r) * x)

    def shifts(self, *parameters: Array) -> Array:
        return _pole_shifts(1 / parameters[0] - 1)

    def remainder(self, shift: float, count: int, *parameters: Array) -> float:
        return _pole_remainder((1 / parameters[0] - 1) / shift, count)


@dataclass(frozen=True, eq=False)
class Wavelet(Response):
    """s x exp(1 - s x)."""

    scale: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (s,) = parameters
        return s * x * np.exp(1 - s * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        (s,) = parameters
        reach = left_reach(rho, b)
        return 1 + np.log(s * (b + reach)) + s * reach

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        (s,) = parameters
        return {"scale": x * (1 - s * x) * np.exp(1 - s * x)}


@dataclass(frozen=True, eq=False)
class Cosine(Response):
    """cos(t sqrt(x)), entire in x; |cos(t sqrt(z))| <= cosh(t |Im sqrt(z)|)."""

    time: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        return np.cos(parameters[0] * np.sqrt(x))

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return np.abs(parameters[0]) * root_height(rho, b)

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        return {"time": -np.sqrt(x) * np.sin(parameters[0] * np.sqrt(x))}


@dataclass(frozen=True, eq=False)
class Sine(Response):
    """sin(t sqrt(x)) / sqrt(x), the integral of cos(t sqrt(x)) over time, and t at x = 0."""

    time: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (t,) = parameters
        return t * np.sinc(t * np.sqrt(x) / np.pi)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        t = np.abs(parameters[0])
        return np.log(t) + t * root_height(rho, b)

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        return {"time": np.cos(parameters[0] * np.sqrt(x))}


@dataclass(frozen=True, eq=False)
class Warming(Response):
    """(1 - exp(-t x)) / x, the integral of exp(-t x) over time, and t at x = 0."""

    time: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        return warming(x, parameters[0])

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        (t,) = parameters
        return np.log(t) + t * left_reach(rho, b)

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        return {"time": np.exp(-parameters[0] * x)}


def warming(x: Array, t: Array) -> Array:
    """(1 - exp(-t x)) / x."""
    z = t * x
    safe = np.where(z == 0, 1.0, z)
    return t * np.where(z != 0, -np.expm1(-safe) / safe, 1.0)


def _pole_shifts(ratio: Array) -> Array:
    """With its own shift 1 / (1 + s x) is y itself; several share one."""
    positive = ratio[ratio > 0]
    return np.unique([positive.min(), np.sqrt(positive.min() * positive.max())]) if positive.size else positive


def _pole_remainder(ratio: Array, count: int) -> float:
    """For y / (y + r (1 - y)): its coefficients are 2 q / |1 - r| rho^-k, rho = (1 + q) / |1 - q|, q = sqrt(r)."""
    q = np.sqrt(ratio[(ratio > 0) & (np.abs(ratio - 1) > 1e-15)])
    return float(np.max(2 * np.maximum(1, q) / np.abs(1 - q) * (np.abs(1 - q) / (1 + q)) ** count, initial=0.0))
