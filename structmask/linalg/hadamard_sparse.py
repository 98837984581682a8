"""Gradients of masked products where something is sparse: the mask, or the features.

Of a sparse mask two products are sampled at its stored entries; of sparse features a few columns are dense at a time.
"""

from __future__ import annotations

import math

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Diagonal, Sparse
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.hadamard_methods import features
from structmask.linalg.hadamard_parts import Pullback
from structmask.linalg.low_rank import LowRank


def sparse_mask_gradient(mask: Sparse, F: Array, G: Array, P: Array, X: Array) -> Gradients:
    """(P X^H) * conj(F G^T) at the stored entries, F conjugated already; O(nnz (r + k))."""
    xp, A = arrays.namespace(X), mask.csr
    conj = xp.conj if any(map(arrays.is_complex, (F, G, P, X))) else lambda a: a
    F, P, G, X = arrays.as_same_kind(F, P, conj(G), conj(X))
    values = kernels.sampled_product(A, mask._rows, F, G) * kernels.sampled_product(A, mask._rows, P, X)
    return {"csr": unbroadcast(values, tuple(A.data.shape), complex_=arrays.is_complex(A))}


def diagonal_mask_gradient(mask: Diagonal, F: Array, G: Array, P: Array, X: Array) -> Gradients:
    """The same on the diagonal: <P_i, X_i> <F_i, G_i>."""
    xp = arrays.namespace(X)
    conj = xp.conj if any(map(arrays.is_complex, (F, G, P, X))) else lambda a: a
    F, P, G, X = arrays.as_same_kind(F, P, conj(G), conj(X))
    values = arrays.row_products(F, G) * arrays.row_products(P, X)
    return {"d": unbroadcast(values, tuple(mask.d.shape), complex_=arrays.is_complex(mask.d))}


def sparse_features_pullback(
    mask: StructuredMatrix, low_rank: LowRank, P: Array, X: Array, pullback: Pullback
) -> Gradients:
    """Gradients of Re <P, (M * F G^T) X> for the mask's generators and the stored entries of F and G."""
    xp, n = arrays.namespace(X), max(mask.shape[-2:])
    left, right, _ = low_rank._sides
    step = max(1, arrays.block_entries(X) // max(1, n * math.prod(P.shape[:-2])))
    d_mask: Gradients | None = None
    d_left, d_right = (xp.zeros(f.csr.data.shape, dtype=f.csr.data.dtype) for f in (left, right))
    for a, b in arrays.blocks(low_rank.rank, step):
        F, G = features(low_rank.left, a, b), features(low_rank.right, a, b)
        part, *dense, _ = pullback(mask, F, G, P, X)
        d_mask = part if d_mask is None else added(d_mask, part)
        sides = [_sampled(side, d, a, b) for side, d in zip((left, right), dense, strict=True)]
        d_left, d_right = d_left + sides[0], d_right + sides[1]
    return {"mask": d_mask or {}, "low_rank": {"left": d_left, "right": d_right}}


def _sampled(sparse: Sparse, gradient: Array, a: int, b: int) -> Array:
    """A gradient (..., n, b - a) for columns a ... b - 1, at the stored entries of a sparse matrix; zero beyond."""
    xp, columns = arrays.namespace(gradient), sparse.csr.indices
    gradient = unbroadcast(gradient, (sparse.shape[0], b - a), complex_=arrays.is_complex(sparse.csr))
    inside = (columns >= a) & (columns < b)
    values = gradient[sparse._rows, xp.where(inside, columns - a, xp.zeros_like(columns))]
    return xp.where(inside, values, xp.zeros_like(values))
