"""The plan of a product with f(dist) for real lengths: which pairs go by panels, which by a grid, which directly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends.arrays import Array
from structmask.graphs.exponentials import Exponentials, exponentials
from structmask.graphs.hankel import Grids, Hankel
from structmask.graphs.merges import SERIAL_SIZE, Merges, chunks
from structmask.graphs.tree import Floats, Ints
from structmask.graphs.windows import Windows, evaluate
from structmask.linalg.planning import Work

_DEEPEST = 20
_GRID_POINTS = 16  # of local interpolation
_LARGEST_GRID = 64  # points a node
_MOST_KEPT = 1 << 24  # values of f that are made once and kept; beyond that every product makes them anew
_PIECE = 15_000  # values that are made at a time: what f needs beside them the allocator has at hand
_STRIP = 1 << 15
_TASKS = 64  # ranges of merges that threads share out


@dataclass(frozen=True, eq=False)
class Panels:
    """Products with f(dist), each entry within `tolerance` times the largest |f|, as far as samples of f tell."""

    of: Merges
    function: Callable[[Any], Any]
    tolerance: float

    @cached_property
    def at_zero(self) -> float:
        """f(0)."""
        return float(evaluate(self.function, np.zeros(1))[0])

    @cached_property
    def windows(self) -> Windows:
        """What f looks like on the distances of the lists."""
        n, furthest = self.of.order.size, self.of.furthest or 1.0
        deepest = int(min(_DEEPEST, max(4, np.ceil(np.log2(max(n, 2))) + 3)))
        reach = max(self.of.reach, 1e-9 * furthest)
        return Windows(self.function, furthest, reach, self.tolerance, max(n, 1), deepest)

    @cached_property
    def exponentials(self) -> Exponentials | None:
        """What f is as a short sum of exponentials, if it is one: then nothing else here is needed for a product."""
        return exponentials(self.windows) if len(self.of.merges) else None

    # --- the grid, for f that is rough everywhere -------------------------------------------------------------------

    @cached_property
    def _grid(self) -> tuple[Hankel, Ints]:
        """Values of f on a uniform grid for the merges that go by it, and the numbers of these."""
        none, windows, m = np.zeros(0, np.int64), self.windows, self.of.merges
        nothing = Hankel(Grids(self.of, m[:0], 1.0, 1), np.zeros(0)), none
        rough = [level for level in range(3, windows.deepest) if windows.rough_share(level) > 0.5]
        if not rough or not len(m):
            return nothing
        furthest, h = self.of.dist[m[:, 1::2] - 1], windows.furthest / 2.0 ** (rough[-1] + 1)
        wide = np.flatnonzero(furthest.min(axis=1) > 8 * h)
        step = self._step() if wide.size else None
        if step is None:
            return nothing
        lists = m[:, 1::2] - m[:, ::2]
        side = Grids(self.of, m[wide], step, _GRID_POINTS).sides
        cost = 5.0 * side * np.log2(side) + _GRID_POINTS * lists[wide].sum(axis=1)
        long = wide[lists[wide].prod(axis=1, dtype=float) > cost]
        return self._on_grids(Grids(self.of, m[long], step, _GRID_POINTS)), long

    def _on_grids(self, grids: Grids) -> Hankel:
        points = np.minimum(np.arange(2 * grids.sides.max(initial=1) - 1), self._used(grids)) * grids.step
        return Hankel(grids, evaluate(self.function, points))

    def _used(self, grids: Grids) -> int:
        """Steps of the last value on a grid: f may not be defined much further."""
        return int(2 * self.windows.furthest / grids.step) + 2 * _GRID_POINTS

    @property
    def outermost(self) -> float:
        """The largest distance at which f is called."""
        hankel, long = self._grid
        on_grid = self._used(hankel.grids) * hankel.grids.step if long.size else 0.0
        return max(self.of.reach, 2 * self.windows.furthest, on_grid)

    def _step(self) -> float | None:
        """The largest step, to a quarter of an octave, that suits; None if it would need too many points."""
        windows, step = self.windows, self.windows.furthest / 2.0**4
        while not self._suits(step):
            step /= 2
            if 2 * windows.furthest / step > _LARGEST_GRID * windows.size:
                return None
        larger = (step * 2 ** (quarters / 4) for quarters in (3, 2, 1))
        return next(filter(self._suits, larger), step)

    def _suits(self, step: float) -> bool:
        """Whether local interpolation of f on a grid meets its samples."""
        from structmask.backends._numba.tree_grid import interpolated

        N = int(2 * self.windows.furthest / step) + 2
        if N < 2 * _GRID_POINTS:
            return False
        grid = evaluate(self.function, np.arange(N) * step)
        return self.windows.are_met(interpolated(self.windows.samples[0] / step, grid, _GRID_POINTS))

    # --- panels -----------------------------------------------------------------------------------------------------

    @cached_property
    def _interactions(self) -> Any:
        from structmask.backends._numba.panel_plan import interactions

        windows, merges = self.windows, self.of.merges
        skipped = np.zeros(len(merges), np.bool_)
        skipped[self._grid[1]] = True
        return interactions(
            self.of.dist,
            merges,
            skipped,
            windows.furthest,
            windows.state,
            windows.offset,
            windows.deepest,
            windows.p,
        )

    @cached_property
    def _kernels(self) -> tuple[Floats, Floats]:
        return self.windows.kernels(self._interactions[3]), self.windows.shifts()

    def _far(self, x: Array, y: Array) -> None:
        from structmask.backends._numba import panels

        table, far, _, _, panel_pointers, far_pointers = self._interactions
        if not len(far):
            return
        run = panels.far_field_serial if x.size < SERIAL_SIZE else panels.far_field_parallel
        kernels, shifts = self._kernels
        of, furthest = self.of, self.windows.furthest
        run(of.node, of.dist, table, far, kernels, shifts, panel_pointers, far_pointers, furthest, x, y)

    # --- direct sums ------------------------------------------------------------------------------------------------

    @cached_property
    def _near(self) -> tuple[Ints, list[tuple[int, int, int]]]:
        """Pairs of stretches, none of too many pairs, and their chunks."""
        near = self._interactions[2]
        rows, width = near[:, 1] - near[:, 0], near[:, 3] - near[:, 2]
        strip = np.maximum(1, _STRIP // np.maximum(width, 1))
        pieces = -(-rows // strip)
        again = np.repeat(near, pieces, axis=0)
        number = np.arange(len(again)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begin = again[:, 0] + number * np.repeat(strip, pieces)
        again[:, 1] = np.minimum(again[:, 1], begin + np.repeat(strip, pieces))
        again[:, 0] = begin
        return again, chunks((again[:, 1] - again[:, 0]) * (again[:, 3] - again[:, 2]))

    @cached_property
    def pairs(self) -> int:
        """Number of pairs summed directly."""
        return sum(chunk[2] for chunk in (*self._near[1], *self.of.whole_chunks))

    @cached_property
    def _kept(self) -> dict[Any, Floats]:
        return {}

    def _values(self, distances: Floats) -> Floats:
        """Values of f in place of distances."""
        for a in range(0, distances.size, _PIECE):
            distances[a : a + _PIECE] = evaluate(self.function, distances[a : a + _PIECE])
        return distances

    def _near_values(self, pairs: Ints, out: Floats) -> Floats:
        from structmask.backends._numba.tree_blocks import near_distances

        each = (pairs[:, 1] - pairs[:, 0]) * (pairs[:, 3] - pairs[:, 2])
        near_distances(pairs, np.cumsum(each) - each, self.of.dist, out)
        return self._values(out)

    def _near_chunks(self) -> Iterator[tuple[Ints, Floats]]:
        """Pairs of stretches, and f at their distances: kept if they are not too many, else through one buffer."""
        from structmask.backends._numba.scratch import borrowed

        (near, ranges), kept = self._near, self._kept
        counts = [count for *_, count in ranges]
        keeps = sum(counts) <= _MOST_KEPT
        with borrowed(0 if keeps else max(counts), np.dtype(np.float64)) as buffer:
            for number, (first, last, count) in enumerate(ranges):
                pairs = near[first:last]
                if not keeps:
                    yield pairs, self._near_values(pairs, buffer[:count])
                    continue
                if ("near", number) not in kept:
                    kept["near", number] = self._near_values(pairs, np.empty(count))
                yield pairs, kept["near", number]

    def _whole_values(self, number: int) -> Floats:
        key, chunks = ("whole", number), self.of.whole_chunks
        if key in self._kept:
            return self._kept[key]
        values = self._values(self.of.whole_distances(*chunks[number]))
        if sum(count for *_, count in chunks) <= _MOST_KEPT:
            self._kept[key] = values
        return values

    def with_function(self, function: Callable[[Any], Any]) -> Panels:
        """The same pairs of panels for a function that is smooth where this one is, as its derivative: not tested."""
        other = dataclasses.replace(self, function=function)
        (hankel, long), windows = self._grid, dataclasses.replace(self.windows, function=function)
        other.__dict__.update(windows=windows, _interactions=self._interactions, _near=self._near)
        other.__dict__["_grid"] = other._on_grids(hankel.grids) if long.size else hankel, long
        return other

    # --- the product ------------------------------------------------------------------------------------------------

    def apply(self, X: Array) -> Array:
        """The product with X (n, columns), real."""
        from structmask.backends._numba import tree_blocks

        x = self.of.to_lanes(X)
        y = self.of.multiple(self.at_zero, x)
        self.of.apply_whole(self._whole_values, x, y)
        if len(self.of.merges):
            self._far(x, y)
            run = tree_blocks.apply_near_serial if x.size < SERIAL_SIZE else tree_blocks.apply_near_parallel
            for pairs, values in self._near_chunks():
                run(pairs, self.of.node, values, x, y)
            self._grid[0].apply(x, y)
        return self.of.from_lanes(y, X.shape[1], X.dtype)

    def crossings(self, G: Array, X: Array) -> Floats:
        """Sums over the pairs i, j across each edge of f(dist) (<G_i, X_j> + <G_j, X_i>), by node, for its edge up.

        For f', the gradient of <G, M X> for the lengths. G, X (n, columns) are real.
        """
        from structmask.backends._numba import crossings

        of = self.of
        g, x, out = of.to_lanes(G), of.to_lanes(X), np.zeros(of.order.size)
        for number, (first, last, _) in enumerate(of.whole_chunks):
            whole = of.whole_pointers, of.whole_node, of.whole_parent
            crossings.whole_crossings(first, last, *whole, self._whole_values(number), of.parents, g, x, out)
        if len(of.merges):
            W = np.zeros(of.node.size)
            self._far_crossings(g, x, W)
            for pairs, values in self._near_chunks():
                crossings.near_crossings(pairs, of.node, values, g, x, W)
            self._grid[0].apply_crossings(g, x, W)
            crossings.edge_sums(of.parents, of.node, of.begins, W, out)
        return out[of.position]

    def _far_crossings(self, g: Array, x: Array, W: Floats) -> None:
        from structmask.backends._numba import panels

        table, far, _, _, panel_pointers, far_pointers = self._interactions
        if not len(far):
            return
        of, lengths = self.of, self.of.merges[:, 1::2] - self.of.merges[:, ::2]
        shares = np.cumsum(lengths.sum(axis=1))
        inner = np.searchsorted(shares, np.linspace(0, shares[-1], _TASKS)[1:-1])
        tasks = np.unique(np.concatenate([[0], inner, [len(shares)]]))
        run = panels.far_crossings_serial if x.size < SERIAL_SIZE else panels.far_crossings_parallel
        plan = table, far, *self._kernels, panel_pointers, far_pointers, self.windows.furthest
        run(of.node, of.dist, *plan, tasks, g, x, W[:, None])

    def work(self, columns: int) -> Work:
        """What a product costs."""
        table, far, _, _, _, _ = self._interactions
        p, wide, n = self.windows.p, 8 * -(-columns // 8), self.of.order.size
        points = float((table[:, 1] - table[:, 0])[table[:, 4] == 1].sum())
        return self._grid[0].grids.work(columns) + Work(
            scan=4.0 * wide * (self.pairs + p * points + len(far) * p * p),
            bytes=32.0 * wide * n,
            calls=2.0 + len(self._near[1]) + len(self.of.whole_chunks),
        )
