"""Bucketed relative positions: masks piecewise constant in i - j, as in T5."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import gather
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import Rounding
from structmask.linalg.toeplitz import Toeplitz


@dataclass(frozen=True, eq=False, repr=False)
class Buckets(StructuredMatrix):
    """M_ij = values[bucket of i - j], buckets being stretches of consecutive offsets.

    Parameters
    ----------
    values : array (..., buckets)
        One value a bucket; leading axes are a batch.
    edges : sequence of int
        Ascending offsets at which a new stretch begins: stretch b is edges[b - 1] <= i - j < edges[b].
    n : int
        Size.
    order : sequence of int, optional
        Bucket of every stretch, from the lowest offsets up; by default 0, 1, ... Stretches may share a bucket.

    Notes
    -----
    A product costs that of the Toeplitz matrix with this table; the gradient reaches the values.

    Examples
    --------
    >>> from structmask import Buckets
    >>> Buckets([0.0, 1.0, 0.5], [0, 2], 4).to_dense()
    array([[1. , 0. , 0. , 0. ],
           [1. , 1. , 0. , 0. ],
           [0.5, 1. , 1. , 0. ],
           [0.5, 0.5, 1. , 1. ]])
    """

    values: Array
    edges: tuple[int, ...]
    n: int
    order: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        values = arrays.as_array(self.values, "Buckets(values)")
        edges = _integers(self.edges)
        order = tuple(range(len(edges) + 1)) if self.order is None else _integers(self.order)
        count = int(values.shape[-1]) if values.ndim else 0
        if any(b <= a for a, b in pairwise(edges)):
            msg = f"Buckets needs ascending edges, got {edges}"
            raise ValueError(msg)
        if len(order) != len(edges) + 1 or not 0 <= min(order) <= max(order) < count:
            msg = (
                f"Buckets with {len(edges)} edges has {len(edges) + 1} stretches; it needs a bucket for each, "
                f"below the number of values, got order {order} and values of shape {tuple(values.shape)}"
            )
            raise ValueError(msg)
        size = operator.index(self.n)
        if size < 0:
            msg = f"Buckets needs a size n >= 0, got {size}"
            raise ValueError(msg)
        for name, value in (("values", values), ("edges", edges), ("order", order), ("n", size)):
            object.__setattr__(self, name, value)

    @classmethod
    def t5(cls, values: Any, n: int, *, max_distance: int = 128, bidirectional: bool = True) -> Buckets:
        """Buckets of relative positions as in T5, in its order: small distances have their own, larger ones share.

        Parameters
        ----------
        values : array (..., buckets)
            One value a bucket, of which there are at least 4 (2 if not bidirectional). T5's table holds logarithms of
            them.
        n : int
            Size.
        max_distance : int
            Distance from which on there is one bucket.
        bidirectional : bool
            Whether columns behind a row (j > i) have the upper half of the buckets; otherwise they share bucket 0.
        """
        values = arrays.as_array(values, "Buckets.t5(values)")
        count, least = int(values.shape[-1]) if values.ndim else 0, 4 if bidirectional else 2
        if count < least or (bidirectional and count % 2) or max_distance <= count // least:
            msg = (
                f"T5 needs at least {least} buckets{', an even number,' if bidirectional else ''} and a max_distance "
                f"above {count // least}, got values of shape {tuple(values.shape)} and {max_distance}"
            )
            raise ValueError(msg)
        bucket = [_t5_bucket(s, count, max_distance, bidirectional=bidirectional) for s in range(1 - n, n)] or [0]
        starts = [index for index in range(1, len(bucket)) if bucket[index] != bucket[index - 1]]
        return cls(values, tuple(s + 1 - n for s in starts), n, order=tuple(bucket[index] for index in (0, *starts)))

    @property
    def stretches(self) -> tuple[int, ...]:
        """Bucket of every stretch."""
        return self.order  # type: ignore[return-value]  # __post_init__ fills it in

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.values.shape[:-1], self.n, self.n)

    @cached_property
    def toeplitz(self) -> Toeplitz:
        """The same matrix as a Toeplitz matrix."""
        n = max(1, self.n)
        stretch = np.searchsorted(np.asarray(self.edges), np.arange(1 - n, n), side="right")
        bucket = arrays.namespace(self.values).asarray(np.asarray(self.stretches)[stretch])
        return Toeplitz(gather(self.values, bucket))

    def _matmat(self, X: Array) -> Array:
        return self.toeplitz._matmat(X)

    def transpose(self) -> Buckets:
        edges = tuple(1 - edge for edge in reversed(self.edges))
        return Buckets(self.values, edges, self.n, order=self.stretches[::-1])

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self.gradient(self.toeplitz._pullback(G, X)["offsets"])

    @cached_property
    def _same(self) -> Array:
        """Which value (second axis) a stretch takes."""
        return np.asarray(self.stretches)[:, None] == np.arange(self.values.shape[-1])

    def gradient(self, table: Array) -> Gradients:
        """Gradient for the values of a gradient (..., 2 n - 1) for the offsets: sums over stretches."""
        xp, length = arrays.namespace(table), int(table.shape[-1])
        ends = [min(max(edge + self.n - 1, 0), length) for edge in self.edges]
        sums = xp.stack([xp.sum(table[..., a:b], axis=-1) for a, b in pairwise((0, *ends, length))], axis=-1)
        same = arrays.placed(self, "_same", arrays.home(table))
        chosen, sums = arrays.as_same_kind(arrays.cast(same, arrays.precision(sums)), sums)
        gradient = (sums[..., None, :] @ chosen)[..., 0, :]
        return {"values": unbroadcast(gradient, tuple(self.values.shape), complex_=arrays.is_complex(self.values))}

    def _at(self, i: Array, j: Array) -> Array:
        return self.toeplitz._at(i, j)

    def _work(self, columns: int) -> Work:
        return self.toeplitz._work(columns) if self.n else Work()

    def _rounding(self, unit: float) -> Rounding:
        return self.toeplitz._rounding(unit)


def _integers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(map(operator.index, values))


def _t5_bucket(offset: int, buckets: int, max_distance: int, *, bidirectional: bool) -> int:
    """T5's bucket of i - j = offset: exact up to a quarter (half) of the buckets, then logarithmic."""
    first = 0
    if bidirectional:
        buckets //= 2
        first, offset = (buckets if offset < 0 else 0), abs(offset)
    distance, exact = max(offset, 0), buckets // 2
    if distance < exact:
        return first + distance
    level = math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact)
    return first + min(buckets - 1, exact + int(level + 1e-9))  # exact powers must not fall below their level
