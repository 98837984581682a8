"""Spectral responses as formulas: values, derivatives by the parameters, and bounds on Bernstein ellipses.

The ellipse with parameter rho around [0, b] has its foci at the ends and half-axes (b/2) (rho +- 1/rho) / 2. Its
leftmost point -e, e = (b/4) (sqrt(rho) - 1/sqrt(rho))^2, is what bounds the functions that fall along the real axis.

A function is *completely monotone* if it is a mixture of exp(-t x), t >= 0, with non-negative weights: Lanczos's error
for such a function has a certificate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.generators import Generated
from structmask.linalg.lanczos import Monotone


@dataclass(frozen=True, eq=False)
class Response(Generated, ABC):
    """A function h of eigenvalues x >= 0 with parameters: floats, or arrays (..., ) for several functions at once."""

    @abstractmethod
    def formula(self, x: Array, *parameters: Array) -> Array:
        """Values at x (N,) for parameters of shape (..., 1)."""

    @abstractmethod
    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        """Logarithm of a bound of |h| on the ellipses rho (R,) around [0, b], infinite where there is none."""

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        """Derivatives by each parameter, at x (N,)."""
        return {}

    def fall(self, x: Array, *parameters: Array) -> Array | None:
        """(h(0) - h(x)) / x for a completely monotone h, None for any other."""
        return None

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the parameters together."""
        return np.broadcast_shapes(*(np.shape(value) for _, value in self._generators()))

    def __call__(self, x: Any, /) -> Array:
        """Values (..., N) at eigenvalues x (N,), in double precision."""
        x = np.asarray(x, dtype=np.float64)
        values = self.formula(x, *self._columns())
        return np.broadcast_to(values, (*self.batch, x.shape[-1])) if x.ndim else values[..., 0]

    @property
    def monotone(self) -> Monotone | None:
        """The function as Lanczos's method wants it, if it is completely monotone."""
        if self.batch or arrays.is_complex(self) or self.fall(np.ones(1), *self._columns()) is None:
            return None
        return Monotone(self, lambda x: self.fall(x, *self._columns()))

    def log_bound(self, b: float) -> Callable[[Array], Array]:
        """The bound on ellipses around [0, b], the largest over all parameters."""
        parameters = [a if np.any(np.imag(a)) else np.real(a) for a in self._columns()]

        def bound(rho: Array) -> Array:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                values = self.log_sup(rho, b, *parameters)
            values = np.broadcast_to(values, (*self.batch, rho.size)).reshape(-1, rho.size)
            return np.where(np.isnan(values), np.inf, values).max(axis=0, initial=-np.inf)

        return bound

    def derivatives(self, name: str) -> Callable[[Array], Array]:
        """The derivative by one parameter, as a function of eigenvalues."""
        return lambda x: np.broadcast_to(self.slopes(x, *self._columns())[name], (*self.batch, x.shape[-1]))

    def _columns(self) -> list[Array]:
        """Parameters (..., 1) in double precision on the host."""
        return [double(value)[..., None] for _, value in self._generators()]


@dataclass(frozen=True, eq=False)
class Series(Response):
    """A Chebyshev series on [0, b] found from samples of a callable: what is known of a function that has no bound."""

    coefficients: Array
    known: tuple[float, float]  # b, and an estimate of the error

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.coefficients.shape[:-1])

    def formula(self, x: Array, *parameters: Array) -> Array:
        c = np.moveaxis(double(self.coefficients), -1, 0)
        return np.polynomial.chebyshev.chebval(2 * x / self.known[0] - 1, c)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return np.full_like(rho, np.inf)


def double(a: Any) -> Array:
    """An array or scalar on the host in double precision, real or complex."""
    a = np.asarray(arrays.to_numpy(a))
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def left_reach(rho: Array, b: float) -> Array:
    """How far the ellipse reaches to the left of 0."""
    return b / 4 * (np.sqrt(rho) - 1 / np.sqrt(rho)) ** 2


def height(rho: Array, b: float) -> Array:
    """Half the height of the ellipse."""
    return b / 4 * (rho - 1 / rho)


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


@dataclass(frozen=True, eq=False)
class Regularized(Response):
    """1 / (1 + s^2 x), with a pole at -1 / s^2."""

    scale: Array

    def formula(self, x: Array, *parameters: Array) -> Array:
        (s,) = parameters
        return 1 / (1 + s**2 * x)

    def log_sup(self, rho: Array, b: float, *parameters: Array) -> Array:
        return -_log_positive(1 - parameters[0] ** 2 * left_reach(rho, b))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        (s,) = parameters
        return {"scale": -2 * s * x / (1 + s**2 * x) ** 2}

    def fall(self, x: Array, *parameters: Array) -> Array:
        return parameters[0] ** 2 * self.formula(x, *parameters)


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
        return -nu * _log_positive(1 - kappa**2 * left_reach(rho, b) / (2 * nu))

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
        return -_log_positive(1 - (1 - r) / r * left_reach(rho, b))

    def slopes(self, x: Array, *parameters: Array) -> dict[str, Array]:
        (r,) = parameters
        return {"restart": x / (r + (1 - r) * x) ** 2}

    def fall(self, x: Array, *parameters: Array) -> Array:
        (r,) = parameters
        return (1 - r) / (r + (1 - r) * x)


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


def root_height(rho: Array, b: float) -> Array:
    """The largest |Im sqrt(z)| on the ellipse around [0, b]: z = b cos(w)^2 with |Im w| = log(rho) / 2."""
    return np.sqrt(b) * np.sinh(np.log(rho) / 2)


def _log_positive(x: Array) -> Array:
    """log(x), and -inf where x <= 0."""
    return np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), -np.inf)
