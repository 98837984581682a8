"""Causal masks with decay: 1-semiseparable matrices, whose product is a linear recurrence."""

from __future__ import annotations

import dataclasses
import math
import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import gather
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work

_LEAST_DIVISOR = 0.25  # decays below it would magnify the rounding of what they divide


@dataclass(frozen=True, eq=False, repr=False)
class Causal(StructuredMatrix):
    """M_ij = prod_{t=j+1..i} decay_t for i >= j, and 0 above the diagonal.

    Parameters
    ----------
    n : int
        Size.
    decay : float or array (..., n) or (..., 1)
        Factor of each position (the first is unused), or one factor for all of them; leading axes are a batch. The
        default 1 gives prefix sums. Zeros reset, negative and complex factors are allowed.
    upper : bool
        The transposed matrix: M_ij = prod_{t=i+1..j} decay_t for j >= i.

    Notes
    -----
    A product costs 2 n operations a column. It is the recurrence y_i = x_i + decay_i y_{i-1}, stable for |decay| <= 1.

    Examples
    --------
    >>> from structmask import Causal
    >>> Causal(3, decay=0.5).to_dense()
    array([[1.  , 0.  , 0.  ],
           [0.5 , 1.  , 0.  ],
           [0.25, 0.5 , 1.  ]])
    """

    n: int
    decay: Array = field(default=1.0, kw_only=True)
    upper: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", operator.index(self.n))
        if self.n < 0:
            msg = f"Causal needs a size n >= 0, got {self.n}"
            raise ValueError(msg)
        if isinstance(self.decay, int | float | complex):
            object.__setattr__(self, "decay", self.decay if isinstance(self.decay, complex) else float(self.decay))
            return
        decay = arrays.as_array(self.decay, "Causal(decay)")
        if decay.ndim and decay.shape[-1] not in (1, self.n):
            msg = (
                f"Causal({self.n}) needs a scalar decay or one of shape (..., {self.n}) or (..., 1), got "
                f"{tuple(decay.shape)}"
            )
            raise ValueError(msg)
        object.__setattr__(self, "decay", decay)

    @property
    def is_constant(self) -> bool:
        """Whether all positions share one decay, so that the matrix is also Toeplitz."""
        return isinstance(self.decay, float | complex) or self.decay.ndim == 0 or self.decay.shape[-1] == 1

    @property
    def shape(self) -> tuple[int, ...]:
        batch = () if isinstance(self.decay, float | complex) else tuple(self.decay.shape[:-1])
        return (*batch, self.n, self.n)

    def _place(self, width: str, target: str) -> Self:
        """Moved only: decays are raised to powers as large as n, which would raise their rounding with them."""
        moved = arrays.move(self.decay, target) if hasattr(self.decay, "dtype") else self.decay
        return dataclasses.replace(self, decay=moved)

    def decays(self, like: Array) -> Array:
        """The factors (..., n) as an array in the home of another, in their own precision."""
        xp = arrays.namespace(like)
        if isinstance(self.decay, float | complex):
            return xp.full(
                (self.n,), self.decay, dtype=xp.complex128 if isinstance(self.decay, complex) else xp.float64
            )
        return xp.broadcast_to(self.decay, (*self.decay.shape[:-1], self.n))

    def _matmat(self, X: Array) -> Array:
        return kernels.linear_scan(X, self.decays(X), upper=self.upper)

    def transpose(self) -> Causal:
        return Causal(self.n, decay=self.decay, upper=not self.upper)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """With y_t = x_t + a_t y_{t-1} and R the adjoint recurrence of G, the gradient for a_t is <R_t, y_{t-1}>."""
        xp, a = arrays.namespace(X), self.decays(X)
        conj = xp.conj if any(map(arrays.is_complex, (a, G, X))) else lambda z: z
        if self.upper:  # Re <G, M^T X> = Re <conj X, M conj G>
            G, X = conj(X), conj(G)
        Y = kernels.linear_scan(X, a, upper=False)
        R = kernels.linear_scan(G, conj(a), upper=True)
        inner = xp.sum(R[..., 1:, :] * conj(Y[..., :-1, :]), axis=-1)
        gradient = (
            xp.concat([xp.zeros_like(inner[..., :1]), inner], axis=-1) if self.n > 1 else xp.zeros_like(R[..., 0])
        )
        shape = () if isinstance(self.decay, float | complex) else tuple(self.decay.shape)
        gradient = gradient if shape else xp.sum(gradient)
        return {"decay": unbroadcast(gradient, shape, complex_=arrays.is_complex(self.decay))}

    @cached_property
    def divides(self) -> bool:
        """Whether all decays are real and far enough from zero to be divided by."""
        if arrays.is_complex(self.decay):
            return False
        if isinstance(self.decay, float):
            return abs(self.decay) >= _LEAST_DIVISOR
        xp = arrays.namespace(self.decay)
        used = self.decay if self.is_constant else self.decay[..., 1:]
        return bool(xp.all(xp.abs(used) >= _LEAST_DIVISOR))

    def gradient(self, rows: Array, columns: Array) -> Gradients:
        """Gradient for the decays from the sums (..., n) of d M_ij M_ij over rows and over columns of the mask.

        An entry (i, j) below the diagonal has the factor a_t if j < t <= i: a_t times its gradient is the sum over
        such entries, which is that over the rows i >= t without that over the columns j >= t.
        """
        if self.upper:
            rows, columns = columns, rows
        xp = arrays.namespace(rows)
        slope = arrays.cast_precision(rows, "float64") - arrays.cast_precision(columns, "float64")
        slope = xp.flip(xp.cumulative_sum(xp.flip(slope, axis=-1), axis=-1), axis=-1)
        inner = slope[..., 1:] / self.decays(rows)[..., 1:]
        gradient = xp.concat([xp.zeros_like(slope[..., :1]), inner], axis=-1)
        gradient = arrays.cast_precision(gradient, arrays.precision(rows))
        return {"decay": unbroadcast(gradient, tuple(getattr(self.decay, "shape", ())), complex_=False)}

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        if self.upper:
            i, j = j, i
        steps = i - j
        inside = steps >= 0
        if self.is_constant:
            return _power(self.decay, xp.where(inside, steps, xp.zeros_like(steps)), inside)
        return self._product_between(i, j, inside)

    def _product_between(self, i: Array, j: Array, inside: Array) -> Array:
        """prod_{t=j+1..i} decay_t by doubling: windows of length 2^b, as many as the binary digits of i - j say.

        In double precision, as in products: single ones would be off by as many roundings as there are steps.
        """
        xp, a = arrays.namespace(i), arrays.cast_precision(self.decay, "float64")
        i, j, inside = xp.broadcast_arrays(i, j, inside)
        steps, position = xp.where(inside, i - j, 0), j + 1
        value = xp.ones((*a.shape[:-1], *i.shape), dtype=a.dtype)
        window, length = a, 1  # window[t] = product of decays t .. t + length - 1
        while length < self.n:
            taken = (steps // length) % 2 == 1
            index = xp.where(taken, position, 0)
            factor = xp.reshape(xp.take(window, xp.reshape(index, (-1,)), axis=-1), value.shape)
            value = value * xp.where(taken, factor, xp.ones_like(factor))
            position = xp.where(taken, position + length, position)
            tail = xp.ones((*a.shape[:-1], length), dtype=a.dtype)
            window = window * xp.concat([window[..., length:], tail], axis=-1)
            length *= 2
        return xp.where(inside, value, xp.zeros_like(value))

    def _block(self, i: Array, j: Array, like: Array) -> Array:
        """Rows with a decay a position come faster from the recurrence on columns of the identity."""
        if self.is_constant:
            return super()._block(i, j, like)
        xp = arrays.namespace(like)
        return xp.take(xp.matrix_transpose(self.transpose()._columns(i, like)), j, axis=-1)

    @property
    def _entry_bytes(self) -> float:
        return 40.0 if self.is_constant else 60.0

    def _work(self, columns: int) -> Work:
        return Work(scan=2.0 * math.prod(self.shape[:-1]) * columns, calls=1)


def _power(decay: Array, steps: Array, inside: Array) -> Array:
    """Powers decay ** steps where inside, 0 elsewhere, with the decay's batch in front."""
    xp = arrays.namespace(steps)
    name = "complex128" if isinstance(decay, complex) else "float64"
    base = xp.asarray(decay, dtype=getattr(xp, name)) if isinstance(decay, float | complex) else decay
    base = base[..., 0] if base.ndim else base
    if arrays.home(steps) == "numpy":  # a table is cheaper, but the host has to know how long it is
        exponents = xp.arange(0 if 0 in steps.shape else int(xp.max(steps)) + 1)
        value = gather(base[..., None] ** arrays.cast(exponents, arrays.dtype_name(base)), steps)
    else:
        value = xp.reshape(base, (*base.shape, *(1 for _ in steps.shape))) ** arrays.cast(
            steps, arrays.dtype_name(base)
        )
    return xp.where(inside, value, xp.zeros_like(value))
