"""The random-walk graph-nodes kernel: two nodes are alike if short walks from them meet the same nodes.

Walks take an edge with probability proportional to its weight, P = D^-1 W, and stop with probability s before each
step. F_iv is the mean, over walks from i, of discount^l summed over the visits l of v. Then

    E[F] = sum_{l < length} (discount (1 - s))^l P^l,     M_ij = <F_i, F_j> / (|F_i| |F_j|)^alpha

Theorem. With F in place of its samples, M is a product of two polynomials in P between two diagonals; the squared norms
are |F_i|^2 = sum_lm c_l c_m H_ilm with H_ilm = <e_i P^l, e_i P^m>, rows of powers that only reach nodes nearby.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays, walk_kernels
from structmask.backends.arrays import Array
from structmask.graphs.sampled_kernel import SampledKernel
from structmask.graphs.walks import (
    Walks,
    check_count,
    check_real,
    check_stop,
    generator,
    inverse_power,
    inverse_power_pullback,
    transition,
    walk_plan,
    walkable,
)
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal
from structmask.linalg.elementary import Sparse
from structmask.linalg.generators import Gradients, added, cast_gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.power_series import PowerSeries

_GRAM_ENTRIES = 1 << 22  # numbers of H held at a time


@dataclass(frozen=True, eq=False, repr=False)
class RandomWalkKernel(StructuredMatrix):
    """<F_i, F_j> / (|F_i| |F_j|)^alpha for F = sum_l c_l P^l; `random_walk_kernel` makes one.

    Parameters
    ----------
    series : PowerSeries (..., n, n)
        F, a polynomial in a Sparse matrix.
    alpha : float
        Zero for inner products, one for cosines. A row of zero norm gives a zero row and column.

    Notes
    -----
    A product costs 2 (T - 1) sparse products for T coefficients. Norms cost once what the walks of T nodes reach from
    every node, and O(n) memory. Gradients are total ones: they include those through the norms.
    """

    series: PowerSeries
    alpha: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.series.shape

    @cached_property
    def _transposed(self) -> PowerSeries:
        return self.series.transpose()

    def _matmat(self, X: Array) -> Array:
        if self.alpha == 0:
            return self.series._matmat(self._transposed._matmat(X))
        s = self._scale(X)[..., None]
        return s * self.series._matmat(self._transposed._matmat(s * X))

    def transpose(self) -> RandomWalkKernel:
        return self

    def _work(self, columns: int) -> Work:
        return self.series._work(columns) * 2

    def __repr__(self) -> str:
        return f"RandomWalkKernel({self.series.matrix!r}, length {self.series.length}, alpha={self.alpha:g})"

    # --- norms ------------------------------------------------------------------------------------------------------

    @cached_property
    def _double(self) -> tuple[Array, Array]:
        """P and the coefficients in double precision: norms are sums of many squares."""
        csr = self.series.matrix.csr  # type: ignore[attr-defined]  # the matrix is a Sparse one
        return arrays.cast_precision(csr, "float64"), arrays.cast_precision(self.series.coefficients, "float64")

    def _grams(self) -> Iterator[tuple[range, Array]]:
        """Rows and H (rows, T, T) for them; remembered where small."""
        if (known := self.__dict__.get("_gram")) is not None:
            yield known
            return
        (P, _), n, T = self._double, self.shape[-1], self.series.length
        step = max(1, _GRAM_ENTRIES // T**2)
        for a, b in arrays.blocks(n, step):
            rows = range(a, b)
            H = walk_kernels.power_gram(P, rows, T)
            if b - a == n:
                self.__dict__["_gram"] = rows, H
            yield rows, H

    @cached_property
    def _squares(self) -> Array:
        """Squared norms (..., n) of the rows of F, by the plain product: an analytic function of complex generators."""
        c = self._double[1]
        xp = arrays.namespace(c)
        q = xp.concat([xp.sum(_applied(H, c) * c[..., None, :], axis=-1) for _, H in self._grams()], axis=-1)
        return q if arrays.is_complex(q) else xp.where(q > 0, q, xp.zeros_like(q))

    @cached_property
    def _power(self) -> Array:
        """|F_i|^-alpha, in double precision; zero for rows of zero norm."""
        return inverse_power(self._squares, self.alpha)

    def _scale(self, like: Array) -> Array:
        return arrays.cast_precision(self._power, arrays.precision(like))

    # --- gradients --------------------------------------------------------------------------------------------------

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return self._completed(self._joint_pullback(G, X)[2])

    def _joint_pullback(self, G: Array, X: Array) -> tuple[Array, Array, Gradients]:
        """M X, M^H G, and what adds up to the gradients: that of the series at fixed norms, and that of S.

        With U = F^T S X and V = F^H conj(S) G these are the gradients of F for both; what F^T makes of S X on the way
        to U serves twice.
        """
        xp, F, s = arrays.namespace(X), self.series, self._scale(X)[..., None]
        complex_ = any(map(arrays.is_complex, (G, X))) or self.dtype.kind == "c"
        conj = xp.conj if complex_ else lambda a: a
        x, g = s * X, conj(s) * G
        (U, inward), (V, outward) = F._adjoint(conj(x)), F._adjoint(g)
        Y, first = F._forward(g, conj(U), outward)
        Z, second = F._forward(conj(x), conj(V), inward)
        Z, series = conj(Z), added(first, second)
        d_scale = xp.sum(G * conj(Y) + Z * conj(X), axis=-1)
        return s * Y, conj(s) * Z, {"series": series, "scale": arrays.cast_precision(d_scale, "float64")}

    def _completed(self, parts: Gradients) -> Gradients:
        """The gradients, of sums of what `_joint_pullback` gives: through norms once, for they ask for every walk."""
        series, width = parts["series"], arrays.precision(parts["series"]["coefficients"])
        squares, d_alpha = self._through_power(parts["scale"])
        if self.alpha != 0:
            series = added(series, cast_gradients(self._through_norms(squares), width))
        return {"series": series, "alpha": arrays.cast_precision(d_alpha, width)}

    def _through_power(self, d_scale: Array) -> tuple[Array, Array]:
        """Gradients for the squared norms q and for alpha of s = q^(-alpha / 2)."""
        d_squares, d_alpha = inverse_power_pullback(self._squares, self._power, self.alpha, d_scale)
        d_alpha = unbroadcast(d_alpha, (), complex_=isinstance(self.alpha, complex))
        shape = tuple(self._squares.shape)
        return unbroadcast(d_squares, shape, complex_=arrays.is_complex(self._squares)), d_alpha

    def _through_norms(self, d_squares: Array) -> Gradients:
        """Gradients of q_i = sum_lm c_l c_m H_ilm for the coefficients and the entries of P."""
        P, c = self._double
        xp = arrays.namespace(c)
        complex_ = arrays.is_complex(c)
        conj = xp.conj if complex_ else lambda a: a
        sources, d_csr, d_c = self.series.matrix._rows, 0.0, 0.0  # type: ignore[attr-defined]
        c = conj(c)
        pairs = xp.reshape(c[..., :, None] * c[..., None, :], (-1, 1, self.series.length, self.series.length))
        for rows, H in self._grams():
            dq = d_squares[..., rows.start : rows.stop]
            d_c = d_c + 2 * xp.sum(dq[..., None] * _applied(conj(H), c), axis=-2)
            weights = xp.sum(xp.reshape(dq, (-1, len(rows), 1, 1)) * pairs, axis=0)
            d_csr = d_csr + walk_kernels.power_gram_pullback(P.conj() if complex_ else P, sources, rows, weights)
        own = arrays.is_complex(P)
        return {
            "matrix": {"csr": unbroadcast(d_csr, (P.data.shape[0],), complex_=own)},
            "coefficients": unbroadcast(d_c, tuple(self.series.coefficients.shape), complex_=complex_),
        }


def random_walk_kernel(
    graph: Any,
    length: int,
    /,
    *,
    walks: int | None = None,
    stop: float = 0.0,
    discount: float = 1.0,
    alpha: float = 1.0,
    repelling: bool = False,
    rng: Any = None,
) -> StructuredMatrix:
    """Random-walk graph-nodes kernel, exact or from sampled walks.

    F_iv is the mean over walks from i of discount^l summed over the visits l = 0, 1, ... of v, and the kernel is
    M_ij = <F_i, F_j> / (|F_i| |F_j|)^alpha.

    Parameters
    ----------
    graph : anything `as_adjacency` takes, or a list of graphs
        Edges are taken with probability proportional to their weights, which are not negative; a walk ends at a node
        without edges. The kernels of a list are the blocks of a BlockDiagonal.
    length : int
        Nodes of a walk, the start included; at least one.
    walks : int, optional
        Sample as many walks from every node. By default F is its expectation, exactly.
    stop : float
        Probability in [0, 1) that a walk stops before each step.
    discount : float
        Weight of a visit relative to the one before it.
    alpha : float
        Exponent of the norms: 1 for cosines, 0 for inner products.
    repelling : bool
        Sampled walks that meet avoid each other's next step: each is distributed as before, means vary less.
    rng : seed or numpy.random.Generator, optional
        The same seed gives the same walks on every backend and for any number of threads.

    Returns
    -------
    StructuredMatrix (n, n)
        Exact: a product costs 2 (length - 1) sparse products; its parameters are the entries of P, the coefficients
        and alpha. Sampled: a LowRank with sparse factors of at most walks (length - 1) + 1 entries a row; its
        parameters are the weights of the steps (`modulation`, discount^l at first) and alpha.

    Raises
    ------
    ValueError
        If the length or the number of walks is below one, stop not in [0, 1), or a weight negative.

    Notes
    -----
    Sampled F is unbiased, with standard deviations that fall as walks^-1/2. Off the diagonal so is F F^T, before rows
    are normalised; on the diagonal the same walks count twice.

    References
    ----------
    Choromanski et al. (2022), From block-Toeplitz matrices to differential equations on graphs.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import random_walk_kernel
    >>> path = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> F = np.eye(3) + path / path.sum(axis=1, keepdims=True)
    >>> kernel = random_walk_kernel(path, 2, alpha=0.0)
    >>> np.allclose(kernel.to_dense(), F @ F.T)
    True
    """
    options = _Options(length, walks, stop, discount, alpha, repelling)
    draw = generator(rng)
    if _is_batch(graph):
        return BlockDiagonal(tuple(_kernel(one, options, draw) for one in graph))
    return _kernel(graph, options, draw)


@dataclass(frozen=True)
class _Options:
    length: int
    walks: int | None
    stop: float
    discount: float
    alpha: float
    repelling: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", check_count(self.length, "length", "nodes of a walk, the start included"))
        if self.walks is not None:
            object.__setattr__(self, "walks", check_count(self.walks, "walks", "walks from every node"))
        check_stop(self.stop)
        for name, value in (("discount", self.discount), ("alpha", self.alpha)):
            check_real(value, name)
            if not math.isfinite(value):
                msg = f"{name} must be a finite number, got {value!r}"
                raise ValueError(msg)


def _kernel(graph: Any, options: _Options, rng: np.random.Generator) -> StructuredMatrix:
    W = walkable(graph)
    powers = np.arange(options.length)
    if options.walks is None:
        c = ((options.discount * (1 - options.stop)) ** powers).astype(W.dtype)
        return RandomWalkKernel(PowerSeries(Sparse(transition(W)), c), float(options.alpha))
    plan = walk_plan(options.length, options.walks, options.stop, rng, repelling=options.repelling)
    sampled = Walks(W, np.ones(0), plan)
    modulation = (float(options.discount) ** powers).astype(W.dtype)
    return SampledKernel((sampled, sampled), modulation, alpha=float(options.alpha))


def _is_batch(graph: Any) -> bool:
    """Whether this is a list of graphs, and not the rows of one dense matrix."""
    return isinstance(graph, list | tuple) and any(
        getattr(g, "ndim", None) == 2 or not isinstance(g, list | tuple | np.ndarray | float | int | np.number)
        for g in graph
    )


def _applied(H: Array, c: Array) -> Array:
    """H_i c (..., rows, T) for H (rows, T, T) and c (..., T)."""
    return (H @ c[..., None, :, None])[..., 0]
