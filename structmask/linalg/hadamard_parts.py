"""Masks made of parts: the elementwise product falls apart likewise, and each part takes its own best method.

Every function is given `product`, which multiplies by mask * (F G^T) for one part and returns the result and its row
sums, or `pullback`, which returns the gradients for the mask, F, G and, if they are wanted, X of one part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal, Bordered, stacked
from structmask.linalg.buckets import Buckets
from structmask.linalg.composite import Scaled, Sum
from structmask.linalg.exponential_sum import ExponentialSum
from structmask.linalg.generators import Gradients, zero_gradients
from structmask.linalg.hadamard_methods import Result, Sizes
from structmask.linalg.planning import Work
from structmask.linalg.state_space import StateSpace
from structmask.linalg.stationary import Stationary

Part: TypeAlias = Callable[[StructuredMatrix, Array, Array, Array], Result]
Cost: TypeAlias = Callable[[StructuredMatrix, Sizes], Work]
AllGradients: TypeAlias = tuple[Gradients, Array, Array, Array | None]  # for the mask, F, G and, if wanted, X
Pullback: TypeAlias = Callable[[StructuredMatrix, Array, Array, Array, Array], AllGradients]


# --- sums and multiples -----------------------------------------------------------------------------------------------


def terms(mask: Sum | Scaled, F: Array, G: Array, X: Array, product: Part) -> Result:
    """(A + B) * R = A * R + B * R, and (s A) * R = s (A * R)."""
    (Y, mass), *others = (product(term, F, G, X) for term in _terms(mask))
    for more, mass_more in others:
        Y, mass = Y + more, mass + mass_more
    return (mask.factor * Y, mask.factor * mass) if isinstance(mask, Scaled) else (Y, mass)


def terms_work(mask: Sum | Scaled, sizes: Sizes, cost: Cost) -> Work:
    """That of the terms."""
    return sum((cost(term, sizes) for term in _terms(mask)), Work())


def _terms(mask: Sum | Scaled) -> tuple[StructuredMatrix, ...]:
    return mask.terms if isinstance(mask, Sum) else (mask.matrix,)


# --- blocks -----------------------------------------------------------------------------------------------------------


def blocks(mask: BlockDiagonal, F: Array, G: Array, X: Array, product: Part) -> Result:
    """Rows of a block meet its own columns only."""
    results = []
    for block, rows, columns in mask.places():
        f, g, x = F[..., rows, :], G[..., columns, :], X[..., columns, :]
        results.append(_nothing(f, x) if 0 in block.shape else product(block, f, g, x))
    batch = _common_batch(mask, F, G, X)
    Y, mass = zip(*results, strict=True)
    return stacked(list(Y), batch), stacked([part[..., None] for part in mass], batch)[..., 0]


def blocks_work(mask: BlockDiagonal, sizes: Sizes, cost: Cost) -> Work:
    """That of the blocks, and a pass over the result."""
    total = Work(bytes=8.0 * sizes.heads * sizes.m * sizes.k, calls=1)
    for block in mask.blocks:
        m, n = block.shape[-2:]
        total = total + (Work() if 0 in (m, n) else cost(block, dataclasses.replace(sizes, m=m, n=n)))
    return total


def blocks_pullback(mask: BlockDiagonal, F: Array, G: Array, P: Array, X: Array, pullback: Pullback) -> AllGradients:
    """Gradients block by block."""
    d_blocks, parts = {}, []
    for index, (block, rows, columns) in enumerate(mask.places()):
        operands = F[..., rows, :], G[..., columns, :], P[..., rows, :], X[..., columns, :]
        if 0 in block.shape:
            f, g, _, x = operands
            d_blocks[index], *gradients = zero_gradients(block, X), *map(_zeros_like, (f, g, x))
        else:
            d_blocks[index], *gradients = pullback(block, *operands)
        parts.append(gradients)
    batch = _common_batch(mask, F, G, P, X)
    dF, dG, dX = ([part[i] for part in parts] for i in range(3))
    of_x = None
    if all(part is not None for part in dX):
        columns = min(part.shape[-1] for part in dX)  # what all blocks have
        of_x = stacked([part[..., :columns] for part in dX], batch)
    return {"blocks": d_blocks}, stacked(dF, batch), stacked(dG, batch), of_x


# --- global tokens ----------------------------------------------------------------------------------------------------


def border(mask: Bordered, F: Array, G: Array, X: Array, product: Part) -> Result:
    """The border has rank one, so its share costs little whether entries or moments G^T X are formed.

    With T the global tokens, R the others and v the value of the border: rows of T are F_T (G_T^T X_T + v G_R^T X_R),
    rows of R those of the inner mask and v F_R G_T^T X_T.
    """
    (F_T, F_R), (G_T, G_R), (X_T, X_R) = map(mask.split, (F, G, X))
    few = mask.count * (F.shape[-1] + X.shape[-1]) <= F.shape[-1] * X.shape[-1]
    share = _by_entries if few else _by_moments
    v, batch = mask.weight(2), _common_batch(mask, F, G, X)
    own, others, rest = share(F_T, G_T, X_T, 1.0), share(F_T, G_R, X_R, v), share(F_R, G_T, X_T, v)
    inner = _nothing(F_R, X_R) if 0 in mask.mask.shape else product(mask.mask, F_R, G_R, X_R)
    Y, mass = ([a + b, c + d] for a, b, c, d in zip(own, others, inner, rest, strict=True))
    return stacked(Y, batch), stacked([part[..., None] for part in mass], batch)[..., 0]


def _by_entries(F: Array, G: Array, X: Array, v: Any) -> Result:
    """Product v F G^T X and row sums, for few rows or few columns."""
    xp = arrays.namespace(X)
    A = v * (F @ xp.matrix_transpose(G))
    return A @ X, xp.sum(A, axis=-1)


def _by_moments(F: Array, G: Array, X: Array, v: Any) -> Result:
    """The same by F (v G^T X), for many."""
    xp = arrays.namespace(X)
    return F @ (v * (xp.matrix_transpose(G) @ X)), (F @ (v * xp.sum(G, axis=-2)[..., None]))[..., 0]


def border_work(mask: Bordered, sizes: Sizes, cost: Cost) -> Work:
    """That of the inner mask, two thin products and a pass over the result."""
    m, n = mask.mask.shape[-2:]
    rows = float(sizes.heads * (m + n))
    flops = min(sizes.r * sizes.k, mask.count * (sizes.r + sizes.k))
    own = Work(gemm=2 * rows * flops, bytes=8 * rows * (sizes.r + 2 * sizes.k), calls=8)
    return own if 0 in (m, n) else own + cost(mask.mask, dataclasses.replace(sizes, m=m, n=n))


def _of(dX: Array, moments: Array) -> Array:
    """Transposed moments for the columns of X that a gradient has."""
    return arrays.namespace(moments).matrix_transpose(moments)[..., : dX.shape[-1]]


def border_pullback(mask: Bordered, F: Array, G: Array, P: Array, X: Array, pullback: Pullback) -> AllGradients:
    """Gradients of the border from moments of its two sides.

    With S = X^H conj(G) and L = P^T conj(F), of the global tokens and of the others, dF is P S, dG is conj(X) L, and
    the gradient of the value is the sum of the entries of L_T * S_R + L_R * S_T; that of X is conj(G) L^T.
    """
    xp = arrays.namespace(X)
    conj = _conjugate if any(map(arrays.is_complex, (F, G, P, X, mask.value))) else _same
    (F_T, F_R), (G_T, G_R), (P_T, P_R), (X_T, X_R) = map(mask.split, (F, G, P, X))
    v = conj(mask.weight(2))
    S_T, S_R = (xp.matrix_transpose(conj(x)) @ conj(g) for g, x in ((G_T, X_T), (G_R, X_R)))
    L_T, L_R = (xp.matrix_transpose(p) @ conj(f) for f, p in ((F_T, P_T), (F_R, P_R)))
    if 0 in mask.mask.shape:
        d_mask, dF, dG, dX = zero_gradients(mask.mask, X), _zeros_like(F_R), _zeros_like(G_R), _zeros_like(X_R)
    else:
        d_mask, dF, dG, dX = pullback(mask.mask, F_R, G_R, P_R, X_R)
    d_value = mask.value_gradient(xp.sum(L_T * S_R + L_R * S_T, axis=(-2, -1)))
    batch = _common_batch(mask, F, G, P, X)
    return (
        {"mask": d_mask, "value": d_value},
        stacked([P_T @ (S_T + v * S_R), dF + P_R @ (v * S_T)], batch),
        stacked([conj(X_T) @ (L_T + v * L_R), dG + conj(X_R) @ (v * L_T)], batch),
        None if dX is None else stacked([conj(G_T) @ _of(dX, L_T + v * L_R), dX + conj(G_R) @ _of(dX, v * L_T)], batch),
    )


# --- windows ----------------------------------------------------------------------------------------------------------


def band(mask: Band, F: Array, G: Array, X: Array, _: Part) -> Result:
    """Tiles along the diagonal, a block of rows and the columns it meets at a time; accurate row by row."""
    xp, Y, mass = arrays.namespace(X), [], []
    adjoint = xp.matrix_transpose(G)
    for rows, columns, tile in mask.tiles():
        A = (F[..., rows, :] @ adjoint[..., :, columns]) * tile
        Y.append(A @ X[..., columns, :])
        mass.append(xp.sum(A, axis=-1))
    return xp.concat(Y, axis=-2), xp.concat(mass, axis=-1)


def band_work(mask: Band, sizes: Sizes, _: Cost) -> Work:
    """Two products and a pass a tile."""
    area = sizes.heads * mask.tile_area
    return Work(gemm=2 * area * (sizes.r + sizes.k), bytes=16 * area, calls=1 + 0.4 * mask.tile_count)


def band_gradient(mask: Band, F: Array, G: Array, P: Array, X: Array) -> Gradients:
    """Entries (P X^H)_ij conj(F G^T)_ij of the tiles, summed along diagonals; F is conjugated already."""
    xp = arrays.namespace(X)
    conj = _conjugate if any(map(arrays.is_complex, (G, X))) else _same
    x, g = xp.matrix_transpose(conj(X)), xp.matrix_transpose(conj(G))
    return mask.gradient(
        (rows, (P[..., rows, :] @ x[..., :, columns]) * (F[..., rows, :] @ g[..., :, columns]))
        for rows, columns, _ in mask.tiles()
    )


# --- tables of offsets ------------------------------------------------------------------------------------------------


def toeplitz(mask: Band | Buckets | Stationary, F: Array, G: Array, X: Array, product: Part) -> Result:
    """The same mask as a Toeplitz matrix, by its best method."""
    return product(mask.toeplitz, F, G, X)


def toeplitz_work(mask: Band | Buckets | Stationary, sizes: Sizes, cost: Cost) -> Work:
    """That of the Toeplitz matrix."""
    return cost(mask.toeplitz, sizes)


def toeplitz_pullback(
    mask: Buckets | Stationary, F: Array, G: Array, P: Array, X: Array, pullback: Pullback
) -> AllGradients:
    """Gradients of the Toeplitz matrix; that of its table goes on to the generators."""
    d_table, *others = pullback(mask.toeplitz, F, G, P, X)
    return mask.gradient(d_table["offsets"]), *others


# --- helpers ----------------------------------------------------------------------------------------------------------


def _nothing(F: Array, X: Array) -> Result:
    """The result of a part without columns (or rows)."""
    xp = arrays.namespace(X)
    return xp.zeros((*F.shape[:-1], X.shape[-1]), dtype=X.dtype), xp.zeros(F.shape[:-1], dtype=X.dtype)


def _conjugate(a: Any) -> Any:
    return a.conjugate() if isinstance(a, float | complex) else arrays.namespace(a).conj(a)


def _same(a: Any) -> Any:
    return a


def _zeros_like(a: Array) -> Array:
    return arrays.namespace(a).zeros_like(a)


def _common_batch(mask: StructuredMatrix, *operands: Array) -> tuple[int, ...]:
    return np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in operands))


METHODS: dict[type[StructuredMatrix], tuple[str, ...]] = {
    Sum: ("terms",),
    Scaled: ("terms",),
    BlockDiagonal: ("blocks",),
    Bordered: ("border",),
    Band: ("band", "toeplitz"),
    Buckets: ("toeplitz",),
    ExponentialSum: ("toeplitz",),
    StateSpace: ("toeplitz",),
}
NAMES = frozenset(name for names in METHODS.values() for name in names)
PULLBACKS: dict[type[StructuredMatrix], Any] = {
    BlockDiagonal: blocks_pullback,
    Bordered: border_pullback,
    Buckets: toeplitz_pullback,
    ExponentialSum: toeplitz_pullback,
    StateSpace: toeplitz_pullback,
}
