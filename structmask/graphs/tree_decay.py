"""Decay along the paths of a tree: products of factors, one an edge, in two sweeps."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.backends.tree_kernels import tree_hadamard, tree_hadamard_pullback, tree_product, tree_sums
from structmask.graphs.tree import Forest, root_sums
from structmask.graphs.tree_building import as_forest
from structmask.graphs.tree_polynomial import TreePolynomial
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work

if TYPE_CHECKING:
    from structmask.linalg.hadamard import Kind
    from structmask.linalg.hadamard_methods import Sizes


@dataclass(frozen=True, eq=False, repr=False)
class TreeDecay(StructuredMatrix):
    """M_ij = product of the factors of the edges between i and j, 1 on the diagonal, 0 between trees.

    Made by `tree_decay`, either from `factors`, or from `rate` and `lengths`: then the factors are
    exp(-rate lengths) and M_ij = exp(-rate dist(i, j)).

    Parameters
    ----------
    forest : Forest
        The trees.
    rate : float, complex or array (...)
        Decay a unit of length; an array is a batch.
    lengths : array (..., n)
        Lengths of the edges from nodes to their parents.
    factors : array (..., n)
        Factors of the edges from nodes to their parents; those at roots are not used.
    """

    forest: Forest
    rate: Any = None
    lengths: Any = None
    factors: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.factors is not None:
            batch = tuple(self.factors.shape[:-1])
        else:
            batch = np.broadcast_shapes(tuple(getattr(self.rate, "shape", ())), tuple(self.lengths.shape[:-1]))
        return (*batch, self.forest.visible, self.forest.visible)

    def _place(self, width: str, target: str) -> Self:
        """Moved only: factors are multiplied along paths, which would multiply their rounding."""
        moved = {name: arrays.move(x, target) if hasattr(x, "dtype") else x for name, x in self._generators()}
        return dataclasses.replace(self, **moved)

    def _of_nodes(self) -> Array:
        """Factors (..., n), in double precision, in the caller's order."""
        if self.factors is not None:
            return arrays.cast_precision(self.factors, "float64")
        lengths = arrays.cast_precision(self.lengths, "float64")
        xp = arrays.namespace(lengths)
        return xp.exp(-_column(self.rate) * lengths)

    @cached_property
    def edge_factors(self) -> Array:
        """Factors (..., n) by position, zero at roots."""
        e, home = self._of_nodes(), arrays.home(self._of_nodes())
        xp, roots = arrays.namespace(e), self.forest.roots
        e = xp.take(e, self.forest.sweep(home).order, axis=-1)
        return xp.concat([xp.zeros_like(e[..., :roots]), e[..., roots:]], axis=-1)

    def _matmat(self, X: Array) -> Array:
        forest, home = self.forest, arrays.home(X)
        shrinks = home == "numpy" and self._shrinks
        Y = tree_product(forest.sweep(home), self.edge_factors, forest.padded(X), shrinks=shrinks)
        return forest.shown(Y)

    def transpose(self) -> TreeDecay:
        return self

    def _norm_bound(self) -> float:
        """The largest row sum of absolute values: those of factors, for those of rates and lengths bound nothing."""
        factors = self._of_nodes()
        xp = arrays.namespace(factors)
        absolute = TreeDecay(self.forest, factors=xp.abs(factors))
        return (
            float(xp.max(absolute._matmat(xp.ones((self.shape[-1], 1), dtype=xp.float64)))) if self.shape[-1] else 0.0
        )

    # --- masked attention -------------------------------------------------------------------------------------------

    def _scans(self, kind: Kind) -> bool:
        """Whether both sweeps can run for one feature after the other, without a product with the mask for each."""
        if kind.home != "numpy" or not kind.real or self.dtype.kind == "c" or get_backend() == "numpy":
            return False
        return self._shrinks

    @cached_property
    def _shrinks(self) -> bool:
        return bool((np.abs(self.edge_factors) <= 1).all())

    def _scan(self, F: Array, G: Array, X: Array) -> Array:
        F, G, X = map(self.forest.padded, (F, G, X))
        return self.forest.shown(tree_hadamard(self.forest.sweep("numpy"), self.edge_factors, F, G, X))

    def _scan_pullback(self, F: Array, G: Array, P: Array, X: Array) -> tuple[Gradients, Array, Array, Array]:
        """Gradients of <P, (M * F G^T) X> for the mask, F, G and X."""
        forest, sweep = self.forest, self.forest.sweep("numpy")
        dF, dG, dX, of_factors = tree_hadamard_pullback(sweep, self.edge_factors, *map(forest.padded, (F, G, P, X)))
        d_mask = self._gradients(np.take(of_factors, sweep.position, axis=-1))
        return d_mask, forest.shown(dF), forest.shown(dG), forest.shown(dX)

    def _scan_work(self, sizes: Sizes) -> Work:
        wide = 8 * -(-(sizes.k + 1) // 8)
        return Work(scan=14.0 * sizes.heads * self.forest.size * sizes.r * wide, calls=2)

    # --- gradient ---------------------------------------------------------------------------------------------------

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """An edge is crossed by what is below it on one side and by everything else on the other.

        With S and R the two sums for X, and P and T those for G and conjugate factors, the gradient for a factor is
        P conj(R) + T conj(S), summed over columns.
        """
        xp, sweep, e = arrays.namespace(X), self.forest.sweep(arrays.home(X)), self.edge_factors
        conj = xp.conj if any(map(arrays.is_complex, (e, G, X))) else _same
        S, R = tree_sums(sweep, e, self.forest.padded(X))
        P, T = tree_sums(sweep, conj(e), self.forest.padded(G))
        return self._gradients(xp.take(xp.sum(P * conj(R) + T * conj(S), axis=-1), sweep.position, axis=-1))

    def _gradients(self, gradient: Array) -> Gradients:
        """Those of the generators from the gradient (..., n) for the factors, in the caller's order."""
        if self.factors is not None:
            return {"factors": self._folded(gradient, self.factors)}
        xp, f, rate = arrays.namespace(gradient), self._of_nodes(), _column(self.rate)
        conj = xp.conj if any(map(arrays.is_complex, (f, gradient))) else _same
        by_rate = xp.sum(conj(-self.lengths * f) * gradient, axis=-1)
        by_length = conj(-rate * f) * gradient
        return {"rate": self._folded(by_rate, self.rate), "lengths": self._folded(by_length, self.lengths)}

    @staticmethod
    def _folded(gradient: Array, parameter: Any) -> Array:
        """A gradient in the shape and precision of its parameter."""
        total = unbroadcast(gradient, tuple(getattr(parameter, "shape", ())), complex_=arrays.is_complex(parameter))
        return arrays.cast_precision(total, arrays.precision(parameter)) if hasattr(parameter, "dtype") else total

    # --- entries ----------------------------------------------------------------------------------------------------

    @cached_property
    def _sums(self) -> tuple[tuple[Array, Array], Array | None, Array | None]:
        """Sums along paths from the roots: of lengths, or of logarithms of factors, of zeros, of signs."""
        home = arrays.home(self.lengths if self.factors is None else self.factors)
        sweep = self.forest.sweep(home)
        values = arrays.cast_precision(self.lengths if self.factors is None else self.factors, "float64")
        xp = arrays.namespace(values)
        values = xp.take(values, sweep.order, axis=-1)
        if self.factors is None:
            return root_sums(sweep.up, values), None, None
        zero = values == 0
        size = xp.where(zero, xp.ones_like(values), values)
        real = not arrays.is_complex(values)
        logarithms = root_sums(sweep.up, xp.log(xp.abs(size) if real else size))
        ones, zeros = xp.ones_like(logarithms[0]), xp.zeros_like(logarithms[0])
        signs = root_sums(sweep.up, xp.where(values < 0, ones, zeros))[0] if real and bool(xp.any(values < 0)) else None
        count = root_sums(sweep.up, xp.where(zero, ones, zeros))[0] if bool(xp.any(zero)) else None
        return logarithms, count, signs

    def _at(self, i: Array, j: Array) -> Array:
        xp, forest = arrays.namespace(i), self.forest
        i, j = xp.broadcast_arrays(i, j)
        ancestors = forest.ancestors(i, j)
        sums, zeros, signs = self._sums
        exponent = forest.path_sums(sums, i, j, ancestors)
        if self.factors is None:
            rate = self.rate
            exponent = -(rate if isinstance(rate, float | complex) else rate[(..., *(None,) * i.ndim)]) * exponent
        value = xp.exp(exponent)
        if signs is not None:
            value = value * (1 - 2 * (forest.path_sums((signs, xp.zeros_like(signs)), i, j, ancestors) % 2))
        inside = ancestors > 0
        if zeros is not None:
            inside = inside & (xp.real(forest.path_sums((zeros, xp.zeros_like(zeros)), i, j, ancestors)) == 0)
        return xp.where(inside, value, xp.zeros_like(value))

    @property
    def _entry_bytes(self) -> float:
        return 600.0

    def _work(self, columns: int) -> Work:
        heads, n = math.prod(self.shape[:-2]), self.forest.size
        return Work(scan=6.0 * heads * n * columns, calls=1)


def _column(rate: Any) -> Any:
    """A rate beside lengths."""
    return rate[..., None] if hasattr(rate, "dtype") else rate


def _same(a: Array) -> Array:
    return a


def tree_decay(
    tree: Any, /, rate: Any = None, *, factors: Any = None, polynomial: Any = None
) -> TreeDecay | TreePolynomial:
    """Decay mask of a tree or forest: exp(-rate dist(i, j)), or the product of one factor an edge.

    Parameters
    ----------
    tree : Forest or graph
        As for `as_forest`. Its lengths become a parameter of the mask, with a gradient.
    rate : float, complex or array (...), optional
        Decay a unit of length. An array makes a batch, one mask a head. Complex rates a + ib give exp(-a dist) times
        a wave in the distance, and the mean of the masks of a + ib and a - ib is exp(-a dist) cos(b dist). A rate
        below zero grows.
    factors : array (..., n), optional
        In place of a rate: the factor of the edge from each node to its parent. Laplace transforms of random lengths
        (`random_lengths`) give the expected mask.
    polynomial : array (Q,), optional
        Coefficients of a polynomial in the distance, the constant first, that multiplies exp(-rate dist).

    Returns
    -------
    TreeDecay or TreePolynomial
        The mask, 0 between trees. A product costs O(n) a column, or O(n Q^2) with a polynomial, whatever the depth.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import as_forest, tree_decay
    >>> tree = as_forest(parents=[-1, 0, 0, 1], lengths=[0.0, 1.0, 2.0, 1.0])
    >>> M = tree_decay(tree, np.log(2.0))
    >>> M.to_dense()
    array([[1.    , 0.5   , 0.25  , 0.25  ],
           [0.5   , 1.    , 0.125 , 0.5   ],
           [0.25  , 0.125 , 1.    , 0.0625],
           [0.25  , 0.5   , 0.0625, 1.    ]])
    >>> x = np.arange(4.0)
    >>> np.allclose(M @ x, M.to_dense() @ x)
    True
    """
    if (rate is None) == (factors is None):
        msg = "tree_decay takes a rate or factors=, one of them"
        raise TypeError(msg)
    forest = as_forest(tree)
    if polynomial is not None:
        if rate is None:
            msg = "a polynomial goes with a rate, not with factors"
            raise TypeError(msg)
        return TreePolynomial(forest, polynomial, rate)
    if factors is not None:
        factors = arrays.as_array(factors, "tree_decay(factors)")
        if factors.ndim < 1 or factors.shape[-1] != forest.size:
            msg = f"tree_decay of {forest!r} needs factors (..., {forest.size}), got shape {tuple(factors.shape)}"
            raise ValueError(msg)
        return TreeDecay(forest, factors=factors)
    if isinstance(rate, int | float | complex):
        rate = rate if isinstance(rate, complex) else float(rate)
        return TreeDecay(forest, rate=rate, lengths=forest.lengths)
    rate = arrays.as_array(rate, "tree_decay(rate)")
    return TreeDecay(forest, rate=rate, lengths=arrays.move(forest.lengths, arrays.home(rate)))
