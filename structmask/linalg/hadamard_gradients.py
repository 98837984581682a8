"""All gradients of (M * F G^T) X at once for masks of simple form: a mask L R^T, and a sum.

With the cotangent P, both give them for the mask's generators, for F, for G and for the first columns of X, if wanted.
"""

from __future__ import annotations

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.composite import Sum
from structmask.linalg.generators import unbroadcast
from structmask.linalg.hadamard_parts import AllGradients, Pullback
from structmask.linalg.low_rank import LowRank


def low_rank_pullback(mask: LowRank, F: Array, G: Array, P: Array, X: Array, columns: int) -> AllGradients:
    """Five products a rank, the product itself being two: Z_s = P (G^T R_s X)^H serves L_s and F, and likewise behind.

    (M * F G^T) X = sum_s L_s F T_s with T_s = G^T R_s X, whose cotangent is U_s = (L_s F)^H P; O(n (r + k)) memory.
    """
    xp = arrays.namespace(X)
    conj = xp.conj if any(map(arrays.is_complex, (mask.left, mask.right, F, G, P, X))) else lambda a: a
    F_, G_, X_ = conj(F), conj(G), conj(X)
    batch = np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, P, X)))
    total = [xp.zeros((*batch, *a.shape[-2:]), dtype=P.dtype) for a in (F, G, X[..., :columns])]
    d_left, d_right = (xp.zeros((*batch, a.shape[-2], 0), dtype=P.dtype) for a in (F, G))
    for s in range(mask.rank):
        left, right = mask.left[..., :, s : s + 1], mask.right[..., :, s : s + 1]
        Z = P @ (xp.matrix_transpose(conj(right) * X_) @ G_)
        U = xp.matrix_transpose(F_) @ (conj(left) * P)
        W = X_ @ xp.matrix_transpose(U)
        d_left = xp.concat([d_left, arrays.row_products(F_, Z)[..., None]], axis=-1)
        d_right = xp.concat([d_right, arrays.row_products(G_, W)[..., None]], axis=-1)
        parts = conj(left) * Z, conj(right) * W, conj(right) * (G_ @ U[..., :columns])
        total = [a + b for a, b in zip(total, parts, strict=True)]
    ends = zip(("left", "right"), (d_left, d_right), (mask.left, mask.right), strict=True)
    d_mask = {name: unbroadcast(d, tuple(a.shape), complex_=arrays.is_complex(a)) for name, d, a in ends}
    return d_mask, total[0], total[1], total[2] if columns else None


def sum_pullback(mask: Sum, F: Array, G: Array, P: Array, X: Array, pullback: Pullback) -> AllGradients:
    """(A + B) * R = A * R + B * R: gradients term by term."""
    d_mask, parts = {}, []
    for index, term in enumerate(mask.terms):
        d_mask[index], *gradients = pullback(term, F, G, P, X)
        parts.append(gradients)
    dF, dG, dX = parts[0]
    for part in parts[1:]:
        dF, dG, dX = dF + part[0], dG + part[1], None if dX is None else dX + part[2]
    return {"terms": d_mask}, dF, dG, dX
