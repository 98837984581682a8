"""Matrices made of blocks: block-diagonal ones (packed sequences and graphs) and bordered ones (global tokens)."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import GatherForm, filled_before
from structmask.linalg.generators import Gradients, unbroadcast, zero_gradients
from structmask.linalg.kronecker import as_matrices
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding, rounding_of


class Place(NamedTuple):
    """A block and the ranges of rows and columns it takes."""

    block: StructuredMatrix
    rows: slice
    columns: slice


@dataclass(frozen=True, eq=False, repr=False)
class BlockDiagonal(StructuredMatrix):
    """Blocks along the diagonal, of any shapes, and zeros elsewhere.

    As a mask: sequences (or graphs) of different lengths packed one behind the other, none of which sees another.

    Parameters
    ----------
    blocks : sequence of StructuredMatrix (..., m_b, n_b)
        Leading axes are a batch and broadcast.

    Notes
    -----
    A product, a gradient and masked attention cost those of the blocks, each by its own best method.

    Examples
    --------
    >>> from structmask import BlockDiagonal, Causal
    >>> BlockDiagonal([Causal(2), Causal(1)]).to_dense()
    array([[1., 0., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """

    blocks: tuple[StructuredMatrix, ...]

    def __post_init__(self) -> None:
        blocks = as_matrices(self.blocks, "BlockDiagonal(blocks)")
        object.__setattr__(self, "blocks", blocks)
        np.broadcast_shapes(*(block.shape[:-2] for block in blocks))

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(*(block.shape[:-2] for block in self.blocks))
        return (*batch, *(sum(block.shape[axis] for block in self.blocks) for axis in (-2, -1)))

    @property
    def block_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every block."""
        return tuple((block.shape[-2], block.shape[-1]) for block in self.blocks)

    def places(self) -> Iterator[Place]:
        """The blocks, and where they are."""
        ends = [itertools.accumulate(sizes, initial=0) for sizes in zip(*self.block_shapes, strict=True)]
        for block, rows, columns in zip(self.blocks, *(itertools.pairwise(end) for end in ends), strict=True):
            yield Place(block, slice(*rows), slice(*columns))

    def _matmat(self, X: Array) -> Array:
        batch = np.broadcast_shapes(self.shape[:-2], tuple(X.shape[:-2]))
        return stacked([block._product(X[..., columns, :]) for block, _, columns in self.places()], batch)

    def transpose(self) -> BlockDiagonal:
        return BlockDiagonal(tuple(block.transpose() for block in self.blocks))

    def _pullback(self, G: Array, X: Array) -> Gradients:
        gradients = {}
        for index, (block, rows, columns) in enumerate(self.places()):
            empty = 0 in block.shape
            gradients[index] = (
                zero_gradients(block, X) if empty else block._pullback(G[..., rows, :], X[..., columns, :])
            )
        return {"blocks": gradients}

    @property
    def has_entries(self) -> bool:
        return all(block.has_entries for block in self.blocks)

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        shape = np.broadcast_shapes(tuple(i.shape), tuple(j.shape))
        value = xp.zeros((*self.shape[:-2], *shape), dtype=getattr(xp, self.dtype.name))
        if 0 in shape:
            return value
        first, last = (int(xp.min(i)), int(xp.min(j))), (int(xp.max(i)), int(xp.max(j)))
        for block, rows, columns in self.places():
            ranges = zip((rows, columns), first, last, strict=True)
            if any(own.start == own.stop or own.stop <= low or own.start > high for own, low, high in ranges):
                continue
            row_inside, p = _within(i, rows)
            column_inside, q = _within(j, columns)
            value = xp.where(row_inside & column_inside, arrays.cast(block._at(p, q), self.dtype.name), value)
        return value

    @property
    def _entry_bytes(self) -> float:
        return sum(block._entry_bytes + 20.0 for block in self.blocks) / len(self.blocks) + 20.0

    def _work(self, columns: int) -> Work:
        total = Work()
        for block in self.blocks:
            total = total + block._work(columns)
        return total + Work(bytes=2.0 * self.dtype.itemsize * math.prod(self.shape[:-1]) * columns, calls=1)

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if all(rounding_of(block, unit).is_local for block in self.blocks) else UNKNOWN

    @property
    def error_bound(self) -> float:
        return float(np.max([block.error_bound for block in self.blocks]))

    @property
    def error_estimate(self) -> float:
        return float(np.max([block.error_estimate for block in self.blocks]))

    def __repr__(self) -> str:
        m, n = self.shape[-2:]
        shown = [repr(block) for block in self.blocks[:4]]
        if len(self.blocks) > len(shown):
            shown.append(f"... {len(self.blocks)} blocks")
        return f"BlockDiagonal({', '.join(shown)}; {m} x {n})"


@dataclass(frozen=True, eq=False, repr=False)
class Bordered(StructuredMatrix):
    """A mask with global tokens in front; `with_global_tokens` makes it.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
        What the other tokens see of each other.
    count : int
        Number of global tokens.
    value : float or array (...)
        Entry of their rows and columns, one or one a head; among themselves it is 1.
    """

    mask: StructuredMatrix
    count: int
    value: Array = field(default=1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", operator.index(self.count))
        if not isinstance(self.mask, StructuredMatrix):
            msg = f"with_global_tokens needs a StructuredMatrix, got {type(self.mask).__name__}; wrap an array as Dense"
            raise TypeError(msg)
        if self.count < 0:
            msg = f"with_global_tokens needs count >= 0, got {self.count}"
            raise ValueError(msg)
        if isinstance(self.value, int | float | complex):
            object.__setattr__(self, "value", self.value if isinstance(self.value, complex) else float(self.value))
            return
        value = arrays.as_array(self.value, "with_global_tokens(value)")
        leaves = [x for x in self.mask._leaves() if hasattr(x, "dtype")]
        arrays.common_home([value, *leaves], "the mask and the value of with_global_tokens")
        object.__setattr__(self, "value", value)
        np.broadcast_shapes(tuple(value.shape), self.mask.shape[:-2])

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(tuple(getattr(self.value, "shape", ())), self.mask.shape[:-2])
        return (*batch, *(size + self.count for size in self.mask.shape[-2:]))

    def split(self, X: Array) -> tuple[Array, Array]:
        """Rows of the global tokens, and of the others."""
        return X[..., : self.count, :], X[..., self.count :, :]

    def weight(self, dimensions: int) -> Any:
        """The value, ready to multiply arrays with so many axes behind the batch."""
        value = self.value
        if isinstance(value, float | complex) or value.ndim == 0:
            return value
        return arrays.namespace(value).reshape(value, (*value.shape, *(1,) * dimensions))

    def _matmat(self, X: Array) -> Array:
        xp, v, m = arrays.namespace(X), self.weight(2), self.mask.shape[-2]
        batch = np.broadcast_shapes(self.shape[:-2], tuple(X.shape[:-2]))
        top, rest = self.split(X)
        own, others = (xp.sum(part, axis=-2, keepdims=True) for part in (top, rest))
        first = own + v * others
        first = xp.broadcast_to(first, (*first.shape[:-2], self.count, first.shape[-1]))
        return stacked([first, self.mask._product(rest) + v * own] if m else [first], batch)

    def transpose(self) -> Bordered:
        return Bordered(self.mask.transpose(), self.count, self.value)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        G = xp.broadcast_to(G, (*np.broadcast_shapes(self.shape[:-2], tuple(G.shape[:-2])), *G.shape[-2:]))
        (g_top, g), (x_top, x) = self.split(G), self.split(xp.conj(X) if arrays.is_complex(X) else X)
        sums = [xp.sum(part, axis=-2) for part in (g_top, x, g, x_top)]
        gradient = xp.sum(sums[0] * sums[1] + sums[2] * sums[3], axis=-1)
        inner = zero_gradients(self.mask, X) if 0 in self.mask.shape else self.mask._pullback(g, self.split(X)[1])
        return {"mask": inner, "value": self.value_gradient(gradient)}

    def value_gradient(self, gradient: Array) -> Array:
        """A gradient (*batch) for the value in the value's own shape."""
        shape = tuple(getattr(self.value, "shape", ()))
        return unbroadcast(gradient, shape, complex_=arrays.is_complex(self.value))

    @property
    def has_entries(self) -> bool:
        return self.mask.has_entries

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        kind = getattr(xp, self.dtype.name)
        shape = (*self.shape[:-2], *np.broadcast_shapes(tuple(i.shape), tuple(j.shape)))
        (m, n), count = self.mask.shape[-2:], self.count
        value = xp.broadcast_to(xp.asarray(self.weight(len(shape) - self.ndim + 2), dtype=kind), shape)
        value = xp.where((i < count) & (j < count), xp.ones_like(value), value)
        if 0 in (m, n):
            return value
        row_inside, p = _within(i, slice(count, count + m))
        column_inside, q = _within(j, slice(count, count + n))
        return xp.where(row_inside & column_inside, arrays.cast(self.mask._at(p, q), self.dtype.name), value)

    def rotated(self, X: Array) -> Array:
        """Rows of X with those of the global tokens behind the others, as in `gather_form`."""
        top, rest = self.split(X)
        return arrays.namespace(X).concat([rest, top], axis=-2)

    @cached_property
    def gather_form(self) -> GatherForm:
        """That of a Toeplitz mask with its columns rotated: positions of global tokens land in constant stretches.

        The table is that of the mask, N long; value up to 4 s with s = N + count; ones. Rows of tokens are at -s and
        columns at 3 s and after, so that their differences are s ..., 2 s ... 4 s, and 4 s ... against each other.
        """
        table, rows, columns, run, _ = self.mask.gather_form  # type: ignore[attr-defined]  # only a Toeplitz mask has it
        xp, N, batch = arrays.namespace(table), table.shape[-1], self.shape[:-2]
        own = xp.broadcast_to(xp.reshape(table, (*self.mask.shape[:-2], N)), (*batch, N))
        step = N + self.count
        value = xp.broadcast_to(xp.asarray(self.weight(1), dtype=table.dtype), (*batch, 4 * step - N))
        ones = xp.ones((*batch, self.count), dtype=table.dtype)
        table = xp.reshape(xp.concat([own, value, ones], axis=-1), (-1, 4 * step + self.count))
        tokens = xp.arange(self.count, dtype=rows.dtype)
        rows, columns = xp.concat([0 * tokens - step, rows]), xp.concat([columns, tokens + 3 * step])
        return GatherForm(table, rows, columns, run, filled_before(table))

    @property
    def _entry_bytes(self) -> float:
        return self.mask._entry_bytes + 40.0

    def _work(self, columns: int) -> Work:
        moved = 4.0 * self.dtype.itemsize * math.prod(self.shape[:-1]) * columns
        return self.mask._work(columns) + Work(bytes=moved, calls=2)

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if rounding_of(self.mask, unit).is_local else UNKNOWN

    @property
    def error_bound(self) -> float:
        return self.mask.error_bound

    @property
    def error_estimate(self) -> float:
        return self.mask.error_estimate

    def __repr__(self) -> str:
        m, n = self.shape[-2:]
        return f"Bordered({self.mask!r}, {self.count} in front; {m} x {n})"


def with_global_tokens(mask: StructuredMatrix, count: int = 1, value: Any = 1.0) -> Bordered:
    """A mask with global tokens (class tokens) in front of the others.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
        What the other tokens see of each other.
    count : int
        Number of global tokens; the result is (..., count + m, count + n).
    value : float or array (...)
        Entry of their rows and columns, one, or one a head; entries among them are 1.

    Notes
    -----
    A product costs one more pass over the operand. In attention the border is a low-rank term, and the mask keeps its
    own best method.

    Examples
    --------
    >>> from structmask import Causal, with_global_tokens
    >>> with_global_tokens(Causal(2), 1, 0.5).to_dense()
    array([[1. , 0.5, 0.5],
           [0.5, 1. , 0. ],
           [0.5, 1. , 1. ]])
    """
    return Bordered(mask, count, value)


def stacked(parts: list[Array], batch: tuple[int, ...]) -> Array:
    """Row blocks (..., m_b, k) of one precision, one under the other, with a common batch."""
    xp = arrays.namespace(parts[0])
    parts = arrays.as_same_kind(*parts)
    return xp.concat([xp.broadcast_to(part, (*batch, *part.shape[-2:])) for part in parts], axis=-2)


def _within(index: Array, own: slice) -> tuple[Array, Array]:
    """Whether indices are in a range, and their distance from its start (0 where they are not)."""
    xp = arrays.namespace(index)
    inside = (index >= own.start) & (index < own.stop)
    return inside, xp.where(inside, index - own.start, xp.zeros_like(index))
