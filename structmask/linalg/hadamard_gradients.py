"""All gradients of (M * F G^T) X at once: for a mask L R^T, for a sum, and for any mask by products with it.

With the cotangent P, all give them for the mask's generators, for F, for G and for the first columns of X, if wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.composite import Sum
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.hadamard_methods import Sizes, lifted
from structmask.linalg.hadamard_parts import AllGradients, Pullback
from structmask.linalg.low_rank import LowRank

_NEAR = 1 << 17  # numbers of an array that, with a few others, stays in the second cache of a host
_SEVERAL = 4  # features that are worth a product of their own
_ROWS = 1024  # rows of operands that stay in the second cache of a host


def low_rank_pullback(mask: LowRank, F: Array, G: Array, P: Array, X: Array, columns: int) -> AllGradients:
    """Five products a rank, the product itself being two: Z_s = P (G^T R_s X)^H serves L_s and F, and likewise behind.

    (M * F G^T) X = sum_s L_s F T_s with T_s = G^T R_s X, whose cotangent is U_s = (L_s F)^H P; O(n (r + k)) memory.
    """
    if kernels.numba_runs(F, G, P, X, mask.left, mask.right):
        dF, dG, dX, *sides = kernels.low_rank_pullback(F, G, P, X, mask.left, mask.right, columns=columns)
        return _of_factors(mask, *sides), dF, dG, dX if columns else None
    return _low_rank_pullback(mask, F, G, P, X, columns)


def _of_factors(mask: LowRank, d_left: Array, d_right: Array) -> Gradients:
    """Gradients of the factors, summed over the heads that share them."""
    ends = ("left", d_left, mask.left), ("right", d_right, mask.right)
    return {name: unbroadcast(d, tuple(a.shape), complex_=arrays.is_complex(a)) for name, d, a in ends}


def _low_rank_pullback(mask: LowRank, F: Array, G: Array, P: Array, X: Array, columns: int) -> AllGradients:
    """The same by products of arrays."""
    xp = arrays.namespace(X)
    conj = xp.conj if any(map(arrays.is_complex, (mask.left, mask.right, F, G, P, X))) else lambda a: a
    F_, G_, X_ = conj(F), conj(G), conj(X)
    batch = np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, P, X)))
    dtype = xp.result_type(mask.left, mask.right, F, G, P, X)
    lefts, rights = ([conj(a)[..., :, s : s + 1] for s in range(mask.rank)] for a in (mask.left, mask.right))

    def contracted(A: Array, weights: Array, B: Array) -> Array:
        """A^T diag(weights) B."""
        blocks = _row_blocks(A)
        return sum(xp.matrix_transpose(A[..., rows, :]) @ (weights[..., rows, :] * B[..., rows, :]) for rows in blocks)

    def spread(A: Array, inner: list[Array], weights: list[Array], B: Array, *, to_mask: bool) -> tuple[Array, Array]:
        """The sum over s of diag(weights_s) A inner_s, and, for the mask, B's rows times those of A inner_s."""
        total = xp.zeros((*batch, *B.shape[-2:]), dtype=dtype)
        products = xp.zeros((*batch, B.shape[-2], len(inner) if to_mask else 0), dtype=dtype)
        for rows in _row_blocks(A):
            for s, (T, w) in enumerate(zip(inner, weights, strict=True)):
                Z = A[..., rows, :] @ T
                total[..., rows, :] += w[..., rows, :] * Z
                if to_mask:
                    products[..., rows, s] = arrays.row_products(B[..., rows, :], Z)
        return total, products

    T = [contracted(X_, w, G_) for w in rights]
    U = [contracted(F_, w, P) for w in lefts]
    dF, d_left = spread(P, T, lefts, F_, to_mask=True)
    dG, d_right = spread(X_, [xp.matrix_transpose(u) for u in U], rights, G_, to_mask=True)
    U = [u[..., :columns] for u in U]
    dX = spread(G_, U, rights, X_[..., :columns], to_mask=False)[0] if columns else None
    return _of_factors(mask, d_left, d_right), dF, dG, dX


def _row_blocks(A: Array) -> list[slice]:
    """Rows that stay in cache together, on a host."""
    step = _ROWS if arrays.home(A) == "numpy" else max(1, A.shape[-2])
    return [slice(a, b) for a, b in arrays.blocks(A.shape[-2], step)] or [slice(0, 0)]


def stream_pullback(mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array, columns: int) -> AllGradients:
    """Two products a feature, the product itself being one: M (G_r x) gives F_r, M^H (F_r p) gives G_r and X.

    What the mask's own gradient shares with them it makes once, if it has a `_joint_pullback`; what can wait until all
    columns are added up it makes at the end, if it has a `_completed`.
    """
    xp, sizes = arrays.namespace(X), Sizes.of(mask, F, G, X)
    conj = xp.conj if any(map(arrays.is_complex, (F, G, P, X))) or mask.dtype.kind == "c" else lambda a: a
    F_, G_, X_ = conj(F), conj(G), conj(X)
    step = _features_at_a_time(X, sizes.heads * max(sizes.m, sizes.n) * sizes.k)
    lefts: list[Array] = []
    rights: list[Array] = []
    d_mask: Gradients | None = None
    d_operand: Any = 0.0
    for a, b in arrays.blocks(sizes.r, step):
        x, p = lifted(G[..., a:b], X), lifted(F_[..., a:b], P)
        Y, Z, own = _joint(mask, p, x)
        Y, Z = (xp.reshape(z, (*z.shape[:-1], b - a, sizes.k)) for z in (Y, Z))
        lefts.append(xp.sum(P[..., :, None, :] * conj(Y), axis=-1))
        rights.append(xp.sum(X_[..., :, None, :] * Z, axis=-1))
        if columns:
            d_operand = d_operand + xp.sum(G_[..., a:b, None] * Z[..., :columns], axis=-2)
        d_mask = own if d_mask is None else added(d_mask, own)
    if d_mask is not None and (completed := getattr(mask, "_completed", None)):
        d_mask = completed(d_mask)
    return d_mask or {}, xp.concat(lefts, axis=-1), xp.concat(rights, axis=-1), d_operand if columns else None


def _features_at_a_time(X: Array, size: int) -> int:
    """How many, if each takes `size` numbers: on a host as many as stay in its second cache, if that holds several.

    The many arrays on the way are then in memory that is at hand; fresh pages would cost more than the arithmetic.
    """
    near = _NEAR // max(1, size)
    return near if arrays.home(X) != "cupy" and near >= _SEVERAL else max(1, arrays.block_entries(X) // max(1, size))


def _joint(mask: StructuredMatrix, P: Array, X: Array) -> tuple[Array, Array, Gradients]:
    """M X, M^H P, and what adds up to the mask's gradients."""
    if joint := getattr(mask, "_joint_pullback", None):
        found: tuple[Array, Array, Gradients] = joint(P, X)
        return found
    return mask._matmat(X), mask.mH._matmat(P), mask._pullback(P, X) if any(True for _ in mask._leaves()) else {}


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
