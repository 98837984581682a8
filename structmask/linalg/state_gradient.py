"""Gradients of masked attention with a state-space mask, by chunks as its product.

Beyond the tiles a block of the mask is O A^(d-B) Z (`state_scan`). The moments of keys and queries in a chunk,

    mu_s = sum_q Z_sq g_q x_q^T,    nu_s = sum_p O_ps f_p p_p^T,

drive states, S_c = sum_d A^(d-B) mu_(c-d) forwards and T_c = sum_d (A^T)^(d-B) nu_(c+d) backwards, and these are all
that is needed: with (w, w') = (S_s p_p, T_s x_q)

    dF_p = sum_s O_ps S_s p_p,   dG_q = sum_s Z_sq T_s x_q,   dX_q = sum_s Z_sq T_s^T g_q,
    dO_ps = <f_p, S_s p_p>,      dZ_sq = <g_q, T_s x_q>,      dA = sum_c T_c S_(c+B-1)^T.

Tiles give the rest of dF, dG and dX, and sums along diagonals the gradient for their part of the mask's table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from structmask.backends import arrays, kernels, state_kernels
from structmask.backends.arrays import Array
from structmask.linalg import chunk_basis
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.state_scan import STANDARD_CHUNK, Chunks, alike, cut, entering_states, uncut

if TYPE_CHECKING:
    from structmask.linalg.stationary import Stationary


def pullback(
    mask: Stationary, F: Array, G: Array, P: Array, X: Array, columns: int
) -> tuple[Gradients, Array, Array, Array]:
    """Gradients of <P, (M * F G^T) X> for the generators of M, for F, G and the first columns of X; everything real.

    Five products with the states of a chunk and five with its tiles, where the product itself takes two of each.
    """
    if kernels.numba_runs(F, G, P, X):
        size = chunk_basis.cheapest(mask, "float32", 1, int(F.shape[-1]), int(X.shape[-1]))[0].chunks.size
        chunks = Chunks(mask, size)
        rows, parts = _compiled(chunks, F, G, P, X, columns)
    else:
        chunks = Chunks(mask, min(STANDARD_CHUNK, mask.n))
        rows, parts = _standard(chunks, F, G, P, X)
    dF, dG, dX = rows
    return _of_mask(chunks, parts, arrays.precision(X)), dF, dG, dX[..., :columns]


def _has_far(chunks: Chunks) -> bool:
    return chunks.count > chunks.reach and chunks.mask.rank > 0


def _of_mask(chunks: Chunks, parts: list[Array], precision: str) -> Gradients:
    """The gradient for the generators from those for O and Z^T (..., C, p), A (..., 2, r, r) and the table's middle."""
    mask, batch = chunks.mask, chunks.mask.shape[:-2]
    dO, dZ, dA, table = (
        unbroadcast(a, (*batch, *a.shape[len(a.shape) - tail :]), complex_=False)
        for a, tail in zip(parts, (2, 2, 3, 1), strict=True)
    )
    spare = max(0, (int(table.shape[-1]) + 1) // 2 - mask.n)  # rows and columns of padding are zero
    total = mask.gradient(table[..., spare : table.shape[-1] - spare])
    if not _has_far(chunks):
        return total
    xp, rows, columns = arrays.namespace(dO), 0.0, 0.0
    for own, above in _sides(mask):
        o, z = (a[..., own.start : own.stop] for a in (dO, dZ))
        rows = rows + (xp.flip(o, axis=-2) if above else o)  # above the diagonal both are read backwards
        columns = columns + xp.matrix_transpose(z if above else xp.flip(z, axis=-2))  # by growing powers
    step = xp.sum(dA, axis=-3)
    return added(total, mask.states_gradient(chunks.first, rows, columns, step, precision))


def _sides(mask: Stationary) -> Iterator[tuple[range, bool]]:
    """Where the states of each side stand among those of all, and whether they are for entries above the diagonal."""
    here = (above for above in (False, True) if mask.sides[above])
    for side, above in enumerate(here):
        yield range(side * mask.rank, (side + 1) * mask.rank), above


def _sided(chunks: Chunks) -> tuple[Array, Array]:
    """O and Z^T (..., C, p) of all sides, one beside the other."""
    rows, columns = chunks.factors()
    xp = arrays.namespace(rows)
    keys = xp.matrix_transpose(columns)
    here = [(rows, keys), (xp.flip(rows, axis=-2), xp.flip(keys, axis=-2))]
    left, right = zip(*(pair for pair, there in zip(here, chunks.mask.sides, strict=True) if there), strict=True)
    return xp.concat(list(left), axis=-1), xp.concat(list(right), axis=-1)


def _compiled(chunks: Chunks, F: Array, G: Array, P: Array, X: Array, columns: int) -> tuple[list[Array], list[Array]]:
    """By the kernel. A counts as two numbers, whose sum is good to double precision."""
    mask, precision = chunks.mask, arrays.precision(X)
    batch, r = mask.shape[:-2], mask.rank
    tiles = [np.broadcast_to(chunks.tile(d), (*batch, chunks.size, chunks.size)) for d in chunks.distances]
    step = np.broadcast_to(mask.steps(chunks.size), (*batch, r, r))
    rounded = step.astype(precision).astype(np.float64)
    step = np.stack([rounded, step - rounded], axis=-3)
    places = chunks.reach, chunks.distances.start, mask.sides
    return state_kernels.state_pullback(
        (F, G, P, X), np.stack(tiles, axis=-3), _sided(chunks), (step, step.swapaxes(-1, -2)), places, batch, columns
    )


# --- by array operations ----------------------------------------------------------------------------------------------


def _standard(chunks: Chunks, F: Array, G: Array, P: Array, X: Array) -> tuple[list[Array], list[Array]]:
    """The same by batched products, some columns at a time."""
    f, g, p, x = operands = [cut(a, chunks) for a in (F, G, P, X)]
    rows, table = _near(chunks, *operands)
    xp, mask, r = arrays.namespace(x), chunks.mask, chunks.mask.rank
    batch = table.shape[:-1]
    ends = (chunks.size, r * sum(mask.sides)), (chunks.size, r * sum(mask.sides)), (2, r, r)
    parts = [xp.zeros((*batch, *end), dtype=xp.float64) for end in ends]
    if _has_far(chunks):
        size = math.prod(batch) * chunks.count * 2 * r * int(F.shape[-1])
        step = max(1, arrays.block_entries(x) // max(1, size))
        for a, b in arrays.blocks(int(x.shape[-1]), step):
            _far(chunks, (f, g, p[..., a:b], x[..., a:b]), rows, parts, slice(a, b))
    return [uncut(a, mask.n) for a in rows], [*parts, table]


def _near(chunks: Chunks, f: Array, g: Array, p: Array, x: Array) -> tuple[list[Array], Array]:
    """What tiles give to dF, dG and dX, and sums of (P X^T)_ij (F G^T)_ij along diagonals, some chunks at a time."""
    xp, C, N, mT = arrays.namespace(x), chunks.size, chunks.count, arrays.namespace(x).matrix_transpose
    batch = np.broadcast_shapes(chunks.mask.shape[:-2], *(tuple(a.shape[:-3]) for a in (f, g, p, x)))
    rows = [xp.zeros((*batch, *a.shape[-3:]), dtype=x.dtype) for a in (f, g, x)]
    middle = min(chunks.reach, N) * C
    table = xp.zeros((*batch, 2 * middle - 1), dtype=x.dtype)
    step = max(1, arrays.block_entries(x) // max(1, math.prod(batch) * C * C))
    for d in chunks.distances:
        tile, total = alike(chunks.tile(d)[..., None, :, :], x)[0], 0.0
        for a, b in arrays.blocks(N - abs(d), step):
            i, j = slice(a + max(d, 0), b + max(d, 0)), slice(a + max(-d, 0), b + max(-d, 0))
            f_i, p_i, g_j, x_j = (s[..., at, :, :] for s, at in ((f, i), (p, i), (g, j), (x, j)))
            R, Q = f_i @ mT(g_j), p_i @ mT(x_j)
            total = total + xp.sum(R * Q, axis=-3)
            D, E = tile * Q, tile * R
            rows[0][..., i, :, :] += D @ g_j
            rows[1][..., j, :, :] += mT(D) @ f_i
            rows[2][..., j, :, :] += mT(E) @ p_i
        start = middle + (d - 1) * C
        table[..., start : start + 2 * C - 1] += _along_diagonals(total)
    return rows, table


def _along_diagonals(D: Array) -> Array:
    """Sums of D_pq (..., C, C) over p - q = 1 - C, ..., C - 1."""
    xp, C = arrays.namespace(D), D.shape[-1]
    wide = xp.concat([xp.flip(D, axis=-1), xp.zeros_like(D)], axis=-1)  # a row is one longer than the result
    skewed = xp.reshape(xp.reshape(wide, (*D.shape[:-2], -1))[..., : C * (2 * C - 1)], (*D.shape[:-2], C, 2 * C - 1))
    return xp.sum(skewed, axis=-2)


def _far(
    chunks: Chunks, operands: tuple[Array, Array, Array, Array], rows: list[Array], parts: list[Array], columns: slice
) -> None:
    """Add what states give for some columns of P and X."""
    f, g, p, x = operands
    xp, mT = arrays.namespace(x), arrays.namespace(x).matrix_transpose
    left, right = (alike(a[..., None, :, :], x)[0] for a in _sided(chunks))
    for own, above in _sides(chunks.mask):
        S = _states(chunks, _moments(right, g, x, own), flipped=above, transposed=False)
        T = _states(chunks, _moments(left, f, p, own), flipped=not above, transposed=True)
        parts[2][..., int(above), :, :] += _step_gradient(chunks, S, T, above=above)
        for s, d in enumerate(own):
            shape = (*S.shape[:-2], int(f.shape[-1]), int(x.shape[-1]))
            S_s, T_s = xp.reshape(S[..., s, :], shape), xp.reshape(T[..., s, :], shape)
            w, v = p @ mT(S_s), x @ mT(T_s)
            parts[0][..., d] += _over_chunks(f, w)
            parts[1][..., d] += _over_chunks(g, v)
            rows[0] += left[..., d : d + 1] * w
            rows[1] += right[..., d : d + 1] * v
            rows[2][..., columns] += right[..., d : d + 1] * (g @ T_s)


def _moments(weights: Array, g: Array, x: Array, directions: range) -> Array:
    """Moments sum_q weights_qd g_q x_q^T of every chunk (..., N, r, m k)."""
    xp, moments = arrays.namespace(x), []
    for d in directions:
        moment = xp.matrix_transpose(g * weights[..., d : d + 1]) @ x
        moments.append(xp.reshape(moment, (*moment.shape[:-2], 1, -1)))
    return xp.concat(moments, axis=-2)


def _states(chunks: Chunks, H: Array, *, flipped: bool, transposed: bool) -> Array:
    """States that moments drive, forwards or, flipped, backwards."""
    xp = arrays.namespace(H)
    if not flipped:
        return entering_states(chunks, H, transposed=transposed)
    return xp.flip(entering_states(chunks, xp.flip(H, axis=-3), transposed=transposed), axis=-3)


def _step_gradient(chunks: Chunks, S: Array, T: Array, *, above: bool) -> Array:
    """sum_c T_c S_(c+B-1)^T, or the same backwards, in double precision."""
    xp, ahead, N = arrays.namespace(S), chunks.reach - 1, chunks.count
    early, late = slice(0, N - ahead), slice(ahead, N)
    T, S = (T[..., late, :, :], S[..., early, :, :]) if above else (T[..., early, :, :], S[..., late, :, :])
    return xp.sum(arrays.cast_precision(T @ xp.matrix_transpose(S), "float64"), axis=-3)


def _over_chunks(features: Array, rows: Array) -> Array:
    """<features_p, rows_p> for each place p of a chunk, summed over chunks, in double precision."""
    return arrays.namespace(rows).sum(arrays.cast_precision(arrays.row_products(features, rows), "float64"), axis=-2)
