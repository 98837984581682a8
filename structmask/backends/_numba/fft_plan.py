"""Lengths, stages and orders of the many-column FFT behind a Toeplitz product.

Y = M X with M_ij = c[i - j], an m x n matrix. Take h >= max(m, n), so that 2h > m + n - 2: the offsets -(n-1) .. m-1
are distinct modulo 2h, c is the first column of a circulant of side 2h, and rows i < h of the circulant product of X
padded with zeros to 2h rows are M X. With w = exp(-2 pi i / 2h) and X_j = 0 for j >= h, the spectrum of X splits by
parity,

    even  sum_{j<h} X_j w^(2pj),          a transform of length h ("cyclic" half),
    odd   sum_{j<h} (X_j w^j) w^(2pj),    the same of the twisted data ("skew" half),

and row i < h of the inverse transform is 1/(2h) times the sum of two inverse transforms of length h, the second
twisted back by w^(-i). So two products of length h, one after the other in the same h rows of scratch: the h rows of
zeros never exist.

Each transform of length h = R_0 R_1 ... is a decimation in frequency (natural order in, digit-reversed order out),
followed by the multiplication with a spectrum kept in that order, and a decimation in time back: no reordering of
data.
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
STAGE_COST = {2: 0.9, 3: 1.05, 4: 1.15, 5: 1.25, 8: 1.5}
# Rows between the blocks of the first stage: keeps power-of-two strides off the same cache sets.
GAP = 5


def _stages(h: int, first: int) -> tuple[int, ...] | None:
    """Radices of length h, the first one given; None if there is no second or a prime factor other than 2, 3, 5."""
    powers, rest = {2: 0, 3: 0, 5: 0}, h // first
    for prime in powers:
        while rest % prime == 0:
            rest //= prime
            powers[prime] += 1
    if h % first or rest > 1 or h == first:
        return None
    twos = powers[2]
    # Radix 8 where registers allow, but 4 * 4 rather than 8 * 2.
    eights = 0 if first < 8 else max(0, twos // 3 - (twos % 3 == 1 and twos > 3))
    twos -= 3 * eights
    return (first, *(5,) * powers[5], *(3,) * powers[3], *(8,) * eights, *(4,) * (twos // 2), *(2,) * (twos % 2))


def _smooth(low: int, high: int, first: int) -> list[int]:
    """Multiples of `first` in [low, high] with no other prime factors than 2, 3 and 5."""
    lengths = []
    five = first
    while five <= high:
        three = five
        while three <= high:
            two = three << max(0, (-(-low // three) - 1).bit_length())
            if two <= high:
                lengths.append(two)
            three *= 3
        five *= 5
    return lengths


@lru_cache(maxsize=256)
def good_length(n: int, first: int = 8) -> tuple[int, ...]:
    """Radices of the cheapest transform of length h >= n; h is their product."""
    found = (_stages(h, first) for h in _smooth(max(n, 2 * first), 2 * max(n, 2 * first), first))
    return min((radices for radices in found if radices), key=lambda radices: prod(radices) * stage_cost(radices))


def stage_cost(radices: tuple[int, ...]) -> float:
    """Cost of a row going through all stages, forward and back."""
    return sum(STAGE_COST[radix] for radix in radices)


@dataclass(frozen=True, eq=False)
class Plan:
    """Transform for products with m x n Toeplitz matrices; immutable, shared between threads.

    `lane_bytes` is the vector width. `stages` (T, 3) holds, for each stage, its radix, the rows of the blocks it
    splits, and where its twiddle factors begin in `twiddles`. All numbers are of `dtype`, computed in float64.
    """

    m: int
    n: int
    dtype: np.dtype[Any]
    lane_bytes: int
    radices: tuple[int, ...]

    @cached_property
    def h(self) -> int:
        """Length of the two transforms."""
        return prod(self.radices)

    @cached_property
    def work(self) -> float:
        """Cost of one signal, in rows times `STAGE_COST`."""
        return self.h * stage_cost(self.radices)

    @property
    def scratch_rows(self) -> int:
        """Rows of scratch of one signal."""
        return self.h + self.radices[0] * GAP

    @cached_property
    def _tables(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        h, first = self.h, self.radices[0]
        j = np.arange(h // first)[:, None]
        factors = [np.exp(-1j * np.pi / h * (j * (2 * np.arange(first) + odd) % (2 * h))) for odd in (0, 1)]
        begins, sizes = [0], [h // prod(self.radices[:stage]) for stage in range(len(self.radices) + 1)]
        for radix, (size, stride) in zip(self.radices[1:], pairwise(sizes[1:]), strict=True):
            begins.append(2 * sum(table.size for table in factors))
            factors.append(np.exp(-2j * np.pi / size * (np.arange(stride)[:, None] * np.arange(1, radix))))
        twiddles = np.concatenate([table.ravel() for table in factors]).view(np.float64).astype(self.dtype)
        return np.array([self.radices, sizes[:-1], begins]).T.copy(), twiddles

    @property
    def stages(self) -> NDArray[np.int64]:
        return self._tables[0]

    @property
    def twiddles(self) -> NDArray[Any]:
        return self._tables[1]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The frequency at each row after the forward stages: digits reversed."""
        return np.arange(self.h).reshape(self.radices[::-1]).T.ravel()

    def spectrum(self, offsets: NDArray[Any], /) -> NDArray[Any]:
        """Spectra (D, 2, 2h) of tables `offsets` (D, m+n-1) with offsets[:, i-j+n-1] = M_ij.

        Even, then odd frequencies, in the order of the kernels, real and imaginary parts interleaved.
        """
        h, m, n = self.h, self.m, self.n
        circulant = np.zeros((len(offsets), 2 * h))
        circulant[:, :m] = offsets[:, n - 1 :]
        circulant[:, 2 * h - n + 1 :] = offsets[:, : n - 1]
        natural = scipy.fft.fft(circulant, axis=-1) / (2 * h)
        halves = np.ascontiguousarray(np.stack([natural[:, odd::2][:, self.order] for odd in (0, 1)], axis=1))
        return halves.view(np.float64).astype(self.dtype)

    def offsets(self, spectrum: NDArray[Any], /) -> NDArray[np.float64]:
        """Tables (D, m+n-1) in float64 of correlations given by spectra (D, 2, 2h), ordered as in `spectrum`."""
        h, m, n = self.h, self.m, self.n
        ordered = spectrum.astype(np.float64).view(np.complex128)
        natural = np.empty((len(ordered), 2 * h), np.complex128)
        for odd in (0, 1):
            natural[:, 2 * self.order + odd] = ordered[:, odd]
        circulant = scipy.fft.ifft(natural, axis=-1).real
        return np.concatenate([circulant[:, 2 * h - n + 1 :], circulant[:, :m]], axis=-1)


def plan(m: int, n: int, dtype: DTypeLike, *, lane_bytes: int | None = None) -> Plan:
    """The plan for m x n Toeplitz matrices in float32 or float64 (cached); `lane_bytes` forces a vector width."""
    if m < 1 or n < 1:
        msg = f"A Toeplitz plan needs m >= 1 and n >= 1, got m = {m}, n = {n}."
        raise ValueError(msg)
    if np.dtype(dtype) not in (np.float32, np.float64):
        msg = f"A Toeplitz plan is real, float32 or float64, got {np.dtype(dtype)}; split complex data into its parts."
        raise TypeError(msg)
    return _plan(int(m), int(n), np.dtype(dtype).char, lane_bytes or host_lane_bytes())


@lru_cache(maxsize=64)
def _plan(m: int, n: int, code: str, lane_bytes: int) -> Plan:
    # Radix 8 on complex rows needs 16 vectors of data: only AVX-512 has registers to spare.
    return Plan(m, n, np.dtype(code), lane_bytes, good_length(max(m, n), 8 if lane_bytes == 64 else 4))
