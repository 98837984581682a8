"""Kernels from sampled walks, with gradients for how visits are weighted.

    F_iv = sum_l D_ivl f_l,     D_ivl the mean load, over walks from i, at their l-th node where that is v

F is linear in the modulation f, so that its entries are D f for a sparse D with a row for every entry of F and a column
for every step. The kernel is F G^T, the rows of F divided by |F_i|^alpha; the chain rule is one product with D^T.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.graphs.walks import Walks, inverse_power, inverse_power_pullback
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.low_rank import LowRank


@dataclass(frozen=True, eq=False, repr=False)
class SampledKernel(LowRank):
    """F G^T of features of sampled walks; `random_walk_kernel` and `graph_random_features` make one.

    Parameters
    ----------
    walks : tuple of two Walks
        Whose features are the factors; twice the same for one ensemble.
    modulation : array (T,)
        f, for both factors unless there is another one.
    other : array (T,), optional
        The modulation of the second factor.
    alpha : float, or 0
        Rows are divided by their norm to this power. A row of zero norm stays zero.

    Notes
    -----
    A product is one with two sparse factors. Gradients need D, made once by drawing the walks again: at most as many
    numbers as nodes were visited.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import random_walk_kernel
    >>> ring = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
    >>> kernel = random_walk_kernel(ring, 3, walks=10, rng=0)
    >>> np.allclose(kernel @ np.ones(6), kernel.to_dense() @ np.ones(6))
    True
    >>> sorted(kernel.pullback(np.ones((6, 1)), np.ones((6, 1))))
    ['alpha', 'modulation']
    """

    left: Any = field(init=False)
    right: Any = field(init=False)
    walks: tuple[Walks, Walks]
    modulation: Array
    other: Array | None = None
    alpha: float | complex | int = 0

    def __post_init__(self) -> None:
        for name in ("modulation", "other"):
            if (f := getattr(self, name)) is not None:
                self._check(name, f)
        left = self._factor(self.walks[0], self.modulation)
        one = self.walks[0] is self.walks[1] and self.other is None
        right = left if one else self._factor(self.walks[1], self._modulations[1])
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "right", right)

    def __repr__(self) -> str:
        plan = self.walks[0].plan
        return f"{super().__repr__()[:-1]}, {plan.walks} walks of {plan.length} nodes)"

    def _check(self, name: str, f: Any) -> None:
        f = arrays.as_array(f, name)
        length = self.walks[name == "other"].plan.length
        if tuple(f.shape) != (length,):
            msg = f"the walks have {length} steps, so {name} has shape ({length},), got {tuple(f.shape)}"
            raise ValueError(msg)
        object.__setattr__(self, name, f)

    @property
    def _modulations(self) -> tuple[Array, Array]:
        return self.modulation, self.modulation if self.other is None else self.other

    def _factor(self, walks: Walks, f: Array) -> Any:
        F = walks.features(f)
        if self.alpha != 0:
            F = type(F)((F.data * self._powers(F)[walks.rows(F.data)], F.indices, F.indptr), shape=F.shape)
        return arrays.cast_precision(F, arrays.precision(f))

    def _powers(self, F: Any) -> Array:
        """|F_i|^-alpha, by the plain product."""
        return inverse_power(_row_sums(F, F.data * F.data), self.alpha)

    def _with(self, **changes: Any) -> Self:
        """Other fields, factors included: walks are not drawn again."""
        other = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(other, name, value)
        return other

    def _map(self, function: Callable[[Any], Any]) -> Self:
        left = function(self.left)
        right = left if self.right is self.left else function(self.right)
        return self._with(left=left, right=right, **{name: function(x) for name, x in self._generators()})

    def _place(self, width: str, target: str) -> Self:
        return self._map(lambda x: arrays.cast_precision(arrays.move(x, target), width) if hasattr(x, "dtype") else x)

    def transpose(self) -> Self:
        f, g = self._modulations
        other = None if self.other is None else f
        return self._with(left=self.right, right=self.left, walks=self.walks[::-1], modulation=g, other=other)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        d = super()._pullback(G, X)
        first = self._through(self.walks[0], self.modulation, d["left"])
        second = self._through(self.walks[1], self._modulations[1], d["right"])
        if self.other is None:
            return added(first, second)
        gradients = {"modulation": first["modulation"], "other": second["modulation"]}
        return gradients | ({"alpha": first["alpha"] + second["alpha"]} if "alpha" in first else {})

    def _through(self, walks: Walks, f: Array, d: Array) -> Gradients:
        """Gradients for the modulation and for alpha, from those of the entries of a factor."""
        width, complex_ = arrays.precision(d), arrays.is_complex(f)
        d_f: Gradients = {}
        if isinstance(self.alpha, float | complex):
            d, d_alpha = self._through_norms(walks, f, d)
            d_alpha = unbroadcast(d_alpha, (), complex_=isinstance(self.alpha, complex))
            d_f["alpha"] = arrays.cast_precision(d_alpha, width)
        gradient = unbroadcast(walks.collected(d), tuple(f.shape), complex_=complex_)
        return {"modulation": arrays.cast_precision(gradient, width), **d_f}

    def _through_norms(self, walks: Walks, f: Array, d: Array) -> tuple[Array, Array]:
        """From gradients of s_i F_iv, s = q^(-alpha/2), q_i = sum_v F_iv^2, those of F_iv and of alpha."""
        F, rows = walks.with_entries(walks.weighted(f)), walks.rows(d)
        q, conjugate = _row_sums(F, F.data * F.data), arrays.conj(F.data)
        s = inverse_power(q, self.alpha)
        d_q, d_alpha = inverse_power_pullback(q, s, self.alpha, _row_sums(F, d * conjugate))
        return d * arrays.conj(s)[rows] + 2 * conjugate * d_q[rows], d_alpha


def _row_sums(F: Any, values: Array) -> Array:
    """Sums (n,) of values at the entries of a sparse matrix, row by row."""
    ones = arrays.namespace(values).ones((F.shape[1], 1), dtype=values.dtype)
    return kernels.csr_product(F, values, ones)[:, 0]
