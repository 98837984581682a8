"""Spectral filters h(L) of a graph: a response on the eigenvalues of its Laplacian, applied without any of them.

    h(L) = V diag(h(lambda_1), ..., h(lambda_n)) V^T  ~  sum_k c_k T_k(2 L / b - I)

The spectrum lies in [0, b], b rigorous. What is left out of the series is bounded before anything is computed, so that
`error_bound` is a certificate. The generators are the weights of the edges, one each, and the response's parameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import undirected
from structmask.graphs.edges import Edges
from structmask.graphs.filter_methods import Expansion, Method, Methods
from structmask.graphs.laplacian import Kind, adjacency_bound, check_kind
from structmask.graphs.response import Response
from structmask.graphs.response import Series as Sampled
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.chebyshev import chebyshev_series
from structmask.linalg.convergence import ConvergenceWarning
from structmask.linalg.generators import Gradients
from structmask.linalg.matrix_polynomial import MatrixFunction
from structmask.linalg.planning import Plan, Work, make_plan
from structmask.linalg.rounding import UNKNOWN, Rounding


@dataclass(frozen=True)
class Design:
    """What a filter is, besides numbers: kind of Laplacian, tolerance, and whether it is transposed."""

    kind: Kind = "combinatorial"
    tol: float = 1e-8
    is_transposed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class SpectralFilter(StructuredMatrix):
    """h(L) for the Laplacian L of an undirected graph; `spectral_filter` and `diffusion_kernel` make one.

    Parameters
    ----------
    weights : csr_array (n, n)
        Weights >= 0 of the edges, each once, on or above the diagonal. Their gradient has one entry an edge, in the
        order of the stored entries.
    response : Response
        h. The shape of its parameters is the batch.
    design : Design
        Kind of Laplacian, tolerance, and whether the matrix is transposed (symmetric kinds are their own transpose).

    Notes
    -----
    Gradients are those of the polynomial at fixed degree and interval, which is what the product computes.
    """

    weights: Array
    response: Response
    design: Design = field(default=Design(), kw_only=True)

    def __post_init__(self) -> None:
        if arrays.is_complex(self.weights):  # cast to complex: only the response may be
            object.__setattr__(self, "weights", self.weights.real)
        host = arrays.to_numpy(self.weights.data)
        if host.size and not host.min() >= 0:
            msg = f"a spectral filter needs non-negative edge weights, got {host.min():.3g}"
            raise ValueError(msg)

    # --- shape ------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        n = int(self.weights.shape[0])
        return (*self.response.batch, n, n)

    def __repr__(self) -> str:
        size, name = " x ".join(map(str, self.shape)), type(self.response).__name__
        return f"SpectralFilter({size}, {self.dtype}, {name}, {self.design.kind})"

    # --- plans ------------------------------------------------------------------------------------------------------

    @cached_property
    def _edges(self) -> Edges:
        """The edges, and how the Laplacian is made of them."""
        return Edges(self.weights, self.design.kind)

    @cached_property
    def bound(self) -> float:
        """No eigenvalue of the Laplacian exceeds it."""
        if isinstance(self.response, Sampled):
            return self.response.known[0]
        return adjacency_bound(self._edges.adjacency, self.design.kind)

    @cached_property
    def _methods(self) -> Methods:
        """For the random-walk Laplacian the tolerance is that of its symmetric form."""
        return Methods(self._edges, self.response, self.bound, self.design.tol / self._edges.condition)

    @property
    def polynomial(self) -> MatrixFunction:
        """The filter of the symmetric Laplacian as a polynomial."""
        return self._methods.chebyshev.polynomial

    # --- products ---------------------------------------------------------------------------------------------------

    def _matmat(self, X: Array) -> Array:
        sides = self._sides
        if sides is None:
            return self._symmetric(X)
        return sides[0][:, None] * self._symmetric(sides[1][:, None] * X)

    @property
    def _sides(self) -> tuple[Array, Array] | None:
        return self._edges.sides(is_transposed=self.design.is_transposed)

    def _symmetric(self, X: Array) -> Array:
        """The filter of the symmetric Laplacian, by the cheapest method that serves X."""
        for method in self._in_order(X):
            if (Y := method.product(X)) is not None:
                return Y
        return self.polynomial._matmat(X)

    def _in_order(self, X: Array) -> list[Method]:
        """The methods, cheapest first."""
        plan, methods = self._plan(math.prod(X.shape[:-2]) * int(X.shape[-1])), self._methods.by_name
        return [methods[step.method] for step in plan.steps]

    def transpose(self) -> SpectralFilter:
        if self.design.kind != "random_walk":
            return self
        other = Design(self.design.kind, self.design.tol, not self.design.is_transposed)
        return SpectralFilter(self.weights, self.response, design=other)

    def astype(self, dtype: Any, /) -> Any:
        changed = super().astype(dtype)
        return changed if changed.dtype.kind == np.dtype(dtype).kind else changed * (1 + 0j)  # nothing to be complex

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self._joint_pullback(G, X)[2]

    def _joint_pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients]:
        """The product with X, that of the adjoint with G, and the gradients."""
        sides, edges = self._sides, self._edges
        scaled = (G, X) if sides is None else (sides[0][:, None] * G, sides[1][:, None] * X)
        way, Y, Z, inner = self._differentiated(*scaled)
        d_weights = edges.laplacian_pullback(inner["csr"])
        if sides is not None:  # the factors by degrees depend on the weights, too
            products = _row_products(G, Y), _row_products(Z, X)
            d_weights = d_weights + edges.sides_pullback(*products, is_transposed=self.design.is_transposed)
            Y, Z = sides[0][:, None] * Y, sides[1][:, None] * Z
        d_c = inner["coefficients"]
        if isinstance(self.response, Sampled):
            return Y, Z, {"weights": d_weights, "response": {"coefficients": d_c}}
        return Y, Z, {"weights": d_weights, "response": way.response_pullback(self.response, d_c)}

    def _differentiated(self, G: Array, X: Array) -> tuple[Expansion, Array, Array, Gradients]:
        """The cheaper of the two expansions, both products and its gradients."""
        for way in self._in_order(X):
            if isinstance(way, Expansion) and (found := way.pullback(G, X)) is not None:
                return way, *found
        msg = "no expansion serves"  # the one in L always does
        raise AssertionError(msg)

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    def _work(self, columns: int) -> Work:
        return self.polynomial._work(columns)

    def _plan(self, columns: int) -> Plan:
        works = [(name, method.work(columns)) for name, method in self._methods.by_name.items()]
        return make_plan(repr(self), columns, works, home=self._home, precision=arrays.precision(self.weights))

    @property
    def error_bound(self) -> float:
        return math.nan if isinstance(self.response, Sampled) else self.error_estimate

    @property
    def error_estimate(self) -> float:
        """Of whichever method may run."""
        return float(self._edges.condition * max(method.error for method in self._methods.by_name.values()))

    def _norm_bound(self) -> float:
        return self._edges.condition * self.polynomial._norm_bound()

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN


def spectral_filter(
    graph: Any, response: Response | Callable[..., Any], /, *, kind: Kind = "combinatorial", tol: float = 1e-8
) -> SpectralFilter:
    """h(L) for the Laplacian L of a graph, as a structured matrix.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights.
    response : response or callable
        One of `structmask.responses`, whose errors are certified, or a callable on arrays (N,) of eigenvalues, smooth
        on the spectrum, that returns (N,), or (..., N) for several filters at once.
    kind : {"combinatorial", "symmetric", "random_walk"}
        The Laplacian.
    tol : float
        Absolute error in the 2-norm: ||(M - h(L)) X|| <= tol ||X||, up to rounding.

    Returns
    -------
    SpectralFilter (..., n, n)
        With an `error_bound` that includes rounding; for a callable that is nan and `error_estimate` has the figure.

    Raises
    ------
    ValueError
        If the graph is directed, weights are negative, or tol is not positive.

    Warns
    -----
    ConvergenceWarning
        If tol is below the rounding of double precision.

    Notes
    -----
    K products with L, each fused with the recurrence and its sum into one pass, and a few blocks of memory whatever K
    is. Several filters share the recurrence.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import laplacian, responses, spectral_filter
    >>> path = np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
    >>> M = spectral_filter(path, responses.regularized(2.0), tol=1e-10)
    >>> L = laplacian(path).toarray()
    >>> np.allclose(M @ np.eye(5), np.linalg.inv(np.eye(5) + 4.0 * L), atol=1e-10)
    True
    """
    if not callable(response):
        msg = f"a response is one of structmask.responses or a callable on eigenvalues, got {type(response).__name__}"
        raise TypeError(msg)
    if isinstance(response, Response):
        return certified_filter(graph, response, kind, tol)
    upper = _checked(graph, kind, tol)
    edges = Edges(upper, kind)
    bound = adjacency_bound(edges.adjacency, kind)
    coefficients, error = chebyshev_series(response, (0.0, bound), tol / edges.condition)
    return SpectralFilter(upper, Sampled(coefficients, (bound, error)), design=Design(kind, tol))


def certified_filter(graph: Any, response: Response, kind: Kind, tol: float) -> SpectralFilter:
    """As `spectral_filter`, for a named response; warns where the caller of its caller is."""
    M = SpectralFilter(_checked(graph, kind, tol), response, design=Design(kind, tol))
    single = 1.0 if arrays.precision(M.weights) == "float64" else 2.0**-29
    reach = M._methods.reach * single * M._edges.condition
    if tol < reach:
        msg = (
            f"tol={tol:.1e} is below the rounding of {M.polynomial.degree} terms in double precision, about "
            f"{reach:.1e}; raise tol"
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=3)
    return M


def _checked(graph: Any, kind: Kind, tol: float) -> Any:
    """Each edge of a graph once."""
    check_kind(kind)
    if not 0 < tol < math.inf:
        msg = f"tol must be positive and finite, got {tol!r}"
        raise ValueError(msg)
    return scipy.sparse.csr_array(scipy.sparse.triu(undirected(graph, "a spectral filter"), format="csr"))


def _row_products(G: Array, Y: Array) -> Array:
    """Re sum of G conj(Y) over everything but the rows (..., n, k)."""
    xp = arrays.namespace(Y)
    product = xp.moveaxis(G * (xp.conj(Y) if arrays.is_complex(Y) else Y), -2, -1)
    total = xp.sum(product, axis=tuple(range(product.ndim - 1)))
    return xp.real(total) if arrays.is_complex(total) else total
