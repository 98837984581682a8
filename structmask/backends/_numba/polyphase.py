"""Products with a few columns: several phases of every column fill the lanes.

Rows p a + i of an operand X (n, k), i < p, are phase i of its columns. Read row by row, X *is* the matrix (n / p, p k)
of all phases: nothing is copied. In this order a Toeplitz matrix consists of p x p blocks,

    y_i = sum_j T_{i-j} x_j,    T_d the Toeplitz matrix with the entries c[p s + d], |d| < p,

which are Toeplitz matrices of p times fewer rows. So one transform of h >= n / p rows, on full lanes, is followed at
each of its frequencies by the p x p Toeplitz matrix of the numbers T^_d in place of one number, and by the transform
back. It costs 4 p multiplications a lane and frequency, and saves the transform of empty lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .convolution import PRODUCT
from .fft_jobs import worker_count
from .fft_plan import Plan, plan
from .fft_stages import spectrum_numbers


def phase_count(this: Plan, columns: int) -> int:
    """How many phases of so many columns fit a vector; 1 for grids of several levels."""
    lanes = this.lane_bytes // this.dtype.itemsize
    return max(1, lanes // columns) if len(this.axes) == 1 and columns > 0 else 1


@dataclass(frozen=True, eq=False)
class Phases:
    """A Toeplitz matrix (m, n) for operands of `group` columns, in phases.

    `plan` is the one of the blocks T_d, `spectrum` (D, h numbers) theirs in the order of `fft_stages.multiply_stage`:
    about 4 n group numbers, as many as the plain spectrum has for every column.
    """

    m: int
    group: int
    phases: int
    plan: Plan
    spectrum: NDArray[Any]

    def product(self, spectrum: NDArray[Any], X: NDArray[Any], /) -> NDArray[Any]:
        """Y (batch, m, group) = M X for X (batch, n, group) and 1 or batch spectra, see `convolution.product`."""
        this, lanes = self.plan, self.plan.lane_bytes // self.plan.dtype.itemsize
        Y = np.empty((len(X), self.m, self.group), this.dtype)
        X = np.ascontiguousarray(X, this.dtype)
        workers = worker_count(this, len(X))
        PRODUCT.run(this, lanes, workers, 1, spectrum, X, Y, phases=self.phases, group=self.group)
        return Y


def in_phases(whole: Plan, offsets: NDArray[Any], group: int) -> Phases:
    """The matrices of `whole` with tables `offsets` (D, m+n-1), see `Plan.spectrum`, for `group` columns."""
    p = phase_count(whole, group)
    (m, n), lanes = (whole.m, whole.n), whole.lane_bytes // whole.dtype.itemsize
    rows, columns = -(-m // p), -(-n // p)
    part = plan(rows, columns, whole.dtype, lane_bytes=whole.lane_bytes)
    wide = np.zeros((len(offsets), p * (rows + columns)))
    start = p * columns - n + 1  # where offset 1 - n is, with -p columns at 0
    wide[:, start : start + m + n - 1] = offsets
    tables = np.stack([wide[:, p + d :: p][:, : rows + columns - 1] for d in range(1 - p, p)], axis=1)
    spectra = part.spectrum(tables.reshape(-1, rows + columns - 1)).reshape(len(offsets), 2 * p - 1, -1, 2)
    ordered = np.zeros((len(offsets), part.size, 2, spectrum_numbers(lanes, p, group) // 2), whole.dtype)
    ordered[..., : (2 * p - 1) * group] = np.repeat(spectra.transpose(0, 2, 3, 1), group, axis=-1)
    return Phases(m, group, p, part, ordered.reshape(len(offsets), -1))
