"""The gradient of masked attention for the generators of a state-space mask, by chunks as its product.

With D_ij = (P X^T)_ij (F G^T)_ij, the gradient for an entry of the mask, tiles give sums of D along their diagonals.
Beyond them a block of the mask is O A^(d-B) Z, and what O, Z and A = a^C need of D is made of moments of queries and
keys in a chunk,

    nu = sum_p U_p f_p (x) p_p,    mu = sum_q U_q g_q (x) x_q,

the states S that mu drives forwards, and those that nu drives backwards. U spans O and Z and all they may become when
the generators move: sequences of the recurrence of a, and of its square, in a chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structmask.backends import arrays, kernels, state_kernels
from structmask.backends.arrays import Array
from structmask.linalg.generators import Gradients, added, unbroadcast
from structmask.linalg.state_scan import Chunks, alike, cut

if TYPE_CHECKING:
    from structmask.linalg.stationary import Stationary

CHUNK = 256
_MISSED = {"float32": 1e-7, "float64": 1e-15}  # of sequences of norm one
_SCRATCH = 4  # blocks that moments and states may fill
_LANES = 32  # columns that a kernel takes at a time


def gradient(mask: Stationary, F: Array, G: Array, P: Array, X: Array) -> Gradients:
    """Gradients of <P, (M * F G^T) X> for the generators of M; everything real. O(n (C + r) (m + k) + n r m k / C)."""
    chunks = Chunks(mask, min(CHUNK, mask.n))
    total = mask.gradient(_near(chunks, F, G, P, X))
    if chunks.count > chunks.reach and mask.rank:
        rows, columns, step = _far(chunks, F, G, P, X)
        total = added(total, mask.states_gradient(chunks.first, rows, columns, step, arrays.precision(X)))
    return total


# --- tiles ------------------------------------------------------------------------------------------------------------


def _near(chunks: Chunks, F: Array, G: Array, P: Array, X: Array) -> Array:
    """The table's gradient (..., 2 l - 1) from the tiles, l = min(n, reach C)."""
    if kernels.numba_runs(F, G, P, X):
        table = state_kernels.tile_lags(F, G, P, X, chunks.size, chunks.distances, chunks.mask.shape[:-2])
    else:
        table = _lags(chunks, *(cut(a, chunks) for a in (F, G, P, X)))
    table = unbroadcast(table, (*chunks.mask.shape[:-2], table.shape[-1]), complex_=False)
    spare = max(0, (int(table.shape[-1]) + 1) // 2 - chunks.mask.n)  # rows and columns of padding are zero
    return table[..., spare : table.shape[-1] - spare]


def _lags(chunks: Chunks, f: Array, g: Array, p: Array, x: Array) -> Array:
    """Sums of D_ij at every i - j over the tiles, all of some size."""
    xp, C, N = arrays.namespace(x), chunks.size, chunks.count
    batch = np.broadcast_shapes(*(tuple(a.shape[:-3]) for a in (f, g, p, x)))
    middle = min(chunks.reach, N) * C
    table = xp.zeros((*batch, 2 * middle - 1), dtype=x.dtype)
    step = max(1, arrays.block_entries(x) // max(1, math.prod(batch) * C * C))
    for d in chunks.distances:
        total = 0.0
        for a, b in arrays.blocks(N - abs(d), step):
            rows, columns = slice(a + max(d, 0), b + max(d, 0)), slice(a + max(-d, 0), b + max(-d, 0))
            R = f[..., rows, :, :] @ xp.matrix_transpose(g[..., columns, :, :])
            Q = p[..., rows, :, :] @ xp.matrix_transpose(x[..., columns, :, :])
            total = total + xp.sum(R * Q, axis=-3)
        start = middle + (d - 1) * C
        table[..., start : start + 2 * C - 1] += _along_diagonals(total)
    return table


def _along_diagonals(D: Array) -> Array:
    """Sums of D_pq (..., C, C) over p - q = 1 - C, ..., C - 1."""
    xp, C = arrays.namespace(D), D.shape[-1]
    wide = xp.concat([xp.flip(D, axis=-1), xp.zeros_like(D)], axis=-1)  # a row is one longer than the result
    skewed = xp.reshape(xp.reshape(wide, (*D.shape[:-2], -1))[..., : C * (2 * C - 1)], (*D.shape[:-2], C, 2 * C - 1))
    return xp.sum(skewed, axis=-2)


# --- states -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maps:
    """Directions U (..., C, p), and on both sides what leads from moments to states and from states to queries."""

    U: Array
    step: Array  # A (..., r, r)
    inward: Array  # Z U (..., 2, r, p)
    outward: Array  # U^T O (..., 2, p, r)

    @classmethod
    def of(cls, chunks: Chunks, precision: str) -> _Maps:
        """The maps of a mask; above the diagonal O and Z are read backwards."""
        U, (rows, columns) = _directions(chunks, precision), chunks.factors()
        xp = arrays.namespace(U)
        inward = xp.stack([columns @ U, xp.flip(columns, axis=-1) @ U], axis=-3)
        transposed = xp.matrix_transpose(U)
        outward = xp.stack([transposed @ rows, transposed @ xp.flip(rows, axis=-2)], axis=-3)
        return cls(U, chunks.mask.steps(chunks.size), inward, outward)

    def split(self, precision: str) -> tuple[Array, Array]:
        """For the kernel, forwards and backwards: A as two numbers, good to double precision together, and a map."""
        xp = arrays.namespace(self.step)
        rounded = arrays.cast_precision(arrays.cast_precision(self.step, precision), "float64")
        parts = []
        for transposed, onward in ((False, self.inward), (True, xp.matrix_transpose(self.outward))):
            pair = [xp.matrix_transpose(a) if transposed else a for a in (rounded, self.step - rounded)]
            shape = (*onward.shape[:-1], onward.shape[-2])
            parts.append(xp.concat([*(xp.broadcast_to(a[..., None, :, :], shape) for a in pair), onward], axis=-1))
        return parts[0], parts[1]


def _far(chunks: Chunks, F: Array, G: Array, P: Array, X: Array) -> tuple[Array, Array, Array]:
    """Gradients for O, for the columns a^(e + q) b, and for A, in double precision, with the batch of the mask."""
    xp, mask, precision = arrays.namespace(X), chunks.mask, arrays.precision(X)
    batch, maps = mask.shape[:-2], _Maps.of(chunks, precision)
    heads = math.prod(np.broadcast_shapes(batch, *(tuple(a.shape[:-2]) for a in (F, G, P, X))))
    size = heads * chunks.count * 2 * (int(maps.U.shape[-1]) + mask.rank) * int(F.shape[-1])
    step = max(_LANES, _SCRATCH * arrays.block_entries(X) // max(1, size) // _LANES * _LANES)
    parts = [_sums(chunks, maps, F, G, P[..., a:b], X[..., a:b]) for a, b in arrays.blocks(int(X.shape[-1]), step)]
    seen, driven, moved = (
        sum(unbroadcast(part[i], (*batch, *part[i].shape[-3:]), complex_=False) for part in parts) for i in range(3)
    )
    rows, columns = maps.U[..., None, :, :] @ seen, driven @ xp.matrix_transpose(maps.U)[..., None, :, :]
    rows = rows[..., 0, :, :] + xp.flip(rows[..., 1, :, :], axis=-2)
    columns = xp.flip(columns[..., 0, :, :], axis=-1) + columns[..., 1, :, :]  # from Z to growing powers
    return rows, columns, xp.sum(moved, axis=-3)


def _sums(chunks: Chunks, maps: _Maps, F: Array, G: Array, P: Array, X: Array) -> list[Array]:
    """Sums (..., 2, rows, columns) over chunks of nu S^T, T mu^T and T S^T for some columns, in double precision."""
    if not kernels.numba_runs(F, G, P, X):
        return _standard_sums(chunks, maps, F, G, P, X)
    mask, pair = chunks.mask, maps.split(arrays.precision(X))
    operands = (F, G, P, X) if _padded(F, X) <= _padded(X, F) else (P, X, F, G)  # the two pairs play the same part
    return state_kernels.state_sums(operands, maps.U, pair, chunks.reach, mask.sides, mask.shape[:-2])


def _padded(F: Array, X: Array) -> int:
    """Size of the kernel's matrix of features and columns, which come in whole tiles."""
    return -(-int(F.shape[-1]) // 8) * -(-int(X.shape[-1]) // _LANES)


def _directions(chunks: Chunks, precision: str) -> Array:
    """Orthonormal U (..., C, p) that spans the mask's sequences in a chunk, forwards and backwards: C is even.

    They are the same as the even and the odd parts of the sequences, whose halves are told apart.
    """
    sequences = chunks.mask.sequences(chunks.size)
    xp = arrays.namespace(sequences)
    norms = xp.sqrt(xp.sum(sequences * sequences, axis=-1, keepdims=True))
    unit = xp.matrix_transpose(sequences / xp.where(norms == 0, xp.ones_like(norms), norms))
    parts = []
    for sign in (1.0, -1.0):
        half = (unit + sign * xp.flip(unit, axis=-2))[..., : chunks.size // 2, :]
        vectors, values, _ = xp.linalg.svd(half, full_matrices=False)
        kept = int(xp.max(xp.sum(xp.astype(values > _MISSED[precision], xp.int64), axis=-1)))
        first = vectors[..., :kept] * math.sqrt(0.5)
        parts.append(xp.concat([first, sign * xp.flip(first, axis=-2)], axis=-2))
    return xp.concat(parts, axis=-1)


def _moments(u: Array, g: Array, x: Array) -> Array:
    """Moments sum_q U_qd g_q x_q^T of every chunk (..., N, p, m k)."""
    xp, parts = arrays.namespace(x), []
    for d in range(int(u.shape[-1])):
        moment = xp.matrix_transpose(g * u[..., d : d + 1]) @ x
        parts.append(xp.reshape(moment, (*moment.shape[:-2], 1, -1)))
    return xp.concat(parts, axis=-2)


def _standard_sums(chunks: Chunks, maps: _Maps, F: Array, G: Array, P: Array, X: Array) -> list[Array]:
    """The sums of `state_kernels.state_sums` by batched products."""
    f, g, p, x = (cut(a, chunks) for a in (F, G, P, X))
    xp, u = arrays.namespace(x), alike(maps.U[..., None, :, :], x)[0]
    nu, mu = _moments(u, f, p), _moments(u, g, x)
    sides = []
    for above, here in enumerate(chunks.mask.sides):
        m, v = (xp.flip(mu, axis=-3), xp.flip(nu, axis=-3)) if above else (mu, nu)
        inward, outward = maps.inward[..., above, :, :], maps.outward[..., above, :, :]
        sums = _recurrence(maps.step, outward, inward, m, v, chunks.reach)
        sides.append(sums if here else tuple(xp.zeros_like(a) for a in sums))
    return [xp.stack(parts, axis=-3) for parts in zip(*sides, strict=True)]


def _recurrence(A: Array, out: Array, inward: Array, mu: Array, nu: Array, reach: int) -> tuple[Array, Array, Array]:
    """Gradients of sum_c <nu_c, out S_c> for out, inward and A, S_c = A S_(c-1) + inward mu_(c-B)."""
    xp = arrays.namespace(mu)
    inputs = _apply(inward, mu[..., : mu.shape[-3] - reach, :, :])
    seen = _apply(xp.matrix_transpose(out), nu[..., reach:, :, :])
    S = _run(A, inputs)
    adjoint = xp.flip(_run(xp.matrix_transpose(A), xp.flip(seen, axis=-3)), axis=-3)
    d_out = _inner(nu[..., reach:, :, :], S)
    d_in = _inner(adjoint, mu[..., : mu.shape[-3] - reach, :, :])
    return d_out, d_in, _inner(adjoint[..., 1:, :, :], S[..., :-1, :, :])


def _run(A: Array, inputs: Array) -> Array:
    """S_c = A S_(c-1) + inputs_c, in the place of the inputs; A counts to double precision."""
    rounded = alike(A, inputs)[0]
    rest = alike(A - arrays.cast_precision(rounded, "float64"), inputs)[0]
    exact = arrays.precision(inputs) == "float64"
    for c in range(1, int(inputs.shape[-3])):
        last = inputs[..., c - 1, :, :]
        inputs[..., c, :, :] += rounded @ last if exact else rounded @ last + rest @ last
    return inputs


def _apply(small: Array, H: Array) -> Array:
    """A small matrix times every chunk's."""
    small, H = alike(small[..., None, :, :], H)
    return small @ H


def _inner(left: Array, right: Array) -> Array:
    """sum_c left_c right_c^T, in double precision."""
    xp = arrays.namespace(left)
    return xp.sum(arrays.cast_precision(left @ xp.matrix_transpose(right), "float64"), axis=-3)
