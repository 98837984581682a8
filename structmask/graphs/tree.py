"""Forests: parents and edge lengths, an order that sweeps well, and lowest common ancestors.

Nodes keep the caller's numbers. Inside, *position* is their place in breadth-first order: a parent comes before its
children, children of one node stand side by side, and so do the nodes of one depth. Sweeps over positions read and
write memory in streams, whatever the numbers were, and nothing recurses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from structmask.backends import arrays
from structmask.backends._standard_tree import Paths
from structmask.backends.arrays import Array
from structmask.backends.tree_kernels import Sweep

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, repr=False)
class Forest:
    """Rooted trees: `parents` (n,), -1 at roots, and `lengths` (n,) of the edges from nodes to their parents.

    `as_forest` makes one and checks it. Lengths at roots mean nothing and are zero. The last `hidden` nodes carry
    paths, but masks do not show them (see `tree_metric`).
    """

    parents: Ints
    lengths: Floats
    hidden: int = 0

    @property
    def size(self) -> int:
        """Number of nodes, hidden ones included."""
        return int(self.parents.size)

    @property
    def visible(self) -> int:
        """Number of nodes that masks show."""
        return self.size - self.hidden

    def padded(self, X: Array) -> Array:
        """An operand (..., visible, k) with zeros at hidden nodes."""
        if not self.hidden:
            return X
        xp = arrays.namespace(X)
        return xp.concat([X, xp.zeros((*X.shape[:-2], self.hidden, X.shape[-1]), dtype=X.dtype)], axis=-2)

    def shown(self, Y: Array) -> Array:
        """A result without the rows of hidden nodes."""
        return Y[..., : self.visible, :] if self.hidden else Y

    def __repr__(self) -> str:
        return f"Forest({self.visible} nodes, {int(self.roots)} trees)"

    @cached_property
    def is_integer(self) -> bool:
        """Whether all lengths are whole numbers, small enough for distances to be exact."""
        return bool((self.lengths == np.rint(self.lengths)).all() and self.lengths.sum() < 2.0**53)

    # --- order ------------------------------------------------------------------------------------------------------

    @cached_property
    def _below(self) -> scipy.sparse.csr_array:
        """From each node to its children, and from node n, above all, to the roots."""
        n = self.size
        above = np.where(self.parents < 0, n, self.parents)
        order = np.argsort(above, kind="stable")
        pointers = np.searchsorted(above[order], np.arange(n + 2)).astype(np.int32)
        return scipy.sparse.csr_array((np.ones(n), order.astype(np.int32), pointers), shape=(n + 1, n + 1))

    @cached_property
    def order(self) -> Ints:
        """Nodes by position."""
        found = csgraph.breadth_first_order(self._below, self.size, return_predecessors=False)
        return found[1:].astype(np.int64)

    @cached_property
    def position(self) -> Ints:
        """Positions of the nodes."""
        return inverse(self.order)

    @cached_property
    def roots(self) -> int:
        """Number of trees: their roots come first."""
        return int((self.parents < 0).sum())

    @cached_property
    def up(self) -> Ints:
        """Position of the parent, by position; a root has its own."""
        above = self.parents[self.order]
        own = np.arange(self.size)
        up: Ints = np.where(above < 0, own, self.position[above]) if self.size else own
        return up

    @cached_property
    def first(self) -> Ints:
        """Children of position i are first[i] ... first[i + 1] - 1."""
        return self.roots + np.searchsorted(self.up[self.roots :], np.arange(self.size + 1))

    # --- distances --------------------------------------------------------------------------------------------------

    @cached_property
    def heights(self) -> tuple[Floats, Floats]:
        """Distances from the roots, by position, as `root_sums`."""
        return root_sums(self.up, self.lengths[self.order])

    def distances(self, i: Array, j: Array) -> Array:
        """The distances between nodes, infinite between trees."""
        xp, ancestors = arrays.namespace(i), self.ancestors(i, j)
        sums = arrays.placed(self, "heights", arrays.home(i))
        found = self.path_sums((sums[0], sums[1]), i, j, ancestors)
        return xp.where(ancestors > 0, found, xp.full_like(found, np.inf))

    @cached_property
    def diameter(self) -> float:
        """The largest distance: in every tree it begins at the node furthest from the root."""
        if not self.size:
            return 0.0
        root = self.up
        while (root >= self.roots).any():
            root = root[root]
        order = np.lexsort((-self.heights[0], root))
        ends = self.order[order[np.searchsorted(root[order], np.arange(self.roots))]]
        return float(self.distances(self.order, ends[root]).max())

    # --- sweeps and their plans -------------------------------------------------------------------------------------

    def sweep(self, home: str) -> Sweep:
        """What sweeps need, in a home."""
        copies, key = self.__dict__.setdefault("_sweeps", {}), (home, arrays.device_of(home))
        if key not in copies:
            paths = Paths(self.up, self.first, self.roots)
            copies[key] = Sweep(self.order, self.position, self.up, self.first, paths).to(home)
        found: Sweep = copies[key]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"parents": self.parents, "lengths": self.lengths, "hidden": self.hidden}

    # --- lowest common ancestors ------------------------------------------------------------------------------------

    @cached_property
    def _ancestry(self) -> tuple[Ints, Ints, Ints]:
        """Places in preorder, minima over stretches of preorder of the positions of parents, logarithms.

        All nodes of preorder after i up to j have ancestors below or at the lowest common one, and one of them is its
        child: so the least position of a parent among them is that of the ancestor. Here positions start at 1, and 0
        stands above all roots.
        """
        n = self.size
        preorder = csgraph.depth_first_order(self._below, n, return_predecessors=False)
        place = inverse(preorder.astype(np.int64))
        above = np.where(self.parents < 0, 0, self.position[self.parents] + 1) if n else np.zeros(0, np.int64)
        row = np.concatenate([np.zeros(1, np.int64), above[preorder[1:]]])
        rows, width = [row], 1
        while 2 * width <= n:
            row = np.minimum(row, np.concatenate([row[width:], row[n + 1 - width :]]))
            rows.append(row)
            width *= 2
        logarithm = np.frexp(np.maximum(np.arange(n + 2), 1))[1].astype(np.int64) - 1
        return place[:n], np.concatenate(rows), logarithm

    def ancestors(self, i: Array, j: Array) -> Array:
        """The positions of the lowest common ancestors of nodes, plus one; 0 where they are in different trees."""
        xp, home = arrays.namespace(i), arrays.home(i)
        place, minima, logarithm = arrays.placed(self, "_ancestry", home)
        i, j = xp.broadcast_arrays(i, j)
        a, b = (xp.reshape(taken(place, index), (-1,)) for index in (i, j))
        low, high = xp.minimum(a, b), xp.maximum(a, b)
        same = low == high
        low = xp.where(same, low, low + 1)
        level = xp.take(logarithm, high - low + 1)
        row = level * (self.size + 1)
        least = xp.minimum(xp.take(minima, row + low), xp.take(minima, row + high + 1 - 2**level))
        own = taken(arrays.placed(self, "position", home), xp.reshape(i, (-1,))) + 1
        return xp.reshape(xp.where(same, own, least), i.shape)

    def path_sums(self, sums: tuple[Array, Array], i: Array, j: Array, ancestors: Array) -> Array:
        """The sums (..., *index) over the edges between nodes of values whose `root_sums` are given."""
        xp, home = arrays.namespace(i), arrays.home(i)
        position = arrays.placed(self, "position", home)
        low = xp.maximum(ancestors - 1, xp.zeros_like(ancestors))
        ends = taken(position, i), taken(position, j)
        coarse, fine = (
            sum(taken(part, end) - taken(part, low) for end in ends) for part in sums
        )  # differences of the leading parts lose nothing but their own last digit
        return coarse + fine


def taken(a: Array, index: Array) -> Array:
    """Entries (..., *index.shape) of an array (..., n) at indices of any shape."""
    xp = arrays.namespace(a)
    return xp.reshape(xp.take(a, xp.reshape(index, (-1,)), axis=-1), (*a.shape[:-1], *index.shape))


def inverse(order: Ints) -> Ints:
    """The inverse of a permutation."""
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    return place


def root_sums(up: Array, values: Array) -> tuple[Array, Array]:
    """Sums (..., n) of values along the paths from roots, by position, as a leading part and the rounding it leaves.

    By pointer doubling: after t rounds every sum covers 2^t edges, so there are log2(depth) rounds. Values at roots
    count as zero.
    """
    xp = arrays.namespace(values)
    own = xp.arange(up.shape[0])
    coarse, fine, jump = xp.where(up == own, xp.zeros_like(values), values), xp.zeros_like(values), up
    while True:
        more, rest, further = (xp.take(a, jump, axis=-1) for a in (coarse, fine, jump))
        total = coarse + more
        back = total - coarse
        fine = fine + rest + ((coarse - (total - back)) + (more - back))
        coarse = total
        if not xp.any(further != jump):
            return coarse, fine
        jump = further
