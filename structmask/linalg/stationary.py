"""Masks f(|i - j|) whose table runs through states: both sides, the table, products, gradients.

A subclass says how its states run: where they are after so many steps, and what they show.
"""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg import state_scan
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work, acting_backend, seconds
from structmask.linalg.rounding import Rounding
from structmask.linalg.toeplitz import Toeplitz

_PATIENCE = 1.5  # time that accuracy row by row may cost


class Errors(NamedTuple):
    """How far a compressed mask is from the table f it stands for, measured at every offset; the worst head's.

    Attributes
    ----------
    absolute : float
        Largest ``|e(s)|``.
    mass : float
        sum ``|e(s)|`` over sum ``|f(s)|``.
    relative : float
        Largest ``|e(s)| / |f(s)|``; infinite if a zero of f is missed.
    norm : float
        Bound on the spectral norm (and on the 1- and the infinity-norm) of the error of the whole matrix.
    """

    absolute: float
    mass: float
    relative: float
    norm: float


class Stationary(StructuredMatrix):
    """M_ij = f(|i - j|), on both sides of the diagonal or on one, with f(s) = c a^(s - w) b for s >= w."""

    n: int
    causal: bool
    upper: bool
    errors: Errors | None

    # --- what a subclass writes -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of states r."""

    @property
    def width(self) -> int:
        """Offsets w of the near band."""
        return 0

    @property
    def near_values(self) -> Array | None:
        """Values at the offsets of the near band (..., w), if there is one."""
        return None

    @abstractmethod
    def leaving(self, count: int) -> Array:
        """States a^s b (..., r, count) for s = 0, 1, ..."""

    @abstractmethod
    def entering(self, count: int) -> Array:
        """Rows c a^s (..., count, r)."""

    @abstractmethod
    def steps(self, count: int) -> Array:
        """The matrix a^count (..., r, r)."""

    @abstractmethod
    def far(self, count: int) -> Array:
        """Values c a^s b (..., count)."""

    @abstractmethod
    def _far_chain(self, first: int, rows: Array, columns: Array, step: Array) -> Gradients:
        """Gradients for the generators of those for `entering`, `leaving` from `first` on, and `steps` of one count."""

    @abstractmethod
    def _chain(self, d: Array) -> Gradients:
        """Gradients for the generators of gradients d (..., n) for f(0), ..., f(n - 1), all in double precision."""

    # --- both sides -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        object.__setattr__(self, "n", operator.index(self.n))
        if self.n < 0:
            msg = f"{type(self).__name__} needs a size n >= 0, got {self.n}"
            raise ValueError(msg)
        if self.upper and not self.causal:
            msg = f"upper=True is the transpose of a causal {type(self).__name__}; pass causal=True with it"
            raise ValueError(msg)

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether entries below, and above the diagonal, are there."""
        return not self.upper, not self.causal or self.upper

    def transpose(self) -> Self:
        return self._with(upper=not self.upper) if self.causal else self

    def _with(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def _place(self, width: str, target: str) -> Self:
        """Moved only: the generators are raised to powers as large as n, which would raise their rounding with them."""
        own = {name: arrays.move(x, target) if hasattr(x, "dtype") else x for name, x in self._generators()}
        return self._with(**own)

    def with_parameters(self, parameters: Any = None, /, **changes: Any) -> Self:
        """As for every matrix. One with other generators stands for no table, so that `errors` is None."""
        changed = super().with_parameters(parameters, **changes)
        return changed._with(errors=None)

    def astype(self, dtype: Any, /) -> Self:
        """As for every matrix. Rounded generators leave of a certified error an estimate."""
        changed = super().astype(dtype)
        if self.errors is None or arrays.precision(changed) == arrays.precision(self):
            return changed
        return changed._with(errors=self.errors._replace(norm=math.nan))

    @property
    def error_bound(self) -> float:
        """Certified bound on the spectral norm of M' - M for the M that `Toeplitz.compress` was given; else zero."""
        return 0.0 if self.errors is None else self.errors.norm

    @cached_property
    def table(self) -> Array:
        """Values f(0), ..., f(n - 1) (..., max(n, 1)), in double precision."""
        count = max(1, self.n)
        if self.near_values is None:
            return self.far(count)
        near = arrays.cast_precision(self.near_values[..., : min(count, self.width)], "float64")
        if self.width >= count:
            xp = arrays.namespace(near)
            return xp.broadcast_to(near, (*self.shape[:-2], count))
        return _joined(near, self.far(count - self.width))

    @cached_property
    def toeplitz(self) -> Toeplitz:
        """The same matrix as a Toeplitz matrix."""
        f, xp = self.table, arrays.namespace(self.table)
        back = xp.flip(f[..., 1:], axis=-1)
        below, above = self.sides
        zeros = xp.zeros_like(back)
        return Toeplitz(xp.concat([back if above else zeros, f[..., :1], f[..., 1:] if below else zeros], axis=-1))

    # --- products ---------------------------------------------------------------------------------------------------

    @cached_property
    def is_scanned(self) -> bool:
        """Whether chunks multiply: also where transforms, which round a column and not a row, are not much faster."""
        if self.n <= state_scan.PRODUCT_CHUNK or self.dtype.kind == "c":
            return True
        backend, width = acting_backend(self._home), arrays.precision(self)
        scan, spread = (seconds(w, backend, width) for w in (state_scan.product_work(self, 64), self._spread_work(64)))
        return scan <= _PATIENCE * spread

    def _matmat(self, X: Array) -> Array:
        return state_scan.product(self, X) if self.is_scanned else self.toeplitz._placed(X)._matmat(X)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self.gradient(self.toeplitz._placed(X)._pullback(G, X)["offsets"])

    def gradient(self, table: Array) -> Gradients:
        """Gradient for the generators of one for the table of `toeplitz`, or for the 2 l - 1 values at its middle."""
        xp, n, precision = arrays.namespace(table), (int(table.shape[-1]) + 1) // 2, arrays.precision(table)
        below, above = self.sides
        wide = arrays.cast_precision(table, "float64")
        middle, past, future = wide[..., n - 1 : n], wide[..., n:], xp.flip(wide[..., : n - 1], axis=-1)
        tail = past + future if below and above else past if below else future
        return self._own(self._chain(xp.concat([middle, tail], axis=-1)), precision)

    def states_gradient(self, first: int, rows: Array, columns: Array, step: Array, precision: str) -> Gradients:
        """Gradient for the generators of gradients for c a^p, p < C, for a^(first + q) b, q < C, and for a^C, real."""
        return self._own(self._far_chain(first, rows, columns, step), precision)

    def _own(self, gradients: Gradients, precision: str) -> Gradients:
        """Gradients in the shapes of the generators, in a precision."""
        return {
            name: arrays.cast_precision(
                unbroadcast(gradients[name], tuple(getattr(value, "shape", ())), complex_=arrays.is_complex(value)),
                precision,
            )
            for name, value in self._generators()
        }

    def _at(self, i: Array, j: Array) -> Array:
        return self.toeplitz._at(i, j)

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    def _spread_work(self, columns: int) -> Work:
        return self.toeplitz._work(columns) if self.n else Work()

    def _work(self, columns: int) -> Work:
        return state_scan.product_work(self, columns) if self.is_scanned else self._spread_work(columns)

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if self.is_scanned else self.toeplitz._rounding(unit)


def _joined(a: Array, b: Array) -> Array:
    """Two arrays side by side along the last axis, batches broadcast, of one kind."""
    xp = arrays.namespace(a)
    a, b = arrays.as_same_kind(a, b)
    batch = np.broadcast_shapes(tuple(a.shape[:-1]), tuple(b.shape[:-1]))
    return xp.concat([xp.broadcast_to(x, (*batch, x.shape[-1])) for x in (a, b)], axis=-1)
