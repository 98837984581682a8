"""Polynomials times exponentials of the distance in a tree: derivatives of decay masks, in the same two sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import factorial

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.crossings import DistanceMask, length_gradient
from structmask.graphs.tree import Forest
from structmask.graphs.tree_table import both, by_rows, folded, real_view, runs_merges, unfolded
from structmask.linalg.generators import Gradients
from structmask.linalg.planning import Work


@dataclass(frozen=True, eq=False, repr=False)
class TreePolynomial(DistanceMask):
    """M_ij = sum_q coefficients[q] d^q exp(-rate d), d = dist(i, j), and 0 between trees.

    `tree_decay` makes it.

    Parameters
    ----------
    forest : Forest
        The trees.
    coefficients : array (Q,)
        Of the polynomial, the constant first; real.
    rate : float
        Decay a unit of length, at least 0.
    lengths : array (n,), optional
        Lengths in the place of the forest's, a generator too: on the host, in double precision.
    """

    forest: Forest
    coefficients: Array
    rate: float
    lengths: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        coefficients = arrays.as_array(self.coefficients, "tree_decay(coefficients)")
        object.__setattr__(self, "coefficients", coefficients)
        given: Any = self.rate
        rate = given.item() if getattr(given, "shape", None) == () else given
        if coefficients.ndim != 1 or not coefficients.shape[0]:
            msg = f"a polynomial needs coefficients (Q,), Q >= 1, got shape {tuple(coefficients.shape)}"
            raise ValueError(msg)
        if not isinstance(rate, int | float | complex):
            msg = f"a polynomial times an exponential needs one rate, got {type(rate).__name__}; add masks for several"
            raise TypeError(msg)
        object.__setattr__(self, "rate", rate if isinstance(rate, complex) else float(rate))

    @property
    def _sweeps(self) -> bool:
        """Whether the kernel of power series applies: real factors that do not grow."""
        return not isinstance(self.rate, complex) and self.rate >= 0

    def _matmat(self, X: Array) -> Array:
        if not (runs_merges(X) and self._sweeps):
            return by_rows(self, X)
        parts = [self._moments(part[:, None] * self._factorials, X)[0] for part in both(self.coefficients)]
        Y = parts[0] if not arrays.is_complex(self.coefficients) else parts[0] + 1j * parts[1]
        return Y.astype(np.result_type(Y, X), copy=False)

    @property
    def _factorials(self) -> Array:
        return factorial(np.arange(self.coefficients.shape[0]))[:, None]

    def _moments(self, weights: Array, X: Array) -> list[Array]:
        """Combinations of D_q X / q!, with D_q of entries d^q exp(-rate d)."""
        from structmask.backends._numba.tree_jets import tree_jets

        forest, padded = self.forest, self.forest.padded(X)
        sweep, lengths = forest.sweep("numpy"), forest.lengths[forest.order]
        e = np.exp(-self.rate * lengths)
        x = folded(padded)
        Y = tree_jets(sweep.order, sweep.up, sweep.roots, e, lengths, weights, real_view(x)[None])
        parts = [unfolded(part.view(x.dtype), padded.shape) for part in Y[0]]
        return [forest.shown(np.ascontiguousarray(part)) for part in parts]

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """<G, D_q X> for coefficients, -sum_q c_q <G, D_(q+1) X> for the rate, for lengths what crosses their edges."""
        xp, Q = arrays.namespace(X), int(self.coefficients.shape[0])
        if runs_merges(X) and self._sweeps:
            products = self._moments(np.diag(factorial(np.arange(Q + 1))), X)
        else:
            unit = xp.eye(Q + 1, dtype=self.coefficients.dtype)
            products = [by_rows(TreePolynomial(self.forest, unit[q, : q + 1], self.rate), X) for q in range(Q + 1)]
        inner = xp.stack([xp.sum(G * (xp.conj(Y) if arrays.is_complex(Y) else Y)) for Y in products])
        c = self.coefficients
        rate = -xp.sum((xp.conj(c) if arrays.is_complex(c) else c) * inner[1:])
        real = [xp.real(a) if arrays.is_complex(a) else a for a in (inner[:-1], rate)]
        d_c = inner[:-1] if arrays.is_complex(c) else real[0]
        d_rate = rate if isinstance(self.rate, complex) else real[1]
        d_c = arrays.cast(d_c, arrays.dtype_name(c))
        return {"coefficients": d_c, "rate": d_rate, "lengths": self._length_gradient(G, X)}

    def _length_gradient(self, G: Array, X: Array) -> Array:
        forest, c = self.forest, arrays.cast_precision(self.coefficients, "float64")
        xp, slope = arrays.namespace(c), -self.rate * c
        powers = xp.arange(1, int(c.shape[0]), dtype=xp.float64)
        slope = xp.concat([slope[:-1] + powers * c[1:], slope[-1:]])
        if not (runs_merges(X) and self._sweeps):
            return length_gradient(forest, TreePolynomial(forest, slope, self.rate), G, X)
        found = length_gradient(forest, partial(self._crossings, slope.real), G, X)
        if arrays.is_complex(c):  # Re i z conj(g) = Re z conj(-i g)
            found = found + length_gradient(forest, partial(self._crossings, slope.imag), -1j * G, X)
        return found

    def _crossings(self, coefficients: Array, G: Array, X: Array) -> Array:
        """Sums over the pairs across each edge, by node, weighted by a polynomial times the exponential."""
        from structmask.backends._numba.tree_jet_crossings import tree_jet_crossings

        sweep, lengths = self.forest.sweep("numpy"), self.forest.lengths[self.forest.order]
        weights = coefficients * self._factorials[:, 0]
        e = np.exp(-self.rate * lengths)
        found = tree_jet_crossings(sweep.order, sweep.up, sweep.first, sweep.roots, e, lengths, weights, G, X)
        return found[sweep.position]

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        i, j = xp.broadcast_arrays(i, j)
        distances = self.forest.distances(i, j)
        inside = xp.isfinite(distances)
        d = xp.where(inside, distances, xp.zeros_like(distances))
        value = xp.zeros_like(d)
        for q in range(int(self.coefficients.shape[0]) - 1, -1, -1):
            value = value * d + self.coefficients[q]
        value = value * xp.exp(-self.rate * d)
        return xp.where(inside, value, xp.zeros_like(value))

    def _work(self, columns: int) -> Work:
        n, m = self.forest.size, int(self.coefficients.shape[0])
        if not (runs_merges(np.empty(0)) and self._sweeps):
            return Work(gemm=2.0 * n * n * columns, calls=1)
        return Work(scan=3.0 * n * m * (m + 1) * 8 * -(-columns // 8), calls=1)
