"""Functions of a Laplacian as polynomials of one resolvent: the time that a diffusion takes does not count.

    h(L) = sum_k c_k T_k(2 B - I),   B = (I + s L)^-1,   c_k the Chebyshev coefficients of h((1 / y - 1) / s) on (0, 1]

B has its eigenvalues in (0, 1], wherever those of L >= 0 are. For h(x) = exp(-t x) and s ~ t / 16 a degree of 31 makes
an error of 1e-12: it falls like (1 + sqrt(2))^-K, the best that is possible with one pole. The pole is real, so that
one elimination without subtractions (`elimination`) serves every term, every column and every time.

Since I + s L >= I, a solution is no further from B x than its residual is from zero: that is what certifies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs.edges import Edges
from structmask.graphs.elimination import Factor, complete_factor, forest_factor
from structmask.graphs.response import Response
from structmask.graphs.stochastic import off_diagonal
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.chebyshev import Series, chebyshev_coefficients, shortened
from structmask.linalg.elementary import Sparse, sparse_gradient
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Work

_COUNTS = (128, 256, 512, 1024, 2048)
_LEAST = 3  # coefficients: the derivative of 1 / (1 + s x) by s is a polynomial of degree two
_UNIT = arrays.unit_roundoff("float64")
_RESIDUAL = 8 * _UNIT  # of a solution, relative to the norm of the matrix: eliminations make a quarter of it


class ResidualError(Exception):
    """A solution has a larger residual than its certificate allows."""


def eigenvalues(y: Array, shift: float) -> Array:
    """X of y = 1 / (1 + s x)."""
    return (1 - y) / (shift * y)


def shortest_series(response: Response, tol: float) -> tuple[float, Series] | None:
    """The shift with the shortest polynomial of the resolvent, and that; None where none is known."""
    found = [(shift, _series(response, float(shift), tol)) for shift in response.shifts(*response._columns())]
    known = [(float(shift), series) for shift, series in found if series is not None]
    return min(known, key=lambda pair: pair[1].coefficients.shape[-1], default=None)


def _series(response: Response, shift: float, tol: float) -> Series | None:
    for count in _COUNTS:
        remainder = response.remainder(shift, count, *response._columns())
        if remainder <= tol / 4:
            c = chebyshev_coefficients(lambda y: response(eigenvalues(y, shift)), (0.0, 1.0), count)
            kept = shortened(c, tol, remainder)
            return Series(c[..., : max(_LEAST, kept.coefficients.shape[-1])], kept.error)
    return None


class Elimination:
    """Solutions of (I + s L) x = b by a factor of L's M-matrix, with checked residuals.

    With R = D^(-1/2) for the symmetric Laplacian (R = I for D - W) and W without loops,
    I + s L = s R (diag(W 1 + r^-2 / s) - W) R.
    """

    def __init__(self, edges: Edges, shift: float, factor: Factor) -> None:
        self.shift, self.factor = shift, factor
        self.scale = 1.0 / _roots(edges)[:, None]
        self.matrix = scipy.sparse.csr_array(scipy.sparse.eye_array(edges.degrees.size) + shift * edges.wide_laplacian)

    def solve(self, B: Array, norm: float) -> Array:
        """X (n, k) with |b - (I + s L) x| <= 8 u norm |x| in every column, for B (n, k) in double precision."""
        X = self._solve(B)
        R = self._residual(B, X)
        if self._misses(R, X, norm):
            X = X + self._solve(R)
            if self._misses(self._residual(B, X), X, norm):
                raise ResidualError
        return X

    def _solve(self, B: Array) -> Array:
        return self.scale * self.factor.solve(self.scale / self.shift * B)

    def _residual(self, B: Array, X: Array) -> Array:
        R = kernels.csr_product(self.matrix, self.matrix.data, X)
        return np.subtract(B, R, out=R)

    @staticmethod
    def _misses(R: Array, X: Array, norm: float) -> bool:
        return not bool(np.all(_squares(R) <= (_RESIDUAL * norm) ** 2 * _squares(X)))


def elimination(edges: Edges, shift: float, fill: float) -> Elimination | None:
    """None where the graph is no forest and the factor has more than `fill` entries, or takes too long to make."""
    W, leak = off_diagonal(edges.adjacency), 1 / (shift * _roots(edges) ** 2)
    W.sort_indices()
    factor = forest_factor(W, leak)
    if factor is None and fill > W.nnz:
        factor = complete_factor(W, leak, fill=fill)
    return None if factor is None else Elimination(edges, shift, factor)


@dataclass(frozen=True, eq=False, repr=False)
class Resolvent(StructuredMatrix):
    """(I + s L)^-1 of a symmetric Laplacian L with eigenvalues in [0, bound].

    Parameters
    ----------
    csr : csr_array (n, n)
        L.
    solver : Elimination
        Of I + s L.
    bound : tuple of one float
        No eigenvalue of D + W, or |L|, exceeds it.

    Notes
    -----
    Solutions are made in double precision, whatever the operand's.
    """

    csr: Array
    solver: Elimination
    bound: tuple[float]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.csr.shape))

    def _matmat(self, X: Array) -> Array:
        columns = np.moveaxis(X, -2, 0)
        flat = np.ascontiguousarray(columns.reshape(columns.shape[0], -1))
        if is_complex := arrays.is_complex(flat):
            flat = flat.view(flat.real.dtype)
        Y = self.solver.solve(flat.astype(np.float64, copy=False), self._norm).astype(flat.dtype, copy=False)
        return np.moveaxis((Y.view(X.dtype) if is_complex else Y).reshape(columns.shape), 0, -2)

    def transpose(self) -> Resolvent:
        return self

    def _place(self, width: str, target: str) -> Resolvent:
        """As it is: the operand is what is cast."""
        return self

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """From dB = -s B dL B."""
        G, X = np.broadcast_arrays(G, X)
        return {"csr": sparse_gradient(self.csr, self._rows, -self.solver.shift * self._matmat(G), self._matmat(X))}

    @cached_property
    def _rows(self) -> Array:
        return Sparse(self.csr)._rows

    @property
    def _norm(self) -> float:
        """No eigenvalue of I + s L exceeds it."""
        return 1 + self.solver.shift * self.bound[0]

    @property
    def solution_error(self) -> float:
        """Bound of a product's error relative to the operand: residuals, their rounding, and that of L's entries."""
        row = int(np.diff(self.solver.matrix.indptr).max(initial=0))
        return (_RESIDUAL + 2 * (row + 4) * _UNIT) * self._norm

    def _work(self, columns: int) -> Work:
        n, factor, L = self.shape[0], self.solver.factor, self.csr
        entries = float(factor.pattern.size)
        return Work(
            scan=(factor.operations + 2.0 * L.nnz) * columns,
            bytes=entries * (24.0 + 16.0 * columns) + 12.0 * L.nnz + 160.0 * n * columns,
            calls=6,
        )


def _roots(edges: Edges) -> Array:
    """R of the scaling, ones for D - W."""
    return np.ones_like(edges.degrees) if edges.kind == "combinatorial" else edges.roots


def _squares(X: Array) -> Array:
    return np.einsum("ij,ij->j", X, X)
