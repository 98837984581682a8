"""Long merges of lists on a uniform grid: products with Hankel matrices of one table, by FFT, many merges at once.

The matrix of a merge is f(d_u + d_v). On a grid of distances it is table[i + j], and with one list in reverse a
Toeplitz matrix. Merges of about the same size are products with the same matrix, and make one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from structmask.backends.arrays import Array
from structmask.graphs.merges import Merges
from structmask.graphs.tree import Floats, Ints
from structmask.linalg.planning import Work

if TYPE_CHECKING:
    from structmask.backends._numba.fft_plan import Plan

_BLOCK = 1 << 20  # numbers on grids at a time
_LEAST = 16  # points of the smallest grid
_SIZES = 4  # of grids in an octave


@dataclass(frozen=True, eq=False)
class Grids:
    """The lists of some merges on a grid of distances.

    Parameters
    ----------
    of : Merges
        What their nodes and distances are.
    merges : array (m, 4)
        Begin and end of the two lists of each.
    step : float
        Distance of two points of the grid.
    points : int
        A distance is interpolated between so many points around it: 1 if all distances are on the grid.
    """

    of: Merges
    merges: Ints
    step: float
    points: int

    @cached_property
    def sides(self) -> Ints:
        """Points of the grid of each merge, rounded up to a few sizes that many merges share."""
        if not len(self.merges):
            return np.zeros(0, np.int64)
        furthest = self.of.dist[self.merges[:, 1::2] - 1].max(axis=1)
        return grid_sides(np.maximum(furthest / self.step + min(self.points, 2), self.points))

    @cached_property
    def _groups(self) -> list[tuple[int, Ints]]:
        """Merges by their side."""
        return [(int(side), self.merges[self.sides == side]) for side in np.unique(self.sides)]

    def batches(self, columns: int) -> Iterator[tuple[int, Ints]]:
        """Sides, and as many merges of that side as fit scratch memory, for an operand of so many columns."""
        for side, merges in self._groups:
            count = max(1, _BLOCK // (2 * side * columns))
            for first in range(0, len(merges), count):
                yield side, merges[first : first + count]

    def sums(self, merges: Ints, side: int, X: Array, *, swapped: bool, room: Array | None = None) -> Array:
        """X (B, n, 8) summed onto the grids of both lists: (2 m, side, 8 B), a list after the other.

        `swapped`: each in the place of its partner and in reverse, as the product wants them; `room`: for the result.
        """
        from structmask.backends._numba.tree_grid import to_grids

        blocks, _, lanes = X.shape
        shape, size = (2 * len(merges), side * blocks, lanes), 2 * len(merges) * side * blocks * lanes
        out = (np.empty(size) if room is None else room[:size]).reshape(shape)
        to_grids(self.of.node, self.of.dist, merges, self.step, self.points, swapped, X, out)
        return out.reshape(-1, side, blocks * lanes)

    def deal(self, merges: Ints, rows: Array, Y: Array) -> None:
        """Y += rows of the grids at the nodes of the lists."""
        from structmask.backends._numba.tree_grid import from_grids

        grids = rows.reshape(rows.shape[0], -1, Y.shape[2])
        from_grids(self.of.node, self.of.dist, merges, self.step, self.points, grids, Y)

    def dots(self, merges: Ints, rows: Array, G: Array, W: Floats) -> None:
        """W += inner products of rows of the grids with those of G, at the entries of the lists."""
        from structmask.backends._numba.tree_grid import dots_with_grids

        grids = rows.reshape(rows.shape[0], -1, G.shape[2])
        dots_with_grids(self.of.node, self.of.dist, merges, self.step, self.points, grids, G, W)

    def work(self, columns: int) -> Work:
        """What a product costs."""
        wide, side, m = 8 * -(-columns // 8), self.sides.astype(float), self.merges
        points = float((m[:, 1] - m[:, 0] + m[:, 3] - m[:, 2]).sum()) * self.points
        transforms = 20.0 * wide * float((side * np.log2(2 * side)).sum())
        return Work(fft=transforms, scan=4.0 * wide * points, calls=2.0 * len(self._groups))

    def gradient(self, G: Array, X: Array, count: int) -> Floats:
        """Sums of <G_i, X_j> + <G_j, X_i> across the merges, by the distance in steps, up to `count` - 1."""
        from structmask.backends._numba.convolution import offsets_gradient

        total = np.zeros(count)
        for side, merges in self.batches(2 * X.shape[0] * X.shape[2]):
            g, x = self.sums(merges, side, G, swapped=False), self.sums(merges, side, X, swapped=True)
            found = offsets_gradient(_plan(side), g, x, 1)[0]
            total[: found.size] += found[:count]
        return total


@dataclass(frozen=True, eq=False)
class Hankel:
    """Products with the table f(0), f(step), ... across the merges on grids; beyond its end it is zero."""

    grids: Grids
    table: Floats

    @cached_property
    def _spectra(self) -> dict[int, Any]:
        return {}

    def _spectrum(self, side: int) -> Any:
        if side not in self._spectra:
            part = self.table[: 2 * side - 1]
            offsets = np.concatenate([part, np.zeros(2 * side - 1 - part.size)])
            self._spectra[side] = _plan(side).spectrum(offsets[None])
        return self._spectra[side]

    def apply(self, X: Array, Y: Array) -> None:
        """Y += the product, for X, Y (B, n, 8)."""
        for merges, rows in self._products(X):
            self.grids.deal(merges, rows, Y)

    def apply_crossings(self, G: Array, X: Array, W: Floats) -> None:
        """W[entry] += <G, the product with X> + <X, the product with G>."""
        for g, x in ((G, X), (X, G)):
            for merges, rows in self._products(x):
                self.grids.dots(merges, rows, g, W)

    def _products(self, X: Array) -> Iterator[tuple[Ints, Array]]:
        """Merges, a batch at a time, and the product on their grids, good until the next."""
        from structmask.backends._numba.convolution import product
        from structmask.backends._numba.scratch import borrowed

        columns = X.shape[0] * X.shape[2]
        batches = list(self.grids.batches(columns))
        most = max((2 * len(merges) * side * columns for side, merges in batches), default=0)
        with borrowed(most, np.dtype(np.float64)) as room:
            for side, merges in batches:
                sums = self.grids.sums(merges, side, X, swapped=True, room=room)
                yield merges, product(_plan(side), self._spectrum(side), sums, out=sums)


def grid_sides(points: Array) -> Ints:
    """Numbers of points, rounded up to a few in every octave."""
    least = np.maximum(np.ceil(points), _LEAST)
    unit = 2.0 ** (np.frexp(least)[1] - 1) / _SIZES
    return np.asarray(np.ceil(least / unit) * unit, np.int64)


def _plan(side: int) -> Plan:
    from structmask.backends._numba.fft_plan import plan

    return plan(side, side, np.float64)
