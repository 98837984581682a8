"""Masks with learnable edge lengths, and the gradient: weighted pairs of nodes, summed over paths across an edge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.tree_kernels import tree_sums
from structmask.graphs.tree import Forest
from structmask.graphs.tree_building import as_forest
from structmask.graphs.tree_table import row_blocks
from structmask.linalg.base import StructuredMatrix


class DistanceMask(StructuredMatrix):
    """M_ij depends on dist(i, j). Its fields `lengths` and `forest` agree: new lengths make a new forest.

    Lengths stay real, in double precision, and on the host, whatever the matrix is.
    """

    forest: Forest
    lengths: Any

    def __post_init__(self) -> None:
        if self.lengths is not None and self.lengths is not self.forest.lengths:
            object.__setattr__(self, "forest", as_forest(self.forest, lengths=arrays.to_numpy(self.lengths)))
        object.__setattr__(self, "lengths", self.forest.lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.forest.visible, self.forest.visible)

    def transpose(self) -> Self:
        return self

    def _others(self) -> dict[str, Any]:
        return {name: value for name, value in self._generators() if name != "lengths"}

    def _leaves(self) -> Iterator[Any]:
        yield from self._others().values()

    def _map(self, function: Callable[[Any], Any]) -> Self:
        return dataclasses.replace(self, **{name: function(value) for name, value in self._others().items()})

    def _place(self, width: str, target: str) -> Self:
        def placed(value: Any) -> Any:
            return arrays.cast_precision(arrays.move(value, target), width) if hasattr(value, "dtype") else value

        return self._map(placed)

    @property
    def _entry_bytes(self) -> float:
        return 600.0


def length_gradient(
    forest: Forest, slope: Callable[[Array, Array], Array] | StructuredMatrix, G: Array, X: Array
) -> Array:
    """Gradient (n,) of Re <G, M X> for the lengths of the edges from nodes to their parents.

    A length enters the distances of the pairs whose path crosses its edge: the gradient is the sum over them of
    Re f'(dist) (<G_i, X_j> + <G_j, X_i>).

    Parameters
    ----------
    forest : Forest
        The trees.
    slope : callable or StructuredMatrix
        The sums of f'(dist) (<G_i, X_j> + <G_j, X_i>) across each edge, a function of G and X (n, columns), real and
        on the host; or f'(dist(i, j)) itself, with entries.
    G, X : arrays (..., n, k)
        Cotangent and operand.
    """
    G, X = forest.padded(G), forest.padded(X)
    if isinstance(slope, StructuredMatrix):
        return _by_rows(forest, slope, G, X)
    if not (arrays.is_complex(G) and arrays.is_complex(X)):
        G, X = np.real(G), np.real(X)
    batch = np.broadcast_shapes(G.shape[:-2], X.shape[:-2])
    return slope(*(_columns(a, batch) for a in (G, X)))


def _columns(a: Array, batch: tuple[int, ...]) -> Array:
    """An operand (..., n, k) as real columns (n, _) in double precision."""
    full = np.moveaxis(np.broadcast_to(a, (*batch, *a.shape[-2:])), -2, 0).reshape(a.shape[-2], -1)
    parts = [full.real, full.imag] if np.iscomplexobj(full) else [full]
    return np.hstack(parts).astype(np.float64, copy=False)


def _by_rows(forest: Forest, slope: StructuredMatrix, G: Array, X: Array) -> Array:
    """From all pairs, a block of rows at a time: sums over the subtree below each edge, for the rows not in it."""
    xp, home = arrays.namespace(X), arrays.home(X)
    sweep, columns = forest.sweep(home), xp.arange(forest.size)
    ones = xp.astype(xp.arange(forest.size) >= forest.roots, xp.float64)
    total = xp.zeros(forest.size, dtype=xp.float64)
    conj = xp.conj if arrays.is_complex(G) else lambda a: a
    for a, b in row_blocks(slope, X):
        rows = columns[a:b]
        weights = conj(G) @ xp.matrix_transpose(X[..., a:b, :]) + X @ xp.matrix_transpose(conj(G[..., a:b, :]))
        weights = xp.sum(xp.reshape(weights, (-1, *weights.shape[-2:])), axis=0)
        weights = weights * slope._at(columns[:, None], rows[None, :])
        below, _ = tree_sums(sweep, ones, xp.real(weights) if arrays.is_complex(weights) else weights)
        ancestors = forest.ancestors(sweep.order[:, None], rows[None, :])
        outside = ancestors != columns[:, None] + 1
        total = total + xp.sum(xp.where(outside, below, xp.zeros_like(below)), axis=-1)
    return xp.take(xp.where(columns < forest.roots, xp.zeros_like(total), total), sweep.position)
