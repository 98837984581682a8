"""Toeplitz and d-level block-Toeplitz matrices: entries depend on differences of grid points only.

With p the linear position of a grid point in the table of offsets, every entry is ``table[p(i) - p(j) + c]``, whatever
the number of levels; the product is a circulant one of side at least m + n - 1 on each axis.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.circulant import Circulant
from structmask.linalg.elementary import GatherForm, filled_before, gather
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import Rounding, rounding_of


@dataclass(frozen=True, eq=False, repr=False)
class Toeplitz(StructuredMatrix):
    """M_ij = f(i - j), where i and j are points of a grid with `levels` axes in C order.

    Parameters
    ----------
    offsets : array (..., m_1 + n_1 - 1, ..., m_d + n_d - 1)
        The table of f: the entry for the difference i - j is at index i - j + n_l - 1 on axis l. Leading axes are a
        batch.
    levels : int
        Number d of grid axes.
    columns : tuple of int, optional
        Sides n_l of the column grid; by default m_l = n_l and every axis of the table is odd.

    Notes
    -----
    A product costs O(N log N) operations a column, N = prod(m_l + n_l - 1), by circulant embedding. Rounding is
    absolute over a column: an entry of y = M x is off by about u sqrt(log2(N) / N) (|f|_2 |x|_2 + |y|_2), u the unit
    roundoff.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Toeplitz
    >>> Toeplitz([1.0, 2.0, 3.0]).to_dense()
    array([[2., 1.],
           [3., 2.]])
    """

    offsets: Array
    levels: int = field(default=1, kw_only=True)
    columns: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        offsets = arrays.as_array(self.offsets, "Toeplitz(offsets)")
        object.__setattr__(self, "levels", operator.index(self.levels))
        if self.levels < 1 or offsets.ndim < self.levels:
            msg = (
                f"Toeplitz with levels={self.levels} needs that many trailing axes of offsets, got shape "
                f"{tuple(offsets.shape)}"
            )
            raise ValueError(msg)
        sides = tuple(offsets.shape[-self.levels :])
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "columns", _column_grid(self.columns, sides))

    @classmethod
    def from_column_row(cls, column: Any, row: Any = None) -> Toeplitz:
        """One-level matrix with a given first column (..., m) and first row (..., n).

        ``row[..., 0]`` is ignored, and the row is the conjugate of the column if it is not given, as in
        `scipy.linalg.toeplitz`.
        """
        column = arrays.as_array(column, "column")
        xp = arrays.namespace(column)
        if row is None:
            row = xp.conj(column) if arrays.is_complex(column) else column
        row = arrays.as_array(row, "row")
        arrays.common_home((column, row), "column and row")
        batch = np.broadcast_shapes(tuple(column.shape[:-1]), tuple(row.shape[:-1]))
        head = xp.broadcast_to(xp.flip(row[..., 1:], axis=-1), (*batch, row.shape[-1] - 1))
        tail = xp.broadcast_to(column, (*batch, column.shape[-1]))
        return cls(xp.concat([head, tail], axis=-1), columns=(int(row.shape[-1]),))

    @classmethod
    def from_function(
        cls, f: Callable[..., Any], shape: int | tuple[int, ...], *, columns: int | tuple[int, ...] | None = None
    ) -> Toeplitz:
        """Matrix of a function of the difference of grid points.

        Parameters
        ----------
        f : callable
            Called with one integer array of signed offsets per level, all of the table's shape; returns the table, with
            batch axes in front if wanted.
        shape : int or tuple of int
            Sides of the grid of rows.
        columns : int or tuple of int, optional
            Sides of the grid of columns; the same as the rows' by default.
        """
        rows = _sides(shape)
        grid = rows if columns is None else _sides(columns)
        if len(grid) != len(rows) or min(*rows, *grid, 1) < 1:
            msg = f"from_function needs sides of at least 1 and as many columns as shape, got {rows} and {grid}"
            raise ValueError(msg)
        axes = [np.arange(1 - n, m) for m, n in zip(rows, grid, strict=True)]
        table = arrays.as_array(f(*np.meshgrid(*axes, indexing="ij")), "the value of f")
        sides = tuple(axis.size for axis in axes)
        xp = arrays.namespace(table)
        full = xp.broadcast_to(table, np.broadcast_shapes(tuple(table.shape), sides))
        return cls(full, levels=len(rows), columns=grid)

    def compress(self, *, tol: float, measure: str = "mass") -> StructuredMatrix:
        """A state-space mask within `tol` of this matrix, whose masked attention needs no transforms.

        Parameters
        ----------
        tol : float
            How large the error e(s) of the table f may be.
        measure : {"mass", "absolute", "relative"}
            "absolute": ``|e(s)| <= tol`` for every s. "mass": ``|e(s)|`` is at most tol times the mean of ``|f(s)|``
            and of the average ``|f|``, so that sum ``|e|`` <= tol sum ``|f|``; it is what the denominators of
            attention ask for. "relative": ``|e(s)| <= tol |f(s)|``, which for positive features certifies every output.

        Returns
        -------
        ExponentialSum or StateSpace
            Causal where the matrix is; where past and future differ, the sum of a causal and an upper one. Its `errors`
            are measured at every offset, its `error_bound` bounds the spectral norm of the error, rounding in double
            precision included.

        Raises
        ------
        ValueError
            If no state space that pays is found within `tol` (the message says whether one exists), or the matrix is
            not square or has several levels.
        TypeError
            If the table is complex.

        Notes
        -----
        O(n r^2) operations after one singular value decomposition of bounded size: tenths of a second. It is not
        differentiated; the result has exact gradients in its own generators.

        Examples
        --------
        >>> import numpy as np
        >>> from structmask import Toeplitz
        >>> ramp = Toeplitz.from_function(lambda s: 1 - abs(s) / 1000, 1000)
        >>> mask = ramp.compress(tol=1e-9)
        >>> mask.rank, bool(mask.error_bound < 1e-9 * np.abs(ramp.offsets).sum())
        (2, True)
        >>> x = np.ones(1000)
        >>> np.allclose(mask @ x, ramp @ x)
        True
        """
        from structmask.linalg.compress import compress

        return compress(self, tol=tol, measure=measure)

    @property
    def column_grid(self) -> tuple[int, ...]:
        """Sides n_l of the grid of columns."""
        return self.columns  # type: ignore[return-value]  # __post_init__ fills it in

    @cached_property
    def row_grid(self) -> tuple[int, ...]:
        """Sides m_l of the grid of rows."""
        sides = self.offsets.shape[-self.levels :]
        return tuple(int(side) - n + 1 for side, n in zip(sides, self.column_grid, strict=True))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Batch dimensions, rows, columns."""
        return (*self.offsets.shape[: -self.levels], math.prod(self.row_grid), math.prod(self.column_grid))

    @cached_property
    def _circulant(self) -> Circulant:
        return Circulant(self.offsets, self.row_grid, self.column_grid)

    @cached_property
    def _simpler(self) -> StructuredMatrix | None:
        """The same matrix in a structure with a cheaper product, where the table has one."""
        from structmask.linalg import toeplitz_forms  # it knows structures that know this one

        return toeplitz_forms.simpler(self)

    def _matmat(self, X: Array) -> Array:
        return self._circulant.product(X) if self._simpler is None else self._simpler._matmat(X)

    def transpose(self) -> Toeplitz:
        xp = arrays.namespace(self.offsets)
        reversed_ = xp.flip(self.offsets, axis=tuple(range(-self.levels, 0)))
        return Toeplitz(reversed_, levels=self.levels, columns=self.row_grid)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        gradient = self._circulant.correlation(G, X)
        return {"offsets": unbroadcast(gradient, tuple(self.offsets.shape), complex_=arrays.is_complex(self.offsets))}

    # --- entries: one gather from the flat table --------------------------------------------------------------------

    @cached_property
    def _flat(self) -> Array:
        xp = arrays.namespace(self.offsets)
        size = math.prod(self.offsets.shape[-self.levels :])
        return xp.reshape(self.offsets, (*self.offsets.shape[: -self.levels], size))

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        sides = self.offsets.shape[-self.levels :]
        return tuple(math.prod(sides[level + 1 :]) for level in range(self.levels))

    @cached_property
    def _center(self) -> int:
        """Position of the zero difference in the flat table."""
        return sum((n - 1) * stride for n, stride in zip(self.column_grid, self._strides, strict=True))

    def _position(self, index: Array, grid: tuple[int, ...]) -> Array:
        """Linear position p of grid points given by their C-order index."""
        position = 0 * index
        for n, stride in zip(reversed(grid), reversed(self._strides), strict=True):
            position = position + (index % n) * stride
            index = index // n
        return position

    def _at(self, i: Array, j: Array) -> Array:
        index = self._position(i, self.row_grid) - self._position(j, self.column_grid) + self._center
        return gather(self._flat, index)

    @cached_property
    def gather_form(self) -> GatherForm:
        """The mask as entries of a flat table."""
        xp = arrays.namespace(self.offsets)
        reversed_ = xp.flip(self._flat, axis=-1)  # copied once here, or a kernel would at every call
        table = xp.asarray(xp.reshape(reversed_, (-1, self._flat.shape[-1])), copy=True)
        rows = self._position(xp.arange(self.shape[-2]), self.row_grid)
        columns = self._position(xp.arange(self.shape[-1]), self.column_grid)
        columns = columns + (table.shape[-1] - 1 - self._center)
        return GatherForm(table, rows, columns, self.column_grid[-1], filled_before(table))

    @cached_property
    def fill(self) -> float:
        """Share of the entries at offsets where some table of the batch is not zero; for tables on the host."""
        other = np.asarray(self._flat != 0).reshape(-1, *self.offsets.shape[-self.levels :]).any(axis=0)
        if other.all():
            return 1.0
        for m, n in zip(self.row_grid, self.column_grid, strict=True):  # entries at each offset of an axis
            s = np.arange(1 - n, m)
            other = np.tensordot(np.minimum(m, n + s) - np.maximum(0, s), other, axes=(0, 0))
        return float(other) / math.prod(self.shape[-2:])

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    def _work(self, columns: int) -> Work:
        return self._circulant.work(columns) if self._simpler is None else self._simpler._work(columns)

    def _rounding(self, unit: float) -> Rounding:
        own = Rounding(math.nan) if self._simpler is None else rounding_of(self._simpler, unit)
        return own if own.is_known else self._circulant.rounding(unit)


def _sides(shape: Any) -> tuple[int, ...]:
    """Sides of a grid, given as a tuple or, for one level, as an integer."""
    return tuple(map(operator.index, shape)) if isinstance(shape, Iterable) else (operator.index(shape),)


def _column_grid(columns: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    if columns is None:
        if any(side % 2 == 0 for side in sides):
            msg = (
                f"Toeplitz offsets need odd sides 2 n - 1, got {sides}; for a rectangular matrix pass "
                "columns=(n_1, ...)"
            )
            raise ValueError(msg)
        return tuple((int(side) + 1) // 2 for side in sides)
    grid = _sides(columns)
    if len(grid) != len(sides) or any(not 1 <= n <= side for n, side in zip(grid, sides, strict=True)):
        msg = f"Toeplitz with offsets of sides {sides} needs as many columns, each between 1 and its side, got {grid}"
        raise ValueError(msg)
    return grid
