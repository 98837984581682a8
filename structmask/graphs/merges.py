"""The merge plan of a forest: every pair of nodes once, as a sum of two distances to a centroid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csgraph

from structmask.backends.arrays import Array
from structmask.graphs.tree import Floats, Forest, Ints, inverse

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST_WHOLE = 48  # nodes of a component that is not cut further: its pairs are met directly
_CHUNK = 1 << 18  # pairs whose values are made at a time
SERIAL_SIZE = 20_000  # numbers in an operand that one thread does in less than the time it takes to wake others


@dataclass(frozen=True, eq=False)
class Merges:
    """Lists of (node, distance), pairs of them, and small components left whole; nodes are places in preorder.

    What is proved of it is on the theory page of `tree_mask`; the kernel `merge_plan` makes it.
    """

    order: Ints
    parents: Ints
    node: Array
    dist: Floats
    merges: Ints
    begins: Ints
    whole_node: Array
    whole_parent: Array
    whole_length: Floats
    whole_pointers: Ints

    @classmethod
    def of(cls, forest: Forest) -> Merges:
        """The plan of a forest, made once."""
        found: Merges = forest.__dict__.get("_merges") or forest.__dict__.setdefault("_merges", cls._made(forest))
        return found

    @classmethod
    def _made(cls, forest: Forest) -> Merges:
        from structmask.backends._numba.centroids import merge_plan

        preorder = csgraph.depth_first_order(forest._below, forest.size, return_predecessors=False)[1:]
        order = preorder.astype(np.int64)
        place, above = inverse(order), forest.parents[order]
        parents = np.where(above < 0, -1, place[above]) if forest.size else above
        return cls(order, parents, *merge_plan(parents, forest.lengths[order], _LARGEST_WHOLE))

    # --- distances --------------------------------------------------------------------------------------------------

    @cached_property
    def furthest(self) -> float:
        """Largest distance in any list."""
        return float(self.dist.max(initial=0.0))

    @cached_property
    def reach(self) -> float:
        """A bound of all distances between nodes of one tree, no larger than twice the largest."""
        m = self.merges
        across = (self.dist[m[:, 1] - 1] + self.dist[m[:, 3] - 1]).max(initial=0.0)
        sums = np.add.reduceat(self.whole_length, self.whole_pointers[:-1]) if self.whole_length.size else np.zeros(0)
        return float(max(across, sums.max(initial=0.0)))

    # --- components left whole --------------------------------------------------------------------------------------

    @cached_property
    def whole_chunks(self) -> list[tuple[int, int, int]]:
        """Ranges of components, and how many pairs they have."""
        sizes = np.diff(self.whole_pointers)
        return chunks(sizes * (sizes - 1) // 2)

    def whole_distances(self, first: int, last: int, pairs: int) -> Floats:
        """Distances of all pairs of a range of components."""
        from structmask.backends._numba.tree_blocks import whole_distances

        out = np.empty(pairs)
        whole_distances(first, last, self.whole_pointers, self.whole_parent, self.whole_length, out)
        return out

    def apply_whole(self, values: Callable[[int], Floats], X: Array, Y: Array) -> None:
        """Y += X times the values of every chunk, given by the chunk's number."""
        from structmask.backends._numba import tree_blocks

        run = tree_blocks.apply_whole_serial if X.size < SERIAL_SIZE else tree_blocks.apply_whole_parallel
        for number, (first, last, _) in enumerate(self.whole_chunks):
            run(first, last, self.whole_pointers, self.whole_node, values(number), X, Y)

    # --- operands ---------------------------------------------------------------------------------------------------

    def to_lanes(self, X: Array) -> Array:
        """An operand (n, k), real, as blocks of eight columns in preorder."""
        from structmask.backends._numba.lanes import to_lanes

        return to_lanes(np.ascontiguousarray(X), self.order)

    @cached_property
    def position(self) -> Ints:
        return inverse(self.order)

    def multiple(self, factor: float, blocks: Array) -> Array:
        """A multiple of blocks of columns, as blocks."""
        from structmask.backends._numba.scratch import lines

        return np.multiply(blocks, factor, out=lines(blocks.shape, blocks.dtype))

    def from_lanes(self, blocks: Array, columns: int, dtype: Any) -> Array:
        """Blocks as an array (n, k)."""
        from structmask.backends._numba.lanes import from_lanes

        Y = np.empty((blocks.shape[1], columns), dtype)
        from_lanes(blocks, self.position, Y)
        return Y


def chunks(pairs: Array) -> list[tuple[int, int, int]]:
    """Ranges of blocks of about so many pairs together, and how many they are."""
    total = np.cumsum(pairs)
    found, first = [], 0
    while first < len(pairs):
        before = int(total[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _CHUNK, side="right")))
        found.append((first, last, int(total[last - 1]) - before))
        first = last
    return found
