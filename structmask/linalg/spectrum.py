"""What a structure tells about its spectrum without forming the matrix: symmetry, norm, and where eigenvalues lie.

Entries are polynomials with non-negative coefficients in the generators, so that the same structure with absolute
generators, the *majorant*, bounds them entry by entry: row and column sums of |M| cost one product each. A structure
that is no such polynomial has a method `_norm_bound` of its own.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.toeplitz import Toeplitz

Interval: TypeAlias = tuple[float, float]

_EVERYTHING = (-math.inf, math.inf)


def is_hermitian(matrix: StructuredMatrix) -> bool:
    """Whether M y = M^H y for a random y, to half the digits of the matrix's precision.

    Almost every y tells a matrix from its adjoint, so "no" is certain up to rounding and "yes" almost so. A Toeplitz
    matrix is asked for its table. The matrix remembers the answer.
    """
    if "_is_hermitian" not in matrix.__dict__:
        test = _has_hermitian_table if isinstance(matrix, Toeplitz) else _is_own_adjoint
        matrix.__dict__["_is_hermitian"] = test(matrix)
    answer: bool = matrix.__dict__["_is_hermitian"]
    return answer


def _is_own_adjoint(matrix: StructuredMatrix) -> bool:
    y = _column(matrix, np.random.default_rng(0).standard_normal(matrix.shape[-1]))
    forward, adjoint = matrix @ y, matrix.mH @ y
    xp = arrays.namespace(forward)
    tolerance = math.sqrt(arrays.unit_roundoff(arrays.precision(matrix)))
    return bool(xp.all(_norms(forward - adjoint) <= tolerance * (_norms(forward) + _norms(adjoint))))


def _has_hermitian_table(matrix: Any) -> bool:
    adjoint = matrix.mH.offsets
    xp, table = arrays.namespace(adjoint), matrix.offsets
    if matrix.row_grid != matrix.column_grid:
        return False
    if bool(xp.all(table == adjoint)):
        return True
    tolerance = math.sqrt(arrays.unit_roundoff(arrays.precision(table)))
    return bool(xp.max(xp.abs(table - adjoint)) <= tolerance * xp.max(xp.abs(table)))


def enclosure(matrix: StructuredMatrix) -> Interval:
    """An interval that holds Re <x, M x> for all unit vectors x, hence every eigenvalue of a Hermitian M.

    Both ends are infinite where the structure tells nothing. For a batch the interval holds for every matrix of it.
    """
    norm = norm_bound(matrix)
    candidates = [(-norm, norm), _by_structure(matrix)]
    if matrix.has_entries and _is_polynomial(matrix):
        candidates.append(_gershgorin(matrix))
    low, high = max(low for low, _ in candidates), min(high for _, high in candidates)
    slack = 2 * arrays.unit_roundoff("float64") * max(64, matrix.shape[-1]) * norm if math.isfinite(norm) else 0.0
    return low - slack, high + slack


def norm_bound(matrix: StructuredMatrix) -> float:
    """A bound of the 2-norm, infinite where the structure tells none: the square root of |M|_1 |M|_inf at best."""
    match matrix:
        case Sum():
            return sum(map(norm_bound, matrix.terms))
        case Scaled():
            return abs(matrix.factor) * norm_bound(matrix.matrix)
        case Product():
            return norm_bound(matrix.left) * norm_bound(matrix.right)
    if (own := getattr(matrix, "_norm_bound", None)) is not None:
        return float(own())
    if not _is_polynomial(matrix):
        return math.inf
    if 0 in matrix.shape:
        return 0.0
    rows, columns = _sums(matrix)
    xp = arrays.namespace(rows)
    return math.sqrt(float(xp.max(rows)) * float(xp.max(columns)))


def _by_structure(matrix: StructuredMatrix) -> Interval:
    match matrix:
        case Sum():  # Re <x, (A + B) x> = Re <x, A x> + Re <x, B x>
            ends = [enclosure(term) for term in matrix.terms]
            return sum(low for low, _ in ends), sum(high for _, high in ends)
        case Scaled(factor=float() as factor):
            low, high = enclosure(matrix.matrix)
            return min(factor * low, factor * high), max(factor * low, factor * high)
        case Toeplitz() if matrix.row_grid == matrix.column_grid and 0 not in matrix.shape:
            return _circulant_hull(matrix)
    return _EVERYTHING


def _circulant_hull(matrix: Toeplitz) -> Interval:
    """A principal submatrix of a normal matrix has its numerical range in the hull of that matrix's eigenvalues."""
    xp = arrays.namespace(matrix.offsets)
    wide = Toeplitz(arrays.cast_precision(matrix.offsets, "float64"), levels=matrix.levels, columns=matrix.columns)
    values = (
        xp.real(wide._circulant.spectrum) if arrays.is_complex(wide._circulant.spectrum) else wide._circulant.spectrum
    )
    return float(xp.min(values)), float(xp.max(values))


def _gershgorin(matrix: StructuredMatrix) -> Interval:
    """Gershgorin's theorem for the Hermitian part: centres Re m_ii, radii the majorant's sums without its diagonal."""
    if 0 in matrix.shape:
        return 0.0, 0.0
    rows, columns = _sums(matrix)
    xp = arrays.namespace(rows)
    center, own = (arrays.cast_precision(a.diagonal(), "float64") for a in (matrix, matrix._map(abs)))
    center, radius = xp.real(center) if arrays.is_complex(center) else center, (rows + columns) / 2 - own
    return float(xp.min(center - radius)), float(xp.max(center + radius))


def _sums(matrix: StructuredMatrix) -> tuple[Array, Array]:
    """Row and column sums (*batch, n) of the majorant, in double precision."""
    majorant, (m, n) = matrix._map(abs), matrix.shape[-2:]
    return majorant @ _column(matrix, np.ones(n)), majorant.transpose() @ _column(matrix, np.ones(m))


def _is_polynomial(matrix: StructuredMatrix) -> bool:
    """Whether no part of a matrix has a norm bound of its own instead of a majorant."""
    fields = [value for _, value in matrix._generators()]
    inner = [part for value in fields for part in (value if isinstance(value, tuple) else (value,))]
    parts = [part for part in inner if isinstance(part, StructuredMatrix)]
    return not hasattr(matrix, "_norm_bound") and all(map(_is_polynomial, parts))


def _column(matrix: StructuredMatrix, x: Array) -> Array:
    """A host vector where a matrix lives."""
    return arrays.move(x, matrix._home)


def _norms(Y: Array) -> Array:
    """2-norms of vectors (..., n)."""
    xp = arrays.namespace(Y)
    return xp.sqrt(xp.sum(xp.abs(Y) ** 2, axis=-1))
