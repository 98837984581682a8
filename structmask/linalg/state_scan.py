"""Products with state-space masks by chunks: what crosses chunks passes through r states.

For a query in chunk c and a key in chunk c - d, at places p and q of theirs, |i - j| - w = (d - B) C + p + (C-1-q) + e
with e = (B-1) C + 1 - w >= 0. So from B chunks on the block of the mask is O (a^C)^(d-B) Z, with rows O_p = c a^p and
columns Z_q = a^(C-1-q+e) b; the B chunks before are exact tiles. Above the diagonal O and Z are read backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.elementary import gather
from structmask.linalg.planning import Work

if TYPE_CHECKING:
    from structmask.linalg.stationary import Stationary

PRODUCT_CHUNK = 64
STANDARD_CHUNK = 64


@dataclass(frozen=True)
class Chunks:
    """A mask cut into chunks of `size`; tiles reach `reach` - 1 chunks far."""

    mask: Stationary
    size: int

    @property
    def reach(self) -> int:
        """Distance B in chunks from which on the states carry the mask."""
        return 1 + -(-max(self.mask.width - 1, 0) // self.size)

    @property
    def count(self) -> int:
        """Number of chunks."""
        return -(-self.mask.n // self.size)

    def tile(self, d: int) -> Array:
        """Entries (..., C, C) of a block d chunks below the diagonal, zero outside the matrix."""
        table = self.mask.toeplitz.offsets
        xp, n = arrays.namespace(table), max(1, self.mask.n)
        place = xp.arange(self.size)
        index = place[:, None] - place[None, :] + (d * self.size + n - 1)
        inside = (index >= 0) & (index < 2 * n - 1)
        values = gather(table, xp.where(inside, index, xp.zeros_like(index)))
        return xp.where(inside, values, xp.zeros_like(values))

    @property
    def distances(self) -> range:
        """The d of all tiles."""
        below, above = self.mask.sides
        far = min(self.reach, self.count)
        return range(1 - far if above else 0, far if below else 1)

    @property
    def first(self) -> int:
        """Power e of a that the last key of a chunk has behind it where the states begin."""
        return (self.reach - 1) * self.size + 1 - self.mask.width

    def factors(self) -> tuple[Array, Array]:
        """O (..., C, r) and Z (..., r, C) for the part below the diagonal."""
        Z = self.mask.leaving(self.first + self.size)[..., self.first :]
        return self.mask.entering(self.size), arrays.namespace(Z).flip(Z, axis=-1)


def product(mask: Stationary, X: Array) -> Array:
    """M @ X for X (..., n, k)."""
    chunks = Chunks(mask, min(PRODUCT_CHUNK, mask.n))
    xp = arrays.namespace(X)
    X_ = cut(X, chunks)
    Y = None
    for d in chunks.distances:
        tile, x = alike(chunks.tile(d)[..., None, :, :], X_)
        Y = _added(Y, _moved(tile @ x, d))
    if chunks.count > chunks.reach and mask.rank:
        rows, columns = chunks.factors()
        for side, here in enumerate(mask.sides):
            if here:
                x = xp.flip(X_, axis=-3) if side else X_
                o, z = (xp.flip(rows, axis=-2), xp.flip(columns, axis=-1)) if side else (rows, columns)
                z, x = alike(z[..., None, :, :], x)
                states = entering_states(chunks, z @ x)
                o, states = alike(o[..., None, :, :], states)
                y = o @ states
                Y = _added(Y, xp.flip(y, axis=-3) if side else y)
    return uncut(Y, mask.n)


def hadamard(mask: Stationary, F: Array, G: Array, X: Array) -> tuple[Array, Array]:
    """(M * F G^T) X and its row sums, for F, G (..., n, m) and X (..., n, k), a state m x k for each of the mask's."""
    chunks = Chunks(mask, min(STANDARD_CHUNK, mask.n))
    xp = arrays.namespace(X)
    V = xp.concat([X, xp.ones_like(X[..., :1])], axis=-1)
    batch = np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, X)))
    f, g, v = (cut(a, chunks) for a in (F, G, V))
    Y = _near(chunks, f, g, v)
    if chunks.count > chunks.reach and mask.rank:
        size = math.prod(batch) * chunks.count * mask.rank * int(F.shape[-1])
        step = max(1, arrays.block_entries(X) // size)
        parts = [_far(chunks, f, g, v[..., a:b]) for a, b in arrays.blocks(int(v.shape[-1]), step)]
        Y = Y + xp.concat(parts, axis=-1)
    Y = uncut(Y, mask.n)
    return Y[..., :-1], Y[..., -1]


def _near(chunks: Chunks, f: Array, g: Array, v: Array) -> Array:
    """The tiles' share, some chunks at a time."""
    xp, N = arrays.namespace(v), chunks.count
    tiles = {d: chunks.tile(d)[..., None, :, :] for d in chunks.distances}
    step = max(1, arrays.block_entries(v) // max(1, math.prod(f.shape[:-3]) * chunks.size**2))
    parts = []
    for a, b in arrays.blocks(N, step):
        total = None
        for d, tile in tiles.items():
            rows, columns = slice(max(a, d), min(b, N + d)), slice(max(a - d, 0), min(b - d, N))
            if columns.start >= columns.stop:
                continue
            t, A = alike(tile, f[..., rows, :, :] @ xp.matrix_transpose(g[..., columns, :, :]))
            t, x = alike(A * t, v[..., columns, :, :])
            total = _added(total, _padded(t @ x, rows.start - a, b - rows.stop))
        parts.append(total)
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-3)


def _far(chunks: Chunks, f: Array, g: Array, v: Array) -> Array:
    """The states' share."""
    xp = arrays.namespace(v)
    rows, columns = chunks.factors()
    total, (m, k) = None, (int(g.shape[-1]), int(v.shape[-1]))
    for side, here in enumerate(chunks.mask.sides):
        if not here:
            continue
        o, z = (xp.flip(rows, axis=-2), xp.flip(columns, axis=-1)) if side else (rows, columns)
        moments = []
        for s in range(chunks.mask.rank):
            weights, lifted = alike(z[..., s, None, :, None], g)
            lifted, x = arrays.as_same_kind(lifted * weights, v)
            moment = xp.matrix_transpose(lifted) @ x
            moments.append(xp.reshape(moment, (*moment.shape[:-2], 1, m * k)))
        H = xp.concat(moments, axis=-2)
        states = entering_states(chunks, xp.flip(H, axis=-3) if side else H)
        states = xp.flip(states, axis=-3) if side else states
        for s in range(chunks.mask.rank):
            weights, lifted = alike(o[..., None, :, s, None], f)
            state = xp.reshape(states[..., s, :], (*states.shape[:-2], m, k))
            lifted, state = arrays.as_same_kind(lifted * weights, state)
            total = _added(total, lifted @ state)
    return total


def entering_states(chunks: Chunks, H: Array, *, transposed: bool = False) -> Array:
    """S_c = sum over d >= B of A^(d-B) H_(c-d), A = a^C or its transpose, for H (..., N, r, k)."""
    return _delayed(_prefix(chunks, H, 1, transposed=transposed), chunks.reach - 1)


def _prefix(chunks: Chunks, H: Array, length: int, *, transposed: bool) -> Array:
    """S_c = sum over c' < c of A^(c-1-c') H_c', A = a^(length C): pairs are chunks of twice the length."""
    xp, N = arrays.namespace(H), int(H.shape[-3])
    if N == 1:
        return xp.zeros_like(H)
    A = chunks.mask.steps(length * chunks.size)
    A, H = alike((xp.matrix_transpose(A) if transposed else A)[..., None, :, :], H)
    even, odd = H[..., 0::2, :, :], H[..., 1::2, :, :]
    pairs = A @ even[..., : odd.shape[-3], :, :] + odd
    if N % 2:
        pairs = xp.concat([pairs, xp.zeros_like(pairs[..., :1, :, :])], axis=-3)
    first = _prefix(chunks, pairs, 2 * length, transposed=transposed)
    second = A @ first + even
    both = xp.stack([first, second], axis=-3)
    return xp.reshape(both, (*both.shape[:-4], -1, *both.shape[-2:]))[..., :N, :, :]


# --- costs ------------------------------------------------------------------------------------------------------------


def product_work(mask: Stationary, columns: int) -> Work:
    """Tiles and states of a product."""
    chunks = Chunks(mask, max(1, min(PRODUCT_CHUNK, mask.n)))
    heads, C, r = math.prod(mask.shape[:-2]), chunks.size, mask.rank
    flops = 2.0 * C * len(chunks.distances) + sum(mask.sides) * (4.0 * r + 6.0 * r * r / C)
    return Work(gemm=heads * mask.n * flops * columns, bytes=24.0 * heads * mask.n * columns, calls=4)


def hadamard_work(mask: Stationary, heads: int, m: int, k: int) -> Work:
    """The same for attention with m features and k columns."""
    chunks = Chunks(mask, max(1, min(STANDARD_CHUNK, mask.n)))
    C, r, sides = chunks.size, mask.rank, sum(mask.sides)
    near, far = 2.0 * C * len(chunks.distances) * (m + k), sides * (4.0 * r + 6.0 * r * r / C) * m * k
    return Work(gemm=heads * mask.n * (near + far), calls=4)


# --- helpers ----------------------------------------------------------------------------------------------------------


def cut(X: Array, chunks: Chunks) -> Array:
    """(..., n, k) as (..., N, C, k), padded with zeros."""
    xp, (n, k) = arrays.namespace(X), X.shape[-2:]
    spare = chunks.count * chunks.size - n
    if spare:
        X = xp.concat([X, xp.zeros((*X.shape[:-2], spare, k), dtype=X.dtype)], axis=-2)
    return xp.reshape(X, (*X.shape[:-2], chunks.count, chunks.size, k))


def uncut(Y: Array, n: int) -> Array:
    """The reverse of `cut`."""
    return arrays.namespace(Y).reshape(Y, (*Y.shape[:-3], -1, Y.shape[-1]))[..., :n, :]


def alike(small: Array, X: Array) -> list[Array]:
    """Generators in the precision of an operand, both complex if one of them is."""
    return arrays.as_same_kind(arrays.cast_precision(small, arrays.precision(X)), X)


def _added(total: Array | None, part: Array) -> Array:
    return part if total is None else total + part


def _padded(Y: Array, before: int, after: int) -> Array:
    """Chunks of zeros before and behind."""
    xp = arrays.namespace(Y)
    parts = [xp.zeros((*Y.shape[:-3], c, *Y.shape[-2:]), dtype=Y.dtype) if c else None for c in (before, after)]
    joined = [part for part in (parts[0], Y, parts[1]) if part is not None]
    return joined[0] if len(joined) == 1 else xp.concat(joined, axis=-3)


def _delayed(Y: Array, count: int) -> Array:
    """Chunks moved `count` places down, zeros above."""
    N = int(Y.shape[-3])
    return Y if count == 0 else _padded(Y[..., : N - count, :, :], count, 0)


def _moved(Y: Array, d: int) -> Array:
    """Chunks moved d places down, or up if d is negative."""
    N = int(Y.shape[-3])
    return _delayed(Y, d) if d >= 0 else _padded(Y[..., -d:N, :, :], 0, -d)
