"""Three ways to apply a response h to a symmetric Laplacian, each with its certificate; the planner takes the cheapest.

    chebyshev    sum_k c_k T_k(2 L / b - I)         K products with L, K ~ sqrt(2 t b log(1 / tol)) for exp(-t L)
    rational     sum_k c_k T_k(2 B - I)             K ~ 31 solutions with I + s L, B its inverse, whatever t b is
    lanczos      |x| V h(T) e_1                     as many products as the vector needs

The error of each is that of its truncation and what rounding adds, in the 2-norm; the theory page derives both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs.edges import Edges
from structmask.graphs.resolvent import ResidualError, Resolvent, eigenvalues, elimination, shortest_series
from structmask.graphs.response import Response, double
from structmask.graphs.response import Series as Sampled
from structmask.linalg.chebyshev import Series, certified_series, chebyshev_coefficients
from structmask.linalg.elementary import Sparse
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.lanczos import MOST_STEPS, Monotone, lanczos_function, lanczos_steps, lanczos_work
from structmask.linalg.matrix_polynomial import MatrixFunction
from structmask.linalg.planning import Work

_STRETCHED = 8  # largest over mean eigenvalue above which Lanczos may need far fewer products
_SHORT = 40  # degree up to which it cannot
_LONG = 64, 400  # degrees from which a resolvent may pay on a forest, and anywhere
_DOUBLE = arrays.unit_roundoff("float64")


class Method(ABC):
    """One way to compute h(L) X for a symmetric Laplacian."""

    name: str
    error: float  # in the 2-norm, relative to X

    @abstractmethod
    def product(self, X: Array) -> Array | None:
        """The product with X (..., n, k); None where this X is not served as the certificate says."""

    @abstractmethod
    def work(self, columns: int) -> Work:
        """Cost of a product."""


@dataclass(frozen=True)
class Expansion(Method):
    """A Chebyshev series in L, or in its resolvent; `eigenvalue` makes an eigenvalue of L of one of the matrix's."""

    name: str
    polynomial: MatrixFunction
    error: float
    eigenvalue: Callable[[Array], Array]

    def product(self, X: Array) -> Array | None:
        try:
            return self.polynomial._matmat(X)
        except ResidualError:
            return None

    def work(self, columns: int) -> Work:
        return self.polynomial._work(columns)

    def pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients] | None:
        """The product with X, the adjoint's with G, and gradients for the stored entries of L and the coefficients."""
        try:
            Y, Z, inner = self.polynomial._joint_pullback(G, X)
        except ResidualError:
            return None
        return Y, Z, {"csr": inner["matrix"]["csr"], "coefficients": inner["coefficients"]}

    def response_pullback(self, response: Response, d_c: Array) -> Gradients:
        """sum_k conj(dc_k / dtheta) d_c_k: derivatives of h have a series as h has."""
        xp, gradients = arrays.namespace(d_c), {}
        for name, value in response._generators():
            total = xp.sum(self._slopes(response, name, d_c) * d_c, axis=-1)
            total = unbroadcast(total, np.shape(value), complex_=arrays.is_complex(value))
            gradients[name] = arrays.cast_precision(total, arrays.precision(d_c))
        return gradients

    def _slopes(self, response: Response, name: str, d_c: Array) -> Array:
        """conj(dc_k / dtheta) (..., K + 1) for one parameter, in the home of the coefficients' gradient; remembered."""
        kept, home = self.__dict__.setdefault("_kept_slopes", {}), arrays.home(d_c)
        key = name, home, arrays.device_of(home)
        if key not in kept:
            slope, count = response.derivatives(name), d_c.shape[-1]
            series = chebyshev_coefficients(lambda x: slope(self.eigenvalue(x)), self.polynomial.interval, 2 * count)
            kept[key] = arrays.move(np.conj(series[..., :count]), home)
        return kept[key]


@dataclass(frozen=True)
class Krylov(Method):
    """Lanczos's method, expected to take so many steps."""

    L: Sparse
    function: Monotone
    tol: float
    steps: int
    limit: int
    error: float
    name: str = "lanczos"

    def product(self, X: Array) -> Array | None:
        columns = np.moveaxis(X, -2, 0).reshape(X.shape[-2], -1)
        Y = lanczos_function(self.L, self.function, columns, self.tol, self.limit)
        return None if Y is None else np.moveaxis(Y.reshape(X.shape[-2], *X.shape[:-2], X.shape[-1]), 0, -2)

    def work(self, columns: int) -> Work:
        return lanczos_work(self.L, self.steps, columns)


class Methods:
    """Those that there are for a response on [0, bound], to a tolerance; each is made when it is asked for."""

    def __init__(self, edges: Edges, response: Response, bound: float, tol: float) -> None:
        self.edges, self.response, self.bound, self.tol = edges, response, bound, tol

    @cached_property
    def by_name(self) -> dict[str, Method]:
        """All of them."""
        found = (self.chebyshev, self.rational, self.lanczos)
        return {method.name: method for method in found if method is not None}

    @cached_property
    def _series(self) -> Series:
        f = self.response
        if isinstance(f, Sampled):
            return Series(double(f.coefficients), f.known[1])
        return certified_series(f, f.log_bound(self.bound), (0.0, self.bound), self.tol)

    @cached_property
    def chebyshev(self) -> Expansion:
        """The series in L."""
        return chebyshev(self.edges, self._series, self.bound)

    @cached_property
    def rational(self) -> Expansion | None:
        """The series in a resolvent, on hosts that have the kernels to eliminate."""
        if isinstance(self.response, Sampled) or not kernels.numba_runs(self.edges.laplacian.data):
            return None
        return rational(self.edges, self.response, self.bound, self.tol, self.chebyshev)

    @cached_property
    def lanczos(self) -> Krylov | None:
        """For the functions that have a certificate."""
        if self.edges.home != "numpy" or (monotone := self.response.monotone) is None:
            return None
        return lanczos(self.chebyshev, monotone, max(self.tol / 2, self.reach / 4))

    @cached_property
    def reach(self) -> float:
        """What the recurrence in L is to be expected to round: 20 u (1 + t b) for the heat kernel."""
        c, unit = _absolute(self._series), arrays.unit_roundoff(arrays.precision(self.edges.laplacian))
        growth = (c * (1 + 2.0 * np.arange(c.shape[-1]) ** 2)).sum(axis=-1)
        return 20 * unit * float(growth.max(initial=0.0))


def chebyshev(edges: Edges, series: Series, bound: float) -> Expansion:
    """The series on [0, bound]. Forming T_k rounds 6 (row + 3) u (1 + k)^2 at most."""
    L = Sparse(edges.laplacian)
    c, unit = _absolute(series), arrays.unit_roundoff(arrays.precision(L))
    row = int(np.diff(arrays.to_numpy(L.csr.indptr)).max(initial=0))
    growth = float((c * (1.0 + np.arange(c.shape[-1])) ** 2).sum(axis=-1).max(initial=0.0))
    rounding = 6 * (row + 3) * unit * growth + _summation(c, unit)
    p = MatrixFunction(L, _placed(series.coefficients, L), interval=(0.0, bound))
    return Expansion("chebyshev", p, series.error + rounding, lambda x: x)


def rational(edges: Edges, response: Response, bound: float, tol: float, rival: Expansion) -> Expansion | None:
    """The series of the resolvent, if its elimination is worth making: a long rival, and a factor with few entries."""
    if rival.polynomial.degree < _LONG[0] or (found := shortest_series(response, tol)) is None:
        return None
    (shift, series), nnz = found, edges.laplacian.nnz
    terms = series.coefficients.shape[-1] - 1
    fill = rival.polynomial.degree * nnz / (2 * terms) if rival.polynomial.degree >= _LONG[1] else 0.0
    if (solver := elimination(edges, shift, fill)) is None:
        return None
    B = Resolvent(edges.laplacian, solver, (bound,))
    c, unit = _absolute(series), arrays.unit_roundoff(arrays.precision(B))
    k = np.arange(c.shape[-1])
    rounding = float((c * (2 * B.solution_error * k * (k + 1) + 6 * unit * (1 + k) ** 2)).sum(axis=-1).max())
    p = MatrixFunction(B, _placed(series.coefficients, B), interval=(0.0, 1.0))
    error = series.error + rounding + _summation(c, unit)
    return Expansion("rational", p, error, lambda y: eigenvalues(y, shift))


def lanczos(rival: Expansion, function: Monotone, tol: float) -> Krylov | None:
    """Lanczos's method, if the spectrum is stretched by a few and a random vector takes few enough steps."""
    p = rival.polynomial
    L: Sparse = p.matrix  # type: ignore[assignment]
    mean = float(L.csr.diagonal().mean()) if L.shape[0] else 0.0
    if p.degree < _SHORT or p.interval[1] < _STRETCHED * mean:
        return None
    limit = min(p.degree, MOST_STEPS)
    steps = lanczos_steps(L, function, tol, limit // 2)  # each costs two terms and more
    return None if steps is None else Krylov(L, function, tol, steps, limit, rival.error + tol)


def _summation(c: Array, unit: float) -> float:
    """Rounding of the sum of the terms, and of the coefficients themselves."""
    degree: int = c.shape[-1] - 1
    total = float(c.sum(axis=-1).max(initial=0.0))
    return unit * degree * total + _DOUBLE * (8 + 4 * math.log2(degree + 2)) * math.sqrt(4 * degree + 4) * total


def _absolute(series: Series) -> Array:
    """|c_k| (F, K + 1)."""
    return np.abs(series.coefficients).reshape(-1, series.coefficients.shape[-1])


def _placed(coefficients: Array, A: Sparse | Resolvent) -> Array:
    return arrays.move(arrays.cast_precision(coefficients, arrays.precision(A)), A._home)
