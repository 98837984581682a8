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


def state_pullback(
    operands: tuple[Array, Array, Array, Array],
    tiles: Array,
    factors: tuple[Array, Array],
    maps: tuple[Array, Array],
    places: tuple[int, int, tuple[bool, bool]],
    batch: tuple[int, ...],
    columns: int,
) -> tuple[list[Array], list[Array]]:
    """Gradients of <P, (M * F G^T) X> for F, G and the first columns of X, and for the parts of M; see the kernel.

    `operands` are F, G, P and X; tiles, factors and maps have the mask's batch, and so have their gradients, or that
    of the heads.
    """
    from structmask.backends._numba import state_pullback as kernel

    heads, dtype = broadcast_shapes(batch, *(a.shape[:-2] for a in operands)), operands[0].dtype
    own = batch if math.prod(batch) == 1 else heads

    def packed(a: Array, tail: int) -> Array:
        return shared(np.broadcast_to(a, (*batch, *a.shape[a.ndim - tail :])).astype(dtype), heads, tail)

    form = kernel.Form(packed(tiles, 3), *(packed(a, 2) for a in factors), *(packed(a, 3) for a in maps))
    f, g, p, x = (flat(a, heads, 2) for a in operands)
    rows, parts = kernel.state_pullback((f, g, p, x), form, places, columns)
    return [a.reshape(*heads, *a.shape[1:]) for a in rows], [a.reshape(*own, *a.shape[1:]) for a in parts]
