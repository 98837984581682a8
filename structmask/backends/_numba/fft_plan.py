"""Lengths, stages and orders of the many-column FFT behind a Toeplitz product on a grid of any number of levels.

One level first: Y = M X with M_ij = c[i - j], an m x n matrix. Take h >= max(m, n) and polynomials modulo u^(2h) + 1:
column j of X is the coefficient of u^j, c[s] that of u^s, and 1 / u = -u^(2h-1). The exponents of the product are
-(n-1) .. m+n-2; none but i itself is i < m modulo 2h, so that coefficients 0 .. m-1 are M X. Over the complex numbers
u^(2h) + 1 = (u^h + i)(u^h - i), where a real polynomial has conjugate remainders. One of them is enough:

    modulo u^h + i      sum_{j<2h} x_j u^j  =  sum_{j<h} (x_j - i x_{j+h}) u^j,

the values of which at the roots u = exp(-2 pi i (f + 1/4) / h), f < h, are a transform of length h of data twisted by
a quarter turn. X has no rows from h on: its remainder is X itself, real, and M X is the real part of the remainder of
the product. So a real column costs one complex transform of length h, not 2h; there are no rows of zeros; and the
column is alone in its transform, so that its rounding is its own.

Several levels: the first one is done in this way; each of its frequencies is a complex product on the grid of the
other levels, done in place before the first level is transformed back (`fft_walk`). Complex data need all of the 2h
frequencies of a circulant of side 2h, which split by parity, w = exp(-2 pi i / 2h),

    even  sum_{j<h} X_j w^(2pj),          a transform of length h,
    odd   sum_{j<h} (X_j w^j) w^(2pj),    the same of data twisted by half a turn,

and row i < h of the inverse transform is the sum of two inverse transforms of length h, the second twisted back by
w^(-i): two products of length h, one after the other. No level ever holds its zeros.

Each transform of length h = R_0 R_1 ... is a decimation in frequency (natural order in, digit-reversed order out),
followed on the last level by the multiplication with a spectrum kept in that order, and a decimation in time back: no
reordering of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike, NDArray

from .simd import host_lane_bytes

# Relative cost of a row in a stage, arithmetic and memory together, by radix.
STAGE_COST = {1: 0.6, 2: 0.9, 3: 1.05, 4: 1.15, 5: 1.25, 8: 1.5}
# Rows between the legs of the first stage: keeps power-of-two strides off the same cache sets.
GAP = 5
# Rows that are transformed together along a level with others inside it: they should fit the L2 cache.
CHUNK_ROWS = 2048

# Columns of the table of levels.
FIELDS = 15
(
    RADIX, STRIDE, TABLE,  # of the first stage: its legs, how far apart they are, where its twiddle factors begin
    LENGTH, STAGE, STOP,  # h, and which rows of `stages` belong to the level
    ENTERING, LEAVING,  # sides n_l and m_l of the grid
    RUN_IN, RUN_OUT,  # rows inside one position of this level: the sides of all later levels multiplied
    PITCH, GAP_ROWS,  # scratch rows from one position to the next, and extra positions between legs
    BASE, HALF,  # scratch row where the level begins, and rows of one of its transforms
    LINES,  # lines of the last level inside all transforms of this one
) = range(FIELDS)  # fmt: skip


def first_radices(widest: int) -> tuple[int, int]:
    """Legs that a first stage may have: a single one only twists."""
    return 1, widest


def _stages(h: int, first: int, widest: int, least: int) -> tuple[int, ...] | None:
    """Radices of length h, the first one given; None if there are less than `least` or a prime factor is above 5."""
    if h % first or (least > 1 and h == first):
        return None
    powers, rest = {2: 0, 3: 0, 5: 0}, h // first
    for prime in powers:
        while rest % prime == 0:
            rest //= prime
            powers[prime] += 1
    if rest > 1:
        return None
    twos = powers[2]
    # Radix 8 where registers allow, but 4 * 4 rather than 8 * 2.
    eights = 0 if widest < 8 else max(0, twos // 3 - (twos % 3 == 1 and twos > 3))
    twos -= 3 * eights
    return (first, *(5,) * powers[5], *(3,) * powers[3], *(8,) * eights, *(4,) * (twos // 2), *(2,) * (twos % 2))


def _smooth(low: int, high: int) -> list[int]:
    """Numbers in [low, high] with no other prime factors than 2, 3 and 5."""
    lengths = []
    five = 1
    while five <= high:
        three = five
        while three <= high:
            two = three << max(0, (-(-low // three) - 1).bit_length())
            while two <= high:
                lengths.append(two)
                two *= 2
            three *= 3
        five *= 5
    return lengths


@lru_cache(maxsize=256)
def good_length(n: int, widest: int = 8, least: int = 2) -> tuple[int, ...]:
    """Radices, at least so many, of the cheapest transform of length h >= n; h is their product."""
    low = max(n, 2)
    found = (_stages(h, first, widest, least) for h in _smooth(low, 2 * low) for first in first_radices(widest))
    return min(
        (radices for radices in found if radices),
        key=lambda radices: (prod(radices) * stage_cost(radices), -radices[0]),
    )


def stage_cost(radices: tuple[int, ...]) -> float:
    """Cost of a row going through all stages, forward and back."""
    return sum(STAGE_COST[radix] for radix in radices)


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a grid: m positions of rows, n of columns, and the radices of its transforms of length h.

    Data of the transforms number t are twisted by `turns[t]`: row j by exp(-2 pi i j turns[t] / h).
    """

    m: int
    n: int
    radices: tuple[int, ...]
    turns: tuple[float, ...]

    @cached_property
    def h(self) -> int:
        return prod(self.radices)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The frequency, counted through all transforms, at each row after the forward stages: digits are reversed."""
        count, reverse = len(self.turns), np.arange(self.h).reshape(self.radices[::-1]).T.ravel()
        return np.concatenate([count * reverse + t for t in range(count)])

    def tables(self) -> tuple[list[tuple[int, int, int]], NDArray[np.float64]]:
        """Radix, rows of the blocks it splits, and beginning of its twiddle factors for every stage; the factors."""
        h, first = self.h, self.radices[0]
        j, f = np.arange(h // first)[:, None], np.arange(first)
        factors = [np.exp(-2j * np.pi / h * (j * (f + turn) % h)) for turn in self.turns]
        begins, sizes = [0], [h // prod(self.radices[:stage]) for stage in range(len(self.radices) + 1)]
        for radix, (size, stride) in zip(self.radices[1:], pairwise(sizes[1:]), strict=True):
            begins.append(2 * sum(table.size for table in factors))
            factors.append(np.exp(-2j * np.pi / size * (np.arange(stride)[:, None] * np.arange(1, radix))))
        stages = list(zip(self.radices, sizes[:-1], begins, strict=True))
        return stages, np.concatenate([table.ravel() for table in factors]).view(np.float64)


@dataclass(frozen=True, eq=False)
class Plan:
    """Transforms for Toeplitz matrices between two grids; immutable, shared between threads.

    `lane_bytes` is the vector width, `axes` are the levels, outermost first. All numbers are of `dtype`, computed in
    float64.
    """

    axes: tuple[Level, ...]
    dtype: np.dtype[Any]
    lane_bytes: int

    @cached_property
    def m(self) -> int:
        """Rows of the matrix."""
        return prod(axis.m for axis in self.axes)

    @cached_property
    def n(self) -> int:
        """Columns of the matrix."""
        return prod(axis.n for axis in self.axes)

    @property
    def table_shape(self) -> tuple[int, ...]:
        """Sides of a table of offsets."""
        return tuple(axis.m + axis.n - 1 for axis in self.axes)

    @cached_property
    def size(self) -> int:
        """Frequencies of all levels together."""
        return prod(self.lengths)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Frequencies of every level."""
        return tuple(len(axis.turns) * axis.h for axis in self.axes)

    @cached_property
    def work(self) -> float:
        """Cost of one signal, in rows times `STAGE_COST`."""
        total = 0.0
        for level, axis in enumerate(self.axes):
            rows = 2**level * prod(a.h for a in self.axes[: level + 1]) * prod(a.n for a in self.axes[level + 1 :])
            total += rows * stage_cost(axis.radices)
        return total

    @property
    def lanes(self) -> int:
        """V, numbers in a vector."""
        return self.lane_bytes // self.dtype.itemsize

    @property
    def widest(self) -> int:
        """Largest radix of a first stage."""
        return widest_radix(self.lane_bytes)

    def padded(self, transposed: bool) -> int:
        """Rows of an operand whose first level has h positions; of a result if `transposed`."""
        return int(self.axes[0].h * self.levels[int(transposed), 0, RUN_IN])

    @cached_property
    def _tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any], int]:
        """Levels of the matrix and of its transpose, stages, twiddle factors, rows of scratch."""
        levels = np.zeros((2, len(self.axes), FIELDS), np.int64)
        stages: list[tuple[int, int, int]] = []
        twiddles: list[NDArray[np.float64]] = []
        base = 0
        for index, axis in enumerate(self.axes):
            inner = self.axes[index + 1 :]
            runs = prod(a.n for a in inner), prod(a.m for a in inner)
            stride, begin = axis.h // axis.radices[0], sum(table.size for table in twiddles)
            pitch = max(runs) | 1  # odd: positions fall on different cache sets
            gap = GAP if not inner and stride % 16 == 0 else 0
            half = (axis.h + axis.radices[0] * gap) * pitch
            own_stages, own_twiddles = axis.tables()
            stop = len(stages) + len(own_stages)
            lines = prod(self.lengths[index:-1])
            for side, (n, m, run_in, run_out) in enumerate(((axis.n, axis.m, *runs), (axis.m, axis.n, *runs[::-1]))):
                levels[side, index] = (
                    axis.radices[0], stride, begin, axis.h, len(stages), stop, n, m, run_in, run_out, pitch, gap, base,
                    half, lines,
                )  # fmt: skip
            stages += [(radix, size, begin + table) for radix, size, table in own_stages]
            twiddles.append(own_twiddles)
            base += len(axis.turns) * half
        return levels, np.array(stages), np.concatenate(twiddles).astype(self.dtype), base

    @property
    def levels(self) -> NDArray[np.int64]:
        """(2, d, FIELDS): what kernels know of each level, for the matrix and for its transpose."""
        return self._tables[0]

    @property
    def stages(self) -> NDArray[np.int64]:
        return self._tables[1]

    @property
    def twiddles(self) -> NDArray[Any]:
        return self._tables[2]

    @property
    def scratch_rows(self) -> int:
        """Rows of scratch of one signal."""
        return self._tables[3]

    def spectrum(self, offsets: NDArray[Any], /) -> NDArray[Any]:
        """Spectra (D, 2 size) of real tables `offsets` (D, m_1+n_1-1, ...): the entry for i - j is at i - j + n - 1.

        Frequencies of every level are in the order of the kernels, real and imaginary parts interleaved.
        """
        h, m, n = self.axes[0].h, self.axes[0].m, self.axes[0].n
        wide = np.zeros((len(offsets), 2 * h, *self.lengths[1:]))
        wide[(slice(None), slice(h - n + 1, h + m), *map(slice, self.table_shape[1:]))] = offsets
        folded = (wide[:, h:] + 1j * wide[:, :h]) * self._twist  # u^(-h) is i
        axes = range(1, len(self.axes) + 1)
        folded = np.roll(folded, [1 - axis.n for axis in self.axes[1:]], axes[1:])
        natural = scipy.fft.fftn(folded, axes=axes, overwrite_x=True) / self.size
        ordered = natural[np.ix_(np.arange(len(offsets)), *(axis.order for axis in self.axes))]
        return ordered.reshape(len(offsets), -1).view(np.float64).astype(self.dtype)

    def offsets(self, spectrum: NDArray[Any], /) -> NDArray[np.float64]:
        """Tables (D, m_1+n_1-1, ...) in float64 of correlations given by spectra ordered as in `spectrum`."""
        h, m, n = self.axes[0].h, self.axes[0].m, self.axes[0].n
        ordered = spectrum.astype(np.float64).view(np.complex128)
        natural = np.empty((len(ordered), *self.lengths), np.complex128)
        natural[np.ix_(np.arange(len(ordered)), *(axis.order for axis in self.axes))] = ordered.reshape(natural.shape)
        axes = range(1, len(self.axes) + 1)
        folded = scipy.fft.ifftn(natural, axes=axes, overwrite_x=True) * self._twist.conj()
        folded = np.roll(folded, [axis.n - 1 for axis in self.axes[1:]], axes[1:])
        wide = np.concatenate([folded.imag, folded.real], axis=1)
        return wide[(slice(None), slice(h - n + 1, h + m), *map(slice, self.table_shape[1:]))]

    @cached_property
    def _twist(self) -> NDArray[np.complex128]:
        """exp(-2 pi i j / 4h) for the first level, one of its axes for each axis of `spectrum`."""
        h = self.axes[0].h
        return np.exp(-0.5j * np.pi / h * np.arange(h)).reshape(-1, *(1,) * (len(self.axes) - 1))


def widest_radix(lane_bytes: int) -> int:
    """Radix 8 on complex rows needs 16 vectors of data: only AVX-512 has registers to spare."""
    return 8 if lane_bytes == 64 else 4


def plan(
    rows: int | tuple[int, ...], columns: int | tuple[int, ...], dtype: DTypeLike, *, lane_bytes: int | None = None
) -> Plan:
    """The plan for Toeplitz matrices from a grid of columns to one of rows (cached), in float32 or float64.

    Parameters
    ----------
    rows, columns : sides of the grids, one integer or several.
    lane_bytes : forces a vector width.
    """
    m, n = ((sides,) if isinstance(sides, int) else tuple(sides) for sides in (rows, columns))
    if len(m) != len(n) or min((*m, *n), default=0) < 1:
        msg = f"A Toeplitz plan needs as many rows as columns, m >= 1 and n >= 1, got m = {m}, n = {n}."
        raise ValueError(msg)
    if np.dtype(dtype) not in (np.float32, np.float64):
        msg = f"A Toeplitz plan is real, float32 or float64, got {np.dtype(dtype)}; split complex data into its parts."
        raise TypeError(msg)
    return _plan(m, n, np.dtype(dtype).char, lane_bytes or host_lane_bytes())


@lru_cache(maxsize=64)
def _plan(m: tuple[int, ...], n: tuple[int, ...], code: str, lane_bytes: int) -> Plan:
    last, widest = len(m) - 1, widest_radix(lane_bytes)
    axes = tuple(
        Level(
            int(rows),
            int(columns),
            good_length(max(rows, columns), widest, 2 if level == last else 1),
            (0.0, 0.5) if level else (0.25,),
        )
        for level, (rows, columns) in enumerate(zip(m, n, strict=True))
    )
    return Plan(axes, np.dtype(code), lane_bytes)
