"""Powers of a small matrix: the orbit of a vector, and gradients through both, by doubling."""

from __future__ import annotations

from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array


def orbit(a: Array, b: Array, count: int) -> Array:
    """Z = (b, a b, a^2 b, ...) (..., r, count), by doubling: (Z, a^m Z) has twice as many."""
    return _doublings(a, b, count)[-1][1][..., :count]


def _doublings(a: Array, b: Array, count: int) -> list[tuple[Array, Array]]:
    """Pairs a^m, (b, ..., a^(m-1) b) for m = 1, 2, 4, ..., up to the first m >= count."""
    xp = arrays.namespace(a)
    a, b = arrays.as_same_kind(a, b)
    batch = np.broadcast_shapes(tuple(a.shape[:-2]), tuple(b.shape[:-1]))
    Z = xp.broadcast_to(b, (*batch, b.shape[-1]))[..., None]
    pairs = [(a, Z)]
    while Z.shape[-1] < count:
        power = a if Z.shape[-1] == 1 else pairs[-1][0] @ pairs[-1][0]
        pairs[-1] = (power, Z)
        Z = xp.concat([Z, power @ Z], axis=-1)
        pairs.append((power, Z))
    return pairs


def orbit_pullback(a: Array, b: Array, count: int, dZ: Array) -> tuple[Array, Array]:
    """Gradients for a and b of gradients dZ (..., r, count) for the orbit: its doublings, backwards.

    With P = a^m: of (Z, P Z) and P^2 the gradients are dZ_1 + P^H dZ_2 for Z and dZ_2 Z^H + dQ P^H + P^H dQ for P,
    dQ being that for P^2.
    """
    xp, conj = arrays.namespace(a), conjugation(dZ)

    def adjoint(x: Array) -> Array:
        return xp.matrix_transpose(conj(x))

    pairs = _doublings(a, b, count)[:-1]
    full = 1 << len(pairs)
    if full > count:
        dZ = xp.concat([dZ, xp.zeros((*dZ.shape[:-1], full - count), dtype=dZ.dtype)], axis=-1)
    da = xp.zeros_like(a)
    for power, Z in reversed(pairs):
        m = Z.shape[-1]
        first, second = dZ[..., :m], dZ[..., m:]
        dZ = first + adjoint(power) @ second
        da = da if m == full // 2 else da @ adjoint(power) + adjoint(power) @ da
        da = da + second @ adjoint(Z)
    return da, dZ[..., 0]


def power_pullback(a: Array, count: int, d: Array) -> Array:
    """Gradient for a of a gradient d for a^count: sum_i (a^i)^H d (a^(count-1-i))^H, a block of a power."""
    xp, r = arrays.namespace(a), int(a.shape[-1])
    adjoint = xp.matrix_transpose(arrays.conj(a))
    return xp.linalg.matrix_power(_bordered(adjoint, d), count)[..., :r, r:]


def _bordered(a: Array, e: Array) -> Array:
    """The block matrix [[a, e], [0, a]]."""
    xp = arrays.namespace(a)
    a, e = xp.broadcast_arrays(*arrays.as_same_kind(a, e))
    return xp.concat([xp.concat([a, e], axis=-1), xp.concat([xp.zeros_like(a), a], axis=-1)], axis=-2)


def conjugation(like: Array) -> Any:
    """Complex conjugation, or nothing where an array is real."""
    return arrays.namespace(like).conj if arrays.is_complex(like) else lambda x: x
