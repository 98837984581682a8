"""Kronecker products: each factor acts on its own axis of a grid, so that its own fast product is enough.

Row i of A_1 (x) ... (x) A_d is the C-order index of a point (i_1, ..., i_d), and likewise the columns; the entry is the
product of the factors' entries at (i_l, j_l).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.composite import Sum
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Work, acting_backend, seconds
from structmask.linalg.rounding import UNKNOWN, Rounding, rounding_of

_ENOUGH_COLUMNS = 16  # below this many contiguous numbers a row, the other axes are brought along as columns


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(StructuredMatrix):
    """The Kronecker product of its factors, of any number and any shapes.

    Parameters
    ----------
    factors : sequence of StructuredMatrix (..., m_l, n_l)
        Leading axes are a batch and broadcast.

    Notes
    -----
    A product costs each factor's own, once for every index of the other axes; factors that shrink the operand most for
    their cost go first. Memory is a few times that of the operand.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Causal, Dense, Kronecker
    >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> M = Kronecker([Dense(a), Causal(3)])
    >>> np.array_equal(M.to_dense(), np.kron(a, np.tri(3)))
    True
    """

    factors: tuple[StructuredMatrix, ...]

    def __post_init__(self) -> None:
        factors = as_matrices(self.factors, "Kronecker(factors)")
        object.__setattr__(self, "factors", factors)
        np.broadcast_shapes(*(factor.shape[:-2] for factor in factors))

    @property
    def row_grid(self) -> tuple[int, ...]:
        """Rows m_l of the factors."""
        return tuple(factor.shape[-2] for factor in self.factors)

    @property
    def column_grid(self) -> tuple[int, ...]:
        """Columns n_l of the factors."""
        return tuple(factor.shape[-1] for factor in self.factors)

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(*(factor.shape[:-2] for factor in self.factors))
        return (*batch, math.prod(self.row_grid), math.prod(self.column_grid))

    def _order(self) -> list[int]:
        """Axes by falling (n_l - m_l) / cost: no other order is cheaper, since no exchange of two neighbours is."""
        backend = acting_backend(self._home)
        cost = [seconds(factor._work(64), backend, "float64") for factor in self.factors]
        gain = [(n - m) / (1e-12 + c) for m, n, c in zip(self.row_grid, self.column_grid, cost, strict=True)]
        return sorted(range(len(gain)), key=lambda axis: -gain[axis])

    def _matmat(self, X: Array) -> Array:
        grid, Y = list(self.column_grid), X
        for axis in self._order():
            Y = _apply(self.factors[axis], Y, grid, axis)
            grid[axis] = self.factors[axis].shape[-2]
        return Identity(grid[0])._matmat(X) if Y is X else Y

    def transpose(self) -> Kronecker:
        return Kronecker(tuple(factor.transpose() for factor in self.factors))

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """Factor l meets X after the factors before it, and G after the adjoints of the factors behind it."""
        grid, operands = list(self.column_grid), [X]
        for axis, factor in enumerate(self.factors[:-1]):
            operands.append(_apply(factor, operands[-1], grid, axis))
            grid[axis] = factor.shape[-2]
        gradients: Gradients = {}
        grid = list(self.row_grid)
        for axis, factor in reversed(list(enumerate(self.factors))):
            sides = [*grid[:axis], factor.shape[-1], *grid[axis + 1 :]]
            gradients[axis] = factor._pullback(_folded(G, grid, axis), _folded(operands[axis], sides, axis))
            if axis:
                G, grid = _apply(factor.mH, G, grid, axis), sides
        return {"factors": gradients}

    # --- entries: the product of the factors' -----------------------------------------------------------------------

    @property
    def has_entries(self) -> bool:
        return all(factor.has_entries for factor in self.factors)

    def _at(self, i: Array, j: Array) -> Array:
        value = None
        for factor in reversed(self.factors):
            m, n = factor.shape[-2:]
            part = factor._at(i % m, j % n)
            value = part if value is None else part * value
            i, j = i // m, j // n
        return value

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    @property
    def _entry_bytes(self) -> float:
        return sum(factor._entry_bytes + 20.0 for factor in self.factors)

    def _work(self, columns: int) -> Work:
        grid, total, heads = list(self.column_grid), Work(), math.prod(self.shape[:-2])
        for axis in self._order():
            factor = self.factors[axis]
            others = math.prod(grid[:axis]) * math.prod(grid[axis + 1 :])
            repeated = heads / max(1, math.prod(factor.shape[:-2]))
            total = total + factor._work(max(1, others * columns)) * repeated
            grid[axis] = factor.shape[-2]
        return total

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if all(rounding_of(factor, unit).is_local for factor in self.factors) else UNKNOWN

    @property
    def error_bound(self) -> float:
        return 0.0 if all(factor.error_bound == 0 for factor in self.factors) else math.nan

    def __repr__(self) -> str:
        return "kron(" + ", ".join(map(repr, self.factors)) + f"; {self.shape[-2]} x {self.shape[-1]})"


@dataclass(frozen=True, eq=False, repr=False)
class Identity(StructuredMatrix):
    """The identity; it has no generators, and multiplies for nothing.

    Parameters
    ----------
    n : int
        Size.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", operator.index(self.n))
        if self.n < 0:
            msg = f"Identity needs a size n >= 0, got {self.n}"
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    def _matmat(self, X: Array) -> Array:
        return arrays.namespace(X).asarray(X, copy=True)

    def transpose(self) -> Identity:
        return self

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return {}

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        return xp.asarray(i == j, dtype=xp.float64)

    def _work(self, columns: int) -> Work:
        return Work()


def kron(*matrices: StructuredMatrix) -> Kronecker:
    """Kronecker product of matrices; products among them are flattened.

    Parameters
    ----------
    *matrices : StructuredMatrix
        At least one.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Diagonal, kron
    >>> kron(Diagonal([1.0, 2.0]), Diagonal([3.0, 4.0])) @ np.ones(4)
    array([3., 4., 6., 8.])
    """
    given = as_matrices(matrices, "kron")
    return Kronecker(tuple(part for a in given for part in (a.factors if isinstance(a, Kronecker) else (a,))))


def kronecker_sum(*matrices: StructuredMatrix) -> StructuredMatrix:
    """Kronecker sum, the sum over l of I (x) ... A_l ... (x) I of square matrices.

    The Laplacian (or adjacency matrix) of a Cartesian product of graphs is the Kronecker sum of theirs, and the
    exponential of a Kronecker sum is the Kronecker product of the exponentials.

    Parameters
    ----------
    *matrices : StructuredMatrix (..., n_l, n_l)
        At least one.

    Raises
    ------
    ValueError
        If a matrix is not square.

    Notes
    -----
    A product costs that of every matrix, once for every index of the other axes.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Dense, kronecker_sum
    >>> path = Dense(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    >>> square = np.array([[2, -1, -1, 0], [-1, 2, 0, -1], [-1, 0, 2, -1], [0, -1, -1, 2]])
    >>> np.array_equal(kronecker_sum(path, path).to_dense(), square)  # the Laplacian of a square
    True
    """
    given = as_matrices(matrices, "kronecker_sum")
    sizes = [matrix.shape[-1] for matrix in given]
    if any(matrix.shape[-2] != n for matrix, n in zip(given, sizes, strict=True)):
        msg = f"kronecker_sum needs square matrices, got {', '.join(map(repr, given))}"
        raise ValueError(msg)
    terms = []
    for axis, matrix in enumerate(given):
        left, right = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
        terms.append(_between(Identity(left), matrix, Identity(right)))
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def as_matrices(matrices: Any, what: str) -> tuple[StructuredMatrix, ...]:
    """A nonempty sequence of structured matrices in one home, as a tuple."""
    if isinstance(matrices, StructuredMatrix) or not isinstance(matrices, Iterable):
        msg = f"{what} needs a sequence of structured matrices, got {type(matrices).__name__}"
        raise TypeError(msg)
    given = tuple(matrices)
    if not given:
        msg = f"{what} needs at least one matrix, got none"
        raise ValueError(msg)
    strangers = [type(a).__name__ for a in given if not isinstance(a, StructuredMatrix)]
    if strangers:
        msg = f"{what} needs structured matrices, got {', '.join(strangers)}; wrap an array as structmask.Dense(x)"
        raise TypeError(msg)
    arrays.common_home((x for a in given for x in a._leaves() if hasattr(x, "dtype")), f"the matrices of {what}")
    return given


def _between(left: Identity, matrix: StructuredMatrix, right: Identity) -> StructuredMatrix:
    """I (x) A (x) I without the identities of size one."""
    factors = [factor for factor in (left, matrix, right) if factor is matrix or factor.shape[-1] != 1]
    return matrix if len(factors) == 1 else kron(*factors)


# --- one axis of a grid -----------------------------------------------------------------------------------------------


def _apply(factor: StructuredMatrix, X: Array, grid: list[int], axis: int) -> Array:
    """The product along one axis of the grid that the rows of X (..., prod grid, k) are."""
    if isinstance(factor, Identity):
        return X
    xp, k, batch = arrays.namespace(X), X.shape[-1], tuple(X.shape[:-2])
    left, right = math.prod(grid[:axis]), math.prod(grid[axis + 1 :]) * k
    if factor.ndim == 2 and (left == 1 or right >= _ENOUGH_COLUMNS):  # the axes before are a batch
        Y = factor._matmat(xp.reshape(X, (*batch, left, grid[axis], right)))
        return xp.reshape(Y, (*batch, -1, k))
    Y = factor._matmat(_folded(X, grid, axis))
    batch, m = tuple(Y.shape[:-2]), Y.shape[-2]
    Y = _exchanged(xp.reshape(Y, (*batch, m, left, right)))
    return xp.reshape(Y, (*batch, -1, k))


def _folded(X: Array, grid: list[int], axis: int) -> Array:
    """X (..., prod grid, k) with one axis as rows and all others as columns."""
    xp, batch = arrays.namespace(X), tuple(X.shape[:-2])
    X = xp.reshape(X, (*batch, math.prod(grid[:axis]), grid[axis], -1))
    return xp.reshape(_exchanged(X), (*batch, grid[axis], -1))


def _exchanged(X: Array) -> Array:
    """X (..., a, b, c) as (..., b, a, c)."""
    return arrays.namespace(X).moveaxis(X, -2, -3)
