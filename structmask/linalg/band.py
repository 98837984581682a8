"""Band masks: windows of relative positions, in which a position sees its neighbours only."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.circulant import Circulant
from structmask.linalg.elementary import gather
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work, acting_backend, seconds
from structmask.linalg.rounding import Rounding
from structmask.linalg.toeplitz import Toeplitz

_FEWEST_ROWS, _MOST_ROWS = 64, 512  # of a tile
_PATIENCE = 1.5  # time that accuracy row by row may cost


@dataclass(frozen=True, eq=False, repr=False)
class Band(StructuredMatrix):
    """M_ij = f(i - j) for -upper <= i - j <= lower, and 0 elsewhere.

    Parameters
    ----------
    offsets : array (..., lower + upper + 1)
        The table of f: the entry for i - j is at index i - j + upper. Leading axes are a batch. A table of ones is a
        sliding window.
    n : int
        Size. Offsets that reach beyond it meet no entry.
    upper : int, optional
        How far the band reaches above the diagonal; by default as far as below, and the table is odd.

    Notes
    -----
    With w = lower + upper a product costs O(n (w + 64)) operations a column by dense tiles, accurate row by row, or
    that of the Toeplitz matrix where the band is so wide that this is cheaper. Masked attention with m features of
    values of size e costs O(n (w + 64) (m + e)).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Band
    >>> Band(np.ones(3), 4, upper=0).to_dense()
    array([[1., 0., 0., 0.],
           [1., 1., 0., 0.],
           [1., 1., 1., 0.],
           [0., 1., 1., 1.]])
    """

    offsets: Array
    n: int
    upper: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        offsets = arrays.as_array(self.offsets, "Band(offsets)")
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "n", operator.index(self.n))
        if self.n < 0 or offsets.ndim < 1 or offsets.shape[-1] < 1:
            msg = (
                f"Band needs offsets (..., lower + upper + 1) and a size n >= 0, got shape {tuple(offsets.shape)} "
                f"and {self.n}"
            )
            raise ValueError(msg)
        count = int(offsets.shape[-1])
        if self.upper is None and count % 2 == 0:
            msg = f"Band offsets need an odd length, got {count}; for an uneven band pass upper="
            raise ValueError(msg)
        upper = count // 2 if self.upper is None else operator.index(self.upper)
        if not 0 <= upper < count:
            msg = f"Band with {count} offsets needs upper between 0 and {count - 1}, got {upper}"
            raise ValueError(msg)
        object.__setattr__(self, "upper", upper)

    @property
    def above(self) -> int:
        """How far the band reaches above the diagonal."""
        return self.upper  # type: ignore[return-value]  # __post_init__ fills it in

    @property
    def below(self) -> int:
        """How far the band reaches below the diagonal."""
        return int(self.offsets.shape[-1]) - 1 - self.above

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.offsets.shape[:-1], self.n, self.n)

    @cached_property
    def trimmed(self) -> Band:
        """The same band without offsets that meet no entry."""
        above, below = (max(0, min(reach, self.n - 1)) for reach in (self.above, self.below))
        first = self.above - above
        return Band(self.offsets[..., first : first + above + below + 1], self.n, upper=above)

    @cached_property
    def toeplitz(self) -> Toeplitz:
        """The same matrix as a Toeplitz matrix."""
        own = self.trimmed
        return Toeplitz(_between_zeros(own.offsets, self.n - 1 - own.above, self.n - 1 - own.below))

    @property
    def _transform(self) -> Circulant:
        """What multiplies where tiles do not: the Toeplitz matrix itself might take this band for the cheaper form."""
        return self.toeplitz._circulant

    # --- tiles ------------------------------------------------------------------------------------------------------

    @property
    def _rows(self) -> int:
        """Rows of a tile."""
        width = self.trimmed.below + self.trimmed.above
        return max(1, min(self.n, max(_FEWEST_ROWS, min(width, _MOST_ROWS))))

    @cached_property
    def _tile(self) -> Array:
        """Entries of a tile (..., rows, rows + lower + upper) away from the ends: all tiles are alike."""
        own, xp, rows = self.trimmed, arrays.namespace(self.offsets), self._rows
        columns = xp.arange(rows + own.below + own.above)
        return own._at(xp.arange(rows)[:, None] + own.below, columns[None, :])

    def tiles(self) -> Iterator[tuple[slice, slice, Array]]:
        """Rows, the columns they meet, and the entries there."""
        below, above = self.trimmed.below, self.trimmed.above
        for a, b in arrays.blocks(self.n, self._rows):
            first, last = max(0, a - below), min(self.n, b + above)
            yield slice(a, b), slice(first, last), self._tile[..., : b - a, first - a + below : last - a + below]

    def gradient(self, tiles: Iterator[tuple[slice, Array]]) -> Gradients:
        """Gradient for the offsets of gradients for the entries of all tiles: sums along diagonals."""
        below, above, total = self.trimmed.below, self.trimmed.above, None
        for rows, tile in tiles:
            xp, (p, q) = arrays.namespace(tile), tile.shape[-2:]
            shift = rows.start - max(0, rows.start - below)  # i - j of the first entry
            i, s = xp.arange(p)[None, :], xp.arange(-above, below + 1)[:, None]
            j = i + shift - s
            inside = (j >= 0) & (j < q)
            index = xp.where(inside, i * q + j, xp.zeros_like(j))
            taken = gather(xp.reshape(tile, (*tile.shape[:-2], p * q)), index)
            part = xp.sum(xp.where(inside, taken, xp.zeros_like(taken)), axis=-1)
            total = part if total is None else total + part
        table = _between_zeros(total, self.above - above, self.below - below)
        return {"offsets": unbroadcast(table, tuple(self.offsets.shape), complex_=arrays.is_complex(self.offsets))}

    @property
    def is_tiled(self) -> bool:
        """Whether tiles multiply: also where transforms, which round a column and not a row, are not much faster."""
        backend, width = acting_backend(self._home), arrays.precision(self)
        tiled, spread = (seconds(work, backend, width) for work in (self._tiled_work(64), self._spread_work(64)))
        return tiled <= _PATIENCE * spread

    # --- products ---------------------------------------------------------------------------------------------------

    def _matmat(self, X: Array) -> Array:
        if not self.is_tiled:
            return self._transform.product(X)
        parts = [tile @ X[..., columns, :] for _, columns, tile in self.tiles()]
        return arrays.namespace(X).concat(parts, axis=-2)

    def transpose(self) -> Band:
        return Band(arrays.namespace(self.offsets).flip(self.offsets, axis=-1), self.n, upper=self.below)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        if not self.is_tiled:
            own, table = self.trimmed, self.toeplitz._pullback(G, X)["offsets"]
            table = table[..., self.n - 1 - own.above : self.n + own.below]
            return {"offsets": _between_zeros(table, self.above - own.above, self.below - own.below)}
        adjoint = xp.matrix_transpose(xp.conj(X) if arrays.is_complex(X) else X)
        return self.gradient((rows, G[..., rows, :] @ adjoint[..., :, columns]) for rows, columns, _ in self.tiles())

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        index = i - j + self.above
        inside = (index >= 0) & (index < self.offsets.shape[-1])
        values = gather(self.offsets, xp.where(inside, index, xp.zeros_like(index)))
        return xp.where(inside, values, xp.zeros_like(values))

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    @property
    def tile_area(self) -> float:
        """Entries of all tiles of a head."""
        return float(self.n) * (self._rows + self.trimmed.below + self.trimmed.above)

    @property
    def tile_count(self) -> float:
        """Number of tiles of a head."""
        return math.ceil(self.n / self._rows)

    def _tiled_work(self, columns: int) -> Work:
        heads = math.prod(self.shape[:-2])
        return Work(gemm=2 * heads * self.tile_area * columns, calls=1 + 0.05 * self.tile_count)

    def _spread_work(self, columns: int) -> Work:
        return self._transform.work(columns) if self.n else Work()

    def _work(self, columns: int) -> Work:
        return self._tiled_work(columns) if self.is_tiled else self._spread_work(columns)

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if self.is_tiled else self._transform.rounding(unit)


def _between_zeros(a: Array, before: int, after: int) -> Array:
    """An array with zeros before and behind its last axis."""
    xp = arrays.namespace(a)
    sides = [xp.zeros((*a.shape[:-1], count), dtype=a.dtype) for count in (before, after)]
    return xp.concat([sides[0], a, sides[1]], axis=-1)
