"""Products with a few columns: several phases of every column fill the lanes.

Rows p a + i of an operand X (n, k), i < p, are phase i of its columns. Read row by row, X *is* the matrix (n / p, p k)
of all phases: nothing is copied. In this order a Toeplitz matrix consists of p x p blocks,

    y_i = sum_j T_{i-j} x_j,    T_d the Toeplitz matrix with the entries c[p s + d], |d| < p,

which are Toeplitz matrices of p times fewer rows. So one transform of h >= n / p rows, on full lanes, is followed at
each of its frequencies by the p x p Toeplitz matrix of the numbers T^_d in place of one number, and by the transform
back. It costs 4 p multiplications a lane and frequency, and saves the transform of empty lanes.

On a grid of several levels the phases are those of the last one; lines are filled up with zeros to whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .convolution import PRODUCT
from .fft_jobs import worker_count
from .fft_plan import Plan, plan


def phase_count(this: Plan, columns: int) -> int:
    """How many phases of so many columns fit a vector."""
    last = this.axes[-1]
    return max(1, min(this.lanes // max(1, columns), max(last.m, last.n)))


@dataclass(frozen=True, eq=False)
class Phases:
    """Toeplitz matrices for operands of few columns, in phases.

    `plan` is the one of the blocks T_d. `spectrum` (D, ...) holds theirs, frequency by frequency: 4 n numbers, twice as
    many as without phases.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    phases: int
    plan: Plan
    spectrum: NDArray[Any]

    def product(self, spectrum: NDArray[Any], X: NDArray[Any], /) -> NDArray[Any]:
        """Y (batch, m, k) = M X for X (batch, n, k) and 1 or batch spectra, see `convolution.product`."""
        this = self.plan
        X = np.ascontiguousarray(_filled(X, self.columns, self._whole(self.columns)), this.dtype)
        k, rows = X.shape[-1], self._whole(self.rows)
        Y = np.empty((len(X), prod(rows), k), this.dtype)
        workers = worker_count(this, len(X))
        PRODUCT.run(this, workers, 1, spectrum, X, Y, phases=self.phases, group=k)
        if rows == self.rows:
            return Y
        return Y.reshape(len(Y), -1, rows[-1], k)[:, :, : self.rows[-1]].reshape(len(Y), -1, k)

    def _whole(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Sides of a grid whose lines consist of whole rows; a single line may end inside one."""
        return sides if len(sides) == 1 else (*sides[:-1], -(-sides[-1] // self.phases) * self.phases)


def _filled(X: NDArray[Any], sides: tuple[int, ...], whole: tuple[int, ...]) -> NDArray[Any]:
    """X (batch, n, k) on a grid, with zeros at the ends of its lines."""
    if sides == whole:
        return X
    filled = np.zeros((len(X), prod(sides[:-1]), whole[-1], X.shape[-1]), X.dtype)
    filled[:, :, : sides[-1]] = X.reshape(len(X), -1, sides[-1], X.shape[-1])
    return filled.reshape(len(X), -1, X.shape[-1])


def in_phases(this: Plan, offsets: NDArray[Any], p: int) -> Phases:
    """The matrices of a plan with tables `offsets` (D, m_1+n_1-1, ...), see `Plan.spectrum`, in p phases."""
    m, n = tuple(axis.m for axis in this.axes), tuple(axis.n for axis in this.axes)
    rows, columns = -(-m[-1] // p), -(-n[-1] // p)
    part = plan((*m[:-1], rows), (*n[:-1], columns), this.dtype, lane_bytes=this.lane_bytes)
    wide = np.zeros((*offsets.shape[:-1], p * (rows + columns)))
    start = p * columns - n[-1] + 1  # where offset 1 - n is, with -p columns at 0
    wide[..., start : start + offsets.shape[-1]] = offsets
    tables = np.stack([wide[..., p + d :: p][..., : rows + columns - 1] for d in range(1 - p, p)], axis=1)
    spectra = part.spectrum(tables.reshape(-1, *part.table_shape)).reshape(len(offsets), 2 * p - 1, -1, 2)
    ordered = spectra.transpose(0, 2, 3, 1).reshape(len(offsets), -1)
    return Phases(m, n, p, part, np.pad(ordered, ((0, 0), (0, this.lanes))))  # whole vectors are read at its end, too
