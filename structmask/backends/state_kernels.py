"""Attention with state-space masks on the CPU, by chunks, and the sums that its gradient for the mask is made of."""

from __future__ import annotations

import math

import numpy as np

from structmask.backends.arrays import Array, broadcast_shapes
from structmask.backends.kernels import flat, shared


class ChunkScan:
    """Masked products by chunks with state-space masks (*batch, n, n) on the CPU, the masks' maps packed once."""

    def __init__(
        self,
        batch: tuple[int, ...],
        tiles: Array,
        factors: tuple[Array, Array],
        maps: tuple[list[Array], list[Array]],
        places: tuple[int, int, tuple[bool, bool]],
        precision: str,
    ) -> None:
        from structmask.backends._numba import gemm, states

        def packed(a: Array, axis: int) -> Array:
            """In the precision of the kernel, an axis filled with zeros to whole tiles."""
            widths = [(0, 0)] * a.ndim
            widths[axis] = (0, -a.shape[axis] % gemm.ROWS)
            return np.ascontiguousarray(np.pad(a, widths), precision)

        def on_both_sides(parts: list[Array]) -> Array:
            given = iter(parts)
            return np.stack([next(given) if here else np.zeros_like(parts[0]) for here in self.sides], axis=1)

        self.batch, self.directions = batch, factors[0].shape[-1]
        self.reach, self.nearest, self.sides = places
        left, right = (packed(x, 2) for x in factors)
        steps, outward = (packed(on_both_sides(parts), 2) for parts in maps)
        self.form = states.Form(packed(tiles, 2), left, right, steps, outward)

    def hadamard(self, F: Array, G: Array, X: Array) -> tuple[Array, Array]:
        """(M * F G^T) X and its row sums; F, G (..., n, m), X (..., n, k)."""
        from structmask.backends._numba import states

        heads = broadcast_shapes(self.batch, *(a.shape[:-2] for a in (F, G, X)))
        f, g, x = (flat(a, heads, 2) for a in (F, G, X))
        form = states.Form(*(shared(a.reshape(*self.batch, *a.shape[1:]), heads, a.ndim - 1) for a in self.form))
        Y, mass = states.state_hadamard(f, g, x, form, self.directions, self.reach, self.nearest, self.sides)
        return Y.reshape(*heads, *Y.shape[-2:]), mass.reshape(*heads, mass.shape[-1])


def tile_lags(F: Array, G: Array, P: Array, X: Array, C: int, distances: range, batch: tuple[int, ...]) -> Array:
    """Sums (*batch or *heads, 2 l - 1) of (P X^T)_ij (F G^T)_ij at every i - j over tiles at some distances."""
    from structmask.backends._numba import state_pullback

    heads = broadcast_shapes(batch, *(a.shape[:-2] for a in (F, G, P, X)))
    own = batch if math.prod(batch) == 1 else heads
    f, g, p, x = (flat(a, heads, 2) for a in (F, G, P, X))
    lags = state_pullback.tile_lags(f, g, p, x, C, distances, math.prod(own))
    return lags.reshape(*own, -1)


def state_sums(
    operands: tuple[Array, Array, Array, Array],
    U: Array,
    maps: tuple[Array, Array],
    reach: int,
    sides: tuple[bool, bool],
    batch: tuple[int, ...],
) -> list[Array]:
    """Sums over states (*batch or *heads, 2, rows, columns) of F, G, P, X for a mask of some batch; see the kernel."""
    from structmask.backends._numba import state_pullback

    heads, dtype = broadcast_shapes(batch, *(a.shape[:-2] for a in operands)), operands[0].dtype
    own = batch if math.prod(batch) == 1 else heads
    U, inward, outward = (
        shared(np.broadcast_to(a, (*batch, *a.shape[-tail:])).astype(dtype), heads, tail)
        for a, tail in ((U, 2), (maps[0], 3), (maps[1], 3))
    )
    f, g, p, x = (flat(a, heads, 2) for a in operands)
    sums = state_pullback.state_sums(f, g, p, x, U, (inward, outward), reach, sides)
    return [a.reshape(*own, *a.shape[1:]) for a in sums]
