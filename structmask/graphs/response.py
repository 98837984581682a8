"""Spectral responses: functions of eigenvalues with parameters, and all that is known of one without a single sample.

The ellipse with parameter rho around [0, b] has its foci at the ends and half-axes (b/2) (rho +- 1/rho) / 2. Its
leftmost point -e, e = (b/4) (sqrt(rho) - 1/sqrt(rho))^2, is what bounds the functions that fall along the real axis.

A function is *completely monotone* if it is a mixture of exp(-t x), t >= 0, with non-negative weights: Lanczos's error
for such a function has a certificate. In the variable y = 1 / (1 + s x), s the *shift*, the positive axis is (0, 1]:
a function may be a short polynomial there whatever b is.
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

    def shifts(self, *parameters: Array) -> Array:
        """Shifts s > 0 that may make h a short polynomial of 1 / (1 + s x)."""
        return np.empty(0)

    def remainder(self, shift: float, count: int, *parameters: Array) -> float:
        """Bound on (0, 1] of what the interpolant of h at `count` Chebyshev points of y is off, infinite if unknown."""
        return np.inf

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


def root_height(rho: Array, b: float) -> Array:
    """The largest |Im sqrt(z)| on the ellipse around [0, b]: z = b cos(w)^2 with |Im w| = log(rho) / 2."""
    return np.sqrt(b) * np.sinh(np.log(rho) / 2)


def log_positive(x: Array) -> Array:
    """log(x), and -inf where x <= 0."""
    return np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), -np.inf)
