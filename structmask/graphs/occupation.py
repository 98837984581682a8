"""Expected times spent in states, over a time in which states change often: the integral of exp(sQ), as a matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.uniformisation import TRIAL, Clock, evolved_values, occupied
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Work

_ROUNDING = 1e-10  # of the time


class Rates(NamedTuple):
    """The rates of a process (csr_array without a diagonal), and the accuracy asked for: no generators."""

    A: Any
    tol: float


@dataclass(frozen=True, eq=False, repr=False)
class Occupation(StructuredMatrix):
    """The integral of exp(sQ) for s from 0 to `time`; `MarkovProcess.occupation` makes one for long times.

    Parameters
    ----------
    time : float
    rates : Rates
        Q without its diagonal, and the error of a row, summed over its entries.
    transposed : bool
        Whether this is the transposed matrix.

    Notes
    -----
    A product is a solution in time (`uniformisation`), where the operand is: powers as long as something changes,
    implicit steps, on the host, where that takes too long. In double precision, whatever the operand's; `time` has
    gradients, rates have none.
    """

    time: float
    rates: Rates = field(kw_only=True)
    transposed: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if np.imag(self.time) != 0:
            msg = f"time is a real number, got {self.time!r}"
            raise TypeError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        n = int(self.rates.A.shape[0])
        return (n, n)

    def _matmat(self, X: Array) -> Array:
        return self._columnwise(X, lambda x: occupied(self._clock, x, self._until, self._tol))

    def _columnwise(self, X: Array, function: Callable[[Array], Array]) -> Array:
        """A linear function of real columns (n, k), for X (..., n, k)."""
        xp = arrays.namespace(X)
        columns = xp.moveaxis(X, -2, 0)
        flat = xp.reshape(columns, (columns.shape[0], -1))
        if arrays.is_complex(flat):
            both = function(xp.concat([xp.real(flat), xp.imag(flat)], axis=1))
            flat = both[:, : flat.shape[1]] + 1j * both[:, flat.shape[1] :]
        else:
            flat = function(flat)
        kind = arrays.dtype_of(arrays.precision(X), complex_=arrays.is_complex(X) or self.dtype.kind == "c")
        return arrays.cast(xp.moveaxis(xp.reshape(flat, columns.shape), 0, -2), kind)

    @property
    def _until(self) -> float:
        return float(np.real(self.time))

    @cached_property
    def _clock(self) -> Clock:
        return Clock(self.rates.A, functions=not self.transposed)

    def transpose(self) -> Occupation:
        return dataclasses.replace(self, transposed=not self.transposed)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """<exp(tQ) X, G> for the time."""
        Y = self._columnwise(X, lambda x: evolved_values(self._clock, x, self._until, self.rates.tol))
        xp, complex_ = arrays.namespace(Y), arrays.is_complex(self.time)
        d_time = xp.sum(arrays.conj(Y) * G)
        d_time = d_time if complex_ or not arrays.is_complex(d_time) else xp.real(d_time)
        return {"time": arrays.cast(d_time, arrays.dtype_of(arrays.precision(X), complex_=complex_))}

    @cached_property
    def _tol(self) -> float:
        """Relative to an operand of norm one; implicit steps do not get below their rounding."""
        A, tol = self.rates
        is_short = float(np.asarray(A.sum(axis=1)).max(initial=0.0)) * self._until <= TRIAL
        return tol if is_short else max(tol, _ROUNDING * self._until)

    @property
    def error_bound(self) -> float:
        """In the norm max |x|."""
        return math.nan if self.transposed else self._tol

    @property
    def error_estimate(self) -> float:
        return self._tol

    def _work(self, columns: int) -> Work:
        A = self.rates.A
        return Work(scan=TRIAL * (2.0 * A.nnz + 6.0 * A.shape[0]) * columns, calls=1)
