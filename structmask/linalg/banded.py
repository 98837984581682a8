"""Banded Cholesky and LU: narrow band and Toeplitz matrices, plus a diagonal, in O(n w^2) for w diagonals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.composite import Scaled, Sum
from structmask.linalg.elementary import Diagonal
from structmask.linalg.toeplitz import Toeplitz

_WIDEST = 32  # diagonals on a side up to which elimination beats preconditioned iterations
_NARROW = 8  # rows a diagonal below which a matrix is as good as dense


class Stripe(NamedTuple):
    """Constant diagonals, those of offsets -reach ... reach, plus a diagonal that varies."""

    table: Array
    diagonal: Array

    @property
    def reach(self) -> int:
        """Diagonals on a side."""
        return int(self.table.size) // 2


class BandSolver:
    """Solves with a stripe."""

    def __init__(self, stripe: Stripe, n: int) -> None:
        table, self.reach = stripe.table, stripe.reach
        rows = np.repeat(table[:, None], n, axis=1).astype(np.result_type(table, stripe.diagonal))
        rows[self.reach] += stripe.diagonal
        self.rows = rows  # rows[reach + i - j, j] = M_ij, as LAPACK has it
        self.is_hermitian = bool(np.array_equal(table, table[::-1].conj()) and not np.any(np.imag(rows[self.reach])))

    def __call__(self, B: Array) -> Array:
        columns = np.moveaxis(B, -2, 0)
        X = self._solution(np.reshape(columns, (columns.shape[0], -1)))
        return np.moveaxis(np.reshape(X, columns.shape), 0, -2)

    def _solution(self, B: np.ndarray) -> np.ndarray:
        """By Cholesky where the matrix is positive definite, by LU with partial pivoting otherwise."""
        if self.is_hermitian and np.all(np.real(self.rows[self.reach]) > 0):
            try:
                return scipy.linalg.solveh_banded(self.rows[self.reach :], B, lower=True, check_finite=False)
            except np.linalg.LinAlgError:  # not positive definite
                pass
        try:
            return scipy.linalg.solve_banded((self.reach, self.reach), self.rows, B, check_finite=False)
        except np.linalg.LinAlgError:
            msg = "Singular matrix: its factorisation has a zero pivot"
            raise np.linalg.LinAlgError(msg) from None


def band_solver(a: StructuredMatrix) -> BandSolver | None:
    """Elimination for a matrix on the host that is a narrow band, None otherwise."""
    if a.ndim != 2 or a._home != "numpy" or a.shape[-1] != a.shape[-2] or a.shape[-1] <= _NARROW:
        return None
    stripe = _stripe(a)
    return None if stripe is None or _NARROW * stripe.reach > a.shape[-1] else BandSolver(stripe, a.shape[-1])


def _stripe(a: StructuredMatrix) -> Stripe | None:
    match a:
        case Band():
            return _centred(arrays.to_numpy(a.offsets), a.above)
        case Toeplitz(levels=1):
            return _centred(arrays.to_numpy(a.offsets), a.shape[-1] - 1)
        case Diagonal():
            return Stripe(np.zeros(1), arrays.to_numpy(a.d))
        case Scaled():
            inner = _stripe(a.matrix)
            return None if inner is None else Stripe(a.factor * inner.table, a.factor * inner.diagonal)
        case Sum():
            return _total([_stripe(term) for term in a.terms])
    return None


def _centred(table: np.ndarray, center: int) -> Stripe | None:
    """The table without zeros at its ends, as long on both sides of the centre; None where that is wide."""
    if np.any(table[: max(0, center - _WIDEST)]) or np.any(table[center + _WIDEST + 1 :]):
        return None
    filled = np.flatnonzero(table)
    reach = int(np.max(np.abs(filled - center), initial=0))
    before, after = max(0, reach - center), max(0, center + reach + 1 - table.size)
    return Stripe(np.pad(table, (before, after))[center + before - reach : center + before + reach + 1], 0.0)


def _total(stripes: list[Stripe | None]) -> Stripe | None:
    known = [stripe for stripe in stripes if stripe is not None]
    if len(known) < len(stripes):
        return None
    reach = max(stripe.reach for stripe in known)
    tables = [np.pad(stripe.table, reach - stripe.reach) for stripe in known]
    return Stripe(np.sum(tables, axis=0), sum(stripe.diagonal for stripe in known))
