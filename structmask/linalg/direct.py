"""Solutions without iterations: closed forms, elimination by parts, recurrences for Toeplitz and band matrices, LU.

The inverse of a product, a Kronecker product or a block-diagonal matrix is made of the inverses of its parts, so that
each part is solved by its own best method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.banded import band_solver
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal
from structmask.linalg.causal import Causal
from structmask.linalg.circulant_preconditioner import CirculantInverse, circulant_spectrum
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.elementary import Dense, Diagonal
from structmask.linalg.generators import Gradients
from structmask.linalg.hypercube import Hypercube
from structmask.linalg.kronecker import Identity, Kronecker
from structmask.linalg.low_rank import LowRank
from structmask.linalg.toeplitz import Toeplitz
from structmask.linalg.toeplitz_forms import separable

Block: TypeAlias = Callable[[Array], Array]
Solver: TypeAlias = Callable[[StructuredMatrix, Array], Array]

_DENSE = 512  # rows up to which a matrix is formed and factored
_LEVINSON = 32  # rows a right-hand side from which Levinson's recurrence beats the factorisation
_LONGEST = 1 << 20  # entries times right-hand sides up to which it beats iterations


def direct_methods(a: StructuredMatrix, B: Array, solver: Solver) -> tuple[list[Block], bool]:
    """Functions that solve without iterations, in the order to try them, and whether no iteration could do better.

    `solver` solves with the parts of a composite matrix.
    """
    if (closed := _closed_form(a, solver) or band_solver(a)) is not None:
        return [closed], True
    quick: list[Block] = [lambda R: _levinson(a, R)] if _has_levinson(a, B) else []
    if isinstance(a, Dense) or a.shape[-1] <= _DENSE:
        return [*quick, lambda R: factored(a.to_dense(), R)], True
    return (quick, False) if (inverse := _woodbury(a)) is None else ([inverse], False)


# --- inverses with a structure ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Inverse(StructuredMatrix):
    """The inverse of a square matrix; a product solves a linear system."""

    matrix: StructuredMatrix
    solver: Solver

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    def __repr__(self) -> str:
        return f"Inverse({self.matrix!r})"

    def _matmat(self, X: Array) -> Array:
        return self.solver(self.matrix, X)

    def _norm_bound(self) -> float:
        """Nothing is known of it."""
        return math.inf

    def transpose(self) -> Inverse:
        return Inverse(self.matrix.transpose(), self.solver)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """From d(M^-1) = -M^-1 dM M^-1."""
        return {"matrix": self.matrix._pullback(-self.solver(self.matrix.mH, G), self._matmat(X))}


def _closed_form(a: StructuredMatrix, solver: Solver) -> Block | None:
    """The solution where a structure has one of its own, None otherwise."""
    match a:
        case Diagonal():
            return lambda R: divided(R, a.d)
        case Causal():
            return lambda R: _difference(a, R)
        case Hypercube():
            return _of_hypercube(a)
        case Toeplitz() if (circulant := _of_circulant(a)) is not None:
            return circulant
    inverse = _by_parts(a, lambda part: Inverse(part, solver))
    return None if inverse is None else inverse._product


def _by_parts(a: StructuredMatrix, inverse: Callable[[StructuredMatrix], StructuredMatrix]) -> StructuredMatrix | None:
    match a:
        case Identity():
            return a
        case Scaled() if a.factor != 0:
            return Scaled(inverse(a.matrix), 1 / a.factor)
        case Product() if _are_square((a.left, a.right)):
            return Product(inverse(a.right), inverse(a.left))
        case Kronecker() if _are_square(a.factors):
            return Kronecker(tuple(map(inverse, a.factors)))
        case Toeplitz() if (factored_form := separable(a)) is not None:
            return _by_parts(factored_form, inverse)
        case BlockDiagonal() if _are_square(a.blocks):
            return BlockDiagonal(tuple(map(inverse, a.blocks)))
    return None


def _are_square(parts: Iterable[StructuredMatrix]) -> bool:
    return all(part.shape[-1] == part.shape[-2] for part in parts)


def divided(R: Array, d: Array) -> Array:
    """Rows of R over the entries of a diagonal."""
    if bool(arrays.namespace(R).any(d == 0)):
        msg = "Singular matrix: the diagonal has a zero"
        raise np.linalg.LinAlgError(msg)
    return R / d[..., None]


def _difference(a: Causal, Y: Array) -> Array:
    """y_i = x_i + decay_i y_{i-1} read backwards: x_i = y_i - decay_i y_{i-1}."""
    xp, decay = arrays.namespace(Y), a.decays(Y)[..., 1:, None]
    if a.upper:
        return xp.concat([Y[..., :-1, :] - decay * Y[..., 1:, :], Y[..., -1:, :]], axis=-2)
    return xp.concat([Y[..., :1, :], Y[..., 1:, :] - decay * Y[..., :-1, :]], axis=-2)


def _of_hypercube(a: Hypercube) -> Block | None:
    """Reciprocal eigenvalues; the Krawtchouk matrix is its own inverse up to the factor 2^d."""
    values, K = arrays.as_same_kind(a.eigenvalues, a._krawtchouk)
    if _is_singular(values, a.shape[-1]):
        return None
    inverse = ((1.0 / values)[..., None, :] @ K)[..., 0, :] / 2**a.dimension
    return Hypercube(inverse)._product


def _of_circulant(a: Toeplitz) -> Block | None:
    """Division of spectra, if the table is one period of a circulant."""
    if a.row_grid != a.column_grid or 0 in a.shape or not _is_periodic(a):
        return None
    values = circulant_spectrum(a)
    if _is_singular(values, a.shape[-1]):
        return None
    return CirculantInverse(values, a.row_grid, a.row_grid, real=not arrays.is_complex(a.offsets))


def _is_periodic(a: Toeplitz) -> bool:
    xp = arrays.namespace(a.offsets)
    for level, n in enumerate(a.row_grid):
        table = xp.moveaxis(a.offsets, level - a.levels, -1)
        if not bool(xp.all(table[..., n:] == table[..., : n - 1])):
            return False
    return True


def _is_singular(eigenvalues: Array, n: int) -> bool:
    """Whether an eigenvalue is zero as far as rounding tells."""
    xp = arrays.namespace(eigenvalues)
    size = xp.abs(eigenvalues)
    return not bool(xp.min(size) > 4 * arrays.unit_roundoff("float64") * n * xp.max(size))


# --- dense and low-rank matrices, small Toeplitz matrices -------------------------------------------------------------


def factored(A: Array, B: Array) -> Array:
    """LU with partial pivoting; one matrix for a whole batch of right-hand sides is factored once."""
    xp, n = arrays.namespace(B), A.shape[-1]
    A, B = arrays.as_same_kind(A, B)
    if A.ndim == 2 and B.ndim > 2:
        return beside(B, lambda columns: factored(A, columns))
    X = xp.linalg.solve(xp.broadcast_to(A, (*B.shape[:-2], n, n)), B)
    if not bool(xp.all(xp.isfinite(X))):
        msg = "Singular matrix: its factorisation has a zero pivot"
        raise np.linalg.LinAlgError(msg)
    return X


def beside(B: Array, solved: Block) -> Array:
    """What a function makes of the matrices of a batch (..., n, k) as columns (n, ...) side by side."""
    if B.ndim == 2:
        return solved(B)
    xp = arrays.namespace(B)
    columns = xp.moveaxis(B, -2, 0)
    return xp.moveaxis(xp.reshape(solved(xp.reshape(columns, (columns.shape[0], -1))), columns.shape), 0, -2)


def _has_levinson(a: StructuredMatrix, B: Array) -> bool:
    is_plain = isinstance(a, Toeplitz) and a.levels == 1 and a.ndim == 2 and arrays.home(B) == "numpy"
    n = a.shape[-1]
    return is_plain and _LEVINSON * B.size <= n * n and B.size * n <= _LONGEST


def _levinson(a: Any, B: Array) -> Array:
    """Levinson's recurrence, O(n^2) a column; nothing where a leading submatrix is singular."""
    n, table = a.shape[-1], a.offsets
    try:
        return beside(B, lambda R: scipy.linalg.solve_toeplitz((table[n - 1 :], table[n - 1 :: -1]), R))
    except np.linalg.LinAlgError:
        return np.zeros_like(B)


def _woodbury(a: StructuredMatrix) -> Block | None:
    """The inverse of D + U V^T is D^-1 - D^-1 U (I + V^T D^-1 U)^-1 V^T D^-1, for a diagonal D and a low rank."""
    match a:
        case (
            Sum(terms=(Diagonal() as diagonal, LowRank() as low))
            | Sum(terms=(LowRank() as low, Diagonal() as diagonal))
        ):
            U, V, d = low.left, low.right, diagonal.d
        case _:
            return None
    xp = arrays.namespace(d)
    if low.has_sparse_factors or 2 * low.rank > a.shape[-1] or bool(xp.any(d == 0)):
        return None
    D_U, V_t = U / d[..., None], xp.matrix_transpose(V)
    small = V_t @ D_U
    small = small + xp.eye(low.rank, dtype=small.dtype)

    def solved(B: Array) -> Array:
        Y = B / d[..., None]
        return Y - D_U @ factored(small, V_t @ Y)

    return solved
