"""Masks of trees whose lengths are whole numbers: any table of the distance, exact up to the rounding of sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.graphs.hankel import Grids, Hankel
from structmask.graphs.merges import SERIAL_SIZE, Merges
from structmask.graphs.tree import Floats, Forest, Ints, taken
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding

SMALL = 512  # nodes of a mask that is multiplied by its entries; twice as many for few columns
_FEW = 16
_MOST_KEPT = 1 << 22  # entries
_DIRECT = 8.0  # pairs a point and octave of a grid from which on transforms win


@dataclass(frozen=True, eq=False, repr=False)
class TreeTable(StructuredMatrix):
    """M_ij = values[dist(i, j)] for whole distances, 0 beyond the table and between trees; `tree_mask` makes it.

    Parameters
    ----------
    forest : Forest
        Trees whose lengths are whole numbers.
    values : array (..., D)
        f(0), f(1), ...; leading axes are a batch.
    """

    forest: Forest
    values: Array

    def __post_init__(self) -> None:
        if not self.forest.is_integer:
            msg = (
                f"a table needs distances that are whole numbers, but {self.forest!r} has other lengths; "
                "pass a function of the distance"
            )
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.values.shape[:-1], self.forest.visible, self.forest.visible)

    def transpose(self) -> TreeTable:
        return self

    # --- products ---------------------------------------------------------------------------------------------------

    def _matmat(self, X: Array) -> Array:
        if not runs_merges(X):
            return by_rows(self, X)
        if is_small(self, math.prod(X.shape[:-2]) * X.shape[-1]):
            return by_entries(self, X)
        X = self.forest.padded(X)
        own = self.values.shape[:-1]
        batch = np.broadcast_shapes(own, X.shape[:-2])
        Y = np.empty((*batch, *X.shape[-2:]), np.result_type(self.values, X))
        for head, place, x in heads(own, batch, X):
            parts = [self._plan_of.apply(hankel, x) for hankel in self._hankels(head)]
            found = unfolded(parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1], Y[place].shape)
            if found.shape == Y.shape:
                return self.forest.shown(np.ascontiguousarray(found, Y.dtype))
            Y[place] = found
        return self.forest.shown(Y)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """Sums of Re <G_i, X_j> by the distance of i and j."""
        xp, own = arrays.namespace(X), tuple(self.values.shape[:-1])
        complex_ = arrays.is_complex(self.values)
        if not runs_merges(X):
            return {"values": unbroadcast(self._gradient_by_rows(G, X), tuple(self.values.shape), complex_=complex_)}
        gradient = np.zeros(self.values.shape, self.values.dtype)
        G, X = self.forest.padded(G), self.forest.padded(X)
        batch = np.broadcast_shapes(own, G.shape[:-2], X.shape[:-2])
        for (head, _, g), (_, _, x) in zip(heads(own, batch, G), heads(own, batch, X), strict=True):
            gradient[head] = self._plan_of.gradient(np.hstack(both(g)), np.hstack(both(x)))
            if complex_:
                re, im = both(g)
                gradient[head] += 1j * self._plan_of.gradient(np.hstack([im, -re]), np.hstack(both(x)))
        return {"values": xp.asarray(gradient)}

    def _gradient_by_rows(self, G: Array, X: Array) -> Array:
        """The same from all pairs, a block of rows at a time."""
        xp, D = arrays.namespace(X), int(self.values.shape[-1])
        adjoint = xp.matrix_transpose(xp.conj(X) if arrays.is_complex(X) else X)
        columns, total = xp.arange(self.forest.visible), None
        for a, b in row_blocks(self, X):
            products = G[..., a:b, :] @ adjoint
            distance = self._distances(xp.arange(a, b)[:, None], columns[None, :])
            parts = [xp.sum(xp.where(distance == d, products, 0), axis=(-2, -1)) for d in range(D)]
            part = xp.stack(parts, axis=-1) if D else xp.zeros((*products.shape[:-2], 0), dtype=products.dtype)
            total = part if total is None else total + part
        return total

    @cached_property
    def _plan_of(self) -> TablePlan:
        return TablePlan(Merges.of(self.forest), int(self.values.shape[-1]))

    def _hankels(self, head: tuple[int, ...]) -> list[Hankel]:
        """The table of a head, real and imaginary part, with the spectra of its long merges."""
        kept = self.__dict__.setdefault("_kept_hankels", {})
        if head not in kept:
            kept[head] = [self._plan_of.hankel(part.astype(np.float64)) for part in real_parts(self.values[head])]
        found: list[Hankel] = kept[head]
        return found

    # --- entries ----------------------------------------------------------------------------------------------------

    def _distances(self, i: Array, j: Array) -> Array:
        """Distances as integers; -1 where they are beyond the table, or in different trees."""
        xp = arrays.namespace(i)
        found = self.forest.distances(i, j)
        beyond = found >= self.values.shape[-1]
        return xp.asarray(xp.where(beyond, -xp.ones_like(found), found), dtype=xp.int64)

    def _at(self, i: Array, j: Array) -> Array:
        xp, D = arrays.namespace(i), self.values.shape[-1]
        distance = self._distances(i, j)
        if D == 0:
            return xp.zeros((*self.values.shape[:-1], *distance.shape), dtype=self.values.dtype)
        found = taken(self.values, xp.maximum(distance, xp.zeros_like(distance)))
        return xp.where(distance >= 0, found, xp.zeros_like(found))

    @property
    def _entry_bytes(self) -> float:
        return 500.0

    def _work(self, columns: int) -> Work:
        tables = math.prod(self.shape[:-2]) * (2 if arrays.is_complex(self.values) else 1)
        if not runs_merges(self.values) or is_small(self, columns):
            return Work(gemm=2.0 * tables * self.forest.visible**2 * columns, calls=1)
        return self._plan_of.work(columns) * tables

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN  # long merges go through transforms, whose rounding is spread over a merge


@dataclass(frozen=True, eq=False)
class TablePlan:
    """Products with tables of one length: merges cut to the support, short ones apart from long ones."""

    of: Merges
    size: int

    @cached_property
    def merges(self) -> Ints:
        """Merges whose lists end where no partner is within the table."""
        from structmask.backends._numba.tree_table import cut_merges

        merges = self.of.merges.copy()
        cut_merges(self.of.dist, merges, float(self.size - 1))
        return merges

    @cached_property
    def _split(self) -> tuple[Ints, Grids, int, float]:
        """Numbers of the short merges, the long ones, distances of the widest short one, pairs of the short."""
        from structmask.backends._numba.tree_table import distinct_counts

        m, counts = self.merges, distinct_counts(self.of.dist, self.merges)
        pairs = counts.astype(float).prod(axis=1)
        full = np.flatnonzero(pairs > 0)
        side = Grids(self.of, m[full], 1.0, 1).sides
        long = pairs[full] > _DIRECT * side * np.log2(side)
        short = full[~long]
        widest = int(counts[short].max(initial=1))
        return short, Grids(self.of, m[full[long]], 1.0, 1), widest, float(pairs[short].sum())

    @cached_property
    def _whole_index(self) -> list[Ints]:
        return [self.of.whole_distances(*chunk).astype(np.int32) for chunk in self.of.whole_chunks]

    def hankel(self, table: Floats) -> Hankel:
        """A table for the long merges."""
        return Hankel(self._split[1], table)

    def apply(self, hankel: Hankel, X: Array) -> Array:
        """The product with X (n, columns), real or complex, in X's dtype."""
        from structmask.backends._numba import tree_table

        given, table = real_view(X), hankel.table
        x = self.of.to_lanes(given)
        y = self.of.multiple(float(table[0]) if self.size else 0.0, x)
        padded = np.append(table, 0.0)
        self.of.apply_whole(lambda number: padded[np.minimum(self._whole_index[number], self.size)], x, y)
        short, _, widest, _ = self._split
        run = tree_table.short_merges_serial if x.size < SERIAL_SIZE else tree_table.short_merges_parallel
        run(self.of.node, self.of.dist, self.merges, short, widest, table, x, y)
        hankel.apply(x, y)
        return self.of.from_lanes(y, given.shape[1], given.dtype).view(X.dtype)

    def gradient(self, G: Array, X: Array) -> Floats:
        """Sums of <G_i, X_j> by the distance of i and j, for real G, X (n, columns)."""
        from structmask.backends._numba import tree_blocks, tree_table

        out = np.zeros(self.size)
        if self.size:
            out[0] = np.vdot(G, X)
        g, x, of = self.of.to_lanes(G), self.of.to_lanes(X), self.of
        for (first, last, _), index in zip(of.whole_chunks, self._whole_index, strict=True):
            tree_blocks.whole_gradient(first, last, of.whole_pointers, of.whole_node, index, g, x, out)
        short, grids, widest, _ = self._split
        tree_table.short_gradient(of.node, of.dist, self.merges, short, widest, g, x, out)
        return out + grids.gradient(g, x, self.size)

    def work(self, columns: int) -> Work:
        """What a product costs."""
        m, wide = self.merges, 8 * -(-columns // 8)
        _, grids, _, pairs = self._split
        lists = float((m[:, 1] - m[:, 0] + m[:, 3] - m[:, 2]).sum())
        whole = float(sum(chunk[2] for chunk in self.of.whole_chunks))
        return grids.work(columns) + Work(
            scan=4.0 * wide * (pairs + whole + lists), bytes=32.0 * wide * self.of.order.size, calls=2
        )


# --- what masks of trees share ----------------------------------------------------------------------------------------


def runs_merges(X: Array) -> bool:
    """Whether the merge plan and its kernels take an array; elsewhere rows of entries do."""
    return get_backend() != "numpy" and arrays.home(X) == "numpy"


def is_small(mask: StructuredMatrix, columns: int) -> bool:
    """Whether all entries, made once and kept, multiply so many columns faster than the merge plan does."""
    n = mask.shape[-1]
    return math.prod(mask.shape) <= _MOST_KEPT and (n <= SMALL or (n <= 2 * SMALL and columns <= _FEW))


def by_entries(mask: StructuredMatrix, X: Array) -> Array:
    """The product of a small mask by its entries, in double precision as that by merges; they are kept."""
    nodes = np.arange(mask.shape[-1])
    if "_entries" not in mask.__dict__:
        mask.__dict__["_entries"] = mask._block(nodes, nodes, np.empty(0))
    Y = mask.__dict__["_entries"] @ X.astype(np.result_type(X, np.float64), copy=False)
    return Y.astype(arrays.dtype_of(arrays.precision(X), complex_=Y.dtype.kind == "c"), copy=False)


def row_blocks(mask: StructuredMatrix, X: Array) -> Iterator[tuple[int, int]]:
    """Ranges of rows that fit scratch memory."""
    heads = math.prod(mask.shape[:-2])
    return arrays.blocks(mask.shape[-2], max(1, arrays.block_entries(X) // max(1, 4 * heads * mask.shape[-1])))


def by_rows(mask: StructuredMatrix, X: Array) -> Array:
    """The product by rows of entries, a block at a time: the reference, and what arrays of other libraries take."""
    xp = arrays.namespace(X)
    columns = xp.arange(mask.shape[-1])
    parts = [mask._block(xp.arange(a, b), columns, X) @ X for a, b in row_blocks(mask, X)]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def heads(own: tuple[int, ...], batch: tuple[int, ...], X: Array) -> Iterator[tuple[Any, Any, Array]]:
    """For every head of a mask: its index, its place in the batch, its operand with all else folded into columns."""
    full = np.broadcast_to(X, (*batch, *X.shape[-2:]))
    free = (slice(None),) * (len(batch) - len(own))
    for head in np.ndindex(*own):
        place = (*free, *(slice(None) if size == 1 else slice(i, i + 1) for i, size in zip(head, own, strict=True)))
        yield head, place, folded(full[place])


def folded(X: Array) -> Array:
    """Matrices (..., n, k) side by side, as one of (n, columns)."""
    return np.ascontiguousarray(np.moveaxis(X, -2, 0)).reshape(X.shape[-2], math.prod(X.shape[:-2]) * X.shape[-1])


def unfolded(Y: Array, shape: tuple[int, ...]) -> Array:
    """Matrices side by side as an array (..., n, k) again; without a batch that is Y itself."""
    return np.moveaxis(Y.reshape(shape[-2], *shape[:-2], shape[-1]), 0, -2)


def both(a: Array) -> list[Array]:
    """Real and imaginary parts in double precision, the latter zero for a real array."""
    return [np.real(a).astype(np.float64), np.imag(a).astype(np.float64)]


def real_parts(a: Array) -> list[Array]:
    """The array itself, or its real and its imaginary part."""
    return [a.real, a.imag] if np.iscomplexobj(a) else [a]


def real_view(X: Array) -> Array:
    """A contiguous complex array as one of twice as many real columns."""
    return X.view(X.real.dtype) if np.iscomplexobj(X) else X
