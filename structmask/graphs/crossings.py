"""Gradients for the lengths of edges: pairs of nodes, weighted, summed over all paths that cross an edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.tree_kernels import tree_sums
from structmask.graphs.tree import Forest
from structmask.graphs.tree_table import row_blocks
from structmask.linalg.base import StructuredMatrix

if TYPE_CHECKING:
    from structmask.graphs.panels import Panels


def length_gradient(forest: Forest, slope: Panels | StructuredMatrix, G: Array, X: Array) -> Array:
    """Gradient (n,) of Re <G, M X> for the lengths of the edges from nodes to their parents.

    A length enters the distances of the pairs whose path crosses its edge: the gradient is the sum over them of
    f'(dist) Re (<G_i, X_j> + <G_j, X_i>).

    Parameters
    ----------
    forest : Forest
        The trees.
    slope : Panels or StructuredMatrix
        f'(dist(i, j)), real, as a plan for host arrays, or with entries.
    G, X : arrays (..., n, k)
        Cotangent and operand.
    """
    G, X = forest.padded(G), forest.padded(X)
    if not (arrays.is_complex(G) and arrays.is_complex(X)):
        xp = arrays.namespace(X)
        G, X = (xp.real(a) if arrays.is_complex(a) else a for a in (G, X))
    if isinstance(slope, StructuredMatrix):
        return _by_rows(forest, slope, G, X)
    batch = np.broadcast_shapes(G.shape[:-2], X.shape[:-2])
    return slope.crossings(*(_columns(a, batch) for a in (G, X)))


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
        weights = xp.real(weights) if arrays.is_complex(weights) else weights
        weights = xp.sum(xp.reshape(weights, (-1, *weights.shape[-2:])), axis=0)
        below, _ = tree_sums(sweep, ones, weights * slope._at(columns[:, None], rows[None, :]))
        ancestors = forest.ancestors(sweep.order[:, None], rows[None, :])
        outside = ancestors != columns[:, None] + 1
        total = total + xp.sum(xp.where(outside, below, xp.zeros_like(below)), axis=-1)
    return xp.take(xp.where(columns < forest.roots, xp.zeros_like(total), total), sweep.position)
