"""Linear attention under a structured mask: the central lemma with its rows normalised."""

from __future__ import annotations

from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.features import apply_features, elu_features
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients
from structmask.linalg.hadamard import METHODS, mask_gradient, masked_product, masked_pullback
from structmask.linalg.low_rank import constant


def masked_attention(
    q: Array,
    k: Array,
    v: Array,
    /,
    *,
    mask: StructuredMatrix | None = None,
    features: Any = elu_features,
    method: str = "auto",
    eps: float = 0.0,
) -> Array:
    """Masked linear attention: rows of A = M * (phi(q) phi(k)^T) + eps, normalised to sum one, times v.

    Parameters
    ----------
    q : array (..., L, d)
        Queries.
    k : array (..., S, d)
        Keys.
    v : array (..., S, e)
        Values. Leading axes (batch, heads) of the three and of the mask broadcast.
    mask : StructuredMatrix (..., L, S), optional
        The mask M; without one, plain linear attention.
    features : callable, pair of callables, or None
        phi, or a pair (for queries, for keys); None if q and k are features already.
    method : {"auto", "dense", "stream", "scan", "sparse", "low_rank", "diagonal", "terms"}
        "auto" takes the cheapest by the cost model and keeps every row accurate. "dense" forms blocks of A and is
        accurate row by row; "stream" multiplies by the mask once a feature and, for a Toeplitz mask, is accurate
        relative to the largest row of the product only, so that a row of zero mass need not give zeros; "scan" is for
        causal masks; the others need a mask of that kind.
    eps : float
        Added to every entry of A.

    Returns
    -------
    array (..., L, e)
        A row whose mass is zero gives zeros.

    Raises
    ------
    ValueError
        If shapes do not fit, or the method is unknown or does not apply to the mask.
    TypeError
        If the mask is not a StructuredMatrix.

    Notes
    -----
    O(L (m + e)) memory for m features, whatever the method. Theory: the central lemma of Choromanski et al. (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Causal, masked_attention
    >>> x = np.ones((3, 2))
    >>> masked_attention(x, x, np.arange(6.0).reshape(3, 2), mask=Causal(3))
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    q, k, v = arrays.as_arrays(("q", q), ("k", k), ("v", v))
    check_shapes(q, k, v)
    F, G = apply_features(features, q, k)
    return attend(F, G, v, mask, method=method, eps=eps)[0]


def attend(
    F: Array, G: Array, V: Array, mask: StructuredMatrix | None, *, method: str = "auto", eps: float = 0.0
) -> tuple[Array, Array]:
    """Attention of features F (..., L, m), G (..., S, m) to values V (..., S, e), and the mass (..., L) of its rows."""
    F, G, V = arrays.as_arrays(("the features of q", F), ("the features of k", G), ("v", V))
    mask = _checked_mask(mask, F, G, V, method)
    batch, eps = _batch(mask, F, G, V), float(eps)
    xp, (L, S), e = arrays.namespace(V), mask.shape[-2:], V.shape[-1]
    if 0 in (*batch, L, S, e, F.shape[-1]):
        Y, mass = xp.zeros((*batch, L, e), dtype=V.dtype), xp.zeros((*batch, L), dtype=V.dtype)
    else:
        Y, mass = masked_product(mask, F, G, V, method, with_mass=True)
    if eps:
        Y = Y + eps * xp.sum(V, axis=-2, keepdims=True)
        mass = mass + eps * S
    return _divided(Y, mass), mass


def attend_pullback(
    F: Array,
    G: Array,
    V: Array,
    mask: StructuredMatrix | None,
    out: Array,
    mass: Array,
    g: Array,
    *,
    eps: float = 0.0,
    needs: tuple[bool, bool, bool, bool] = (True, True, True, True),
) -> tuple[Array | None, Array | None, Array | None, Gradients]:
    """Gradients of Re <g, out> for F, G, V and the mask's generators, from the result of `attend`.

    With P = [g / D, -<g, out> / D] and U = [V, 1] they are the gradients of <P, A U>; those of F, G and V may have
    the broadcast batch (`unbroadcast` sums it out), the mask's have its own shapes. Only those that `needs` asks for
    are computed, in this order; the others are None, or empty for the mask. O(L (m + e)) memory.
    """
    xp = arrays.namespace(V)
    mask = _checked_mask(mask, F, G, V, "auto")
    conj = xp.conj if any(map(arrays.is_complex, (F, G, out))) else lambda a: a
    F_, G_ = conj(F), conj(G)
    U = xp.concat([V, xp.ones_like(V[..., :1])], axis=-1)
    P = _divided(g, conj(mass))
    slope = -xp.sum(P * conj(out), axis=-1)[..., None]
    P_all = xp.concat([P, slope], axis=-1)
    dV = eps * xp.sum(P, axis=-2, keepdims=True) + xp.zeros_like(V)
    if 0 in (*out.shape, *G.shape[-2:]):
        return xp.zeros_like(F), xp.zeros_like(G), dV, {}
    dV = masked_product(mask.mH, G_, F_, P)[0] + dV if needs[2] else None
    if needs[0] and needs[1] and needs[3]:  # together they may share their transforms
        d_mask, dF, dG = masked_pullback(mask, F, G, P_all, U)
        return dF, dG, dV, d_mask
    dF = masked_product(mask.conj(), P_all, conj(U), G_)[0] if needs[0] else None
    dG = masked_product(mask.mH, conj(U), P_all, F_)[0] if needs[1] else None
    return dF, dG, dV, mask_gradient(mask, F_, G, P_all, U) if needs[3] else {}


def _divided(Y: Array, mass: Array) -> Array:
    """Rows over their mass; zeros where the mass is zero."""
    xp = arrays.namespace(Y)
    empty = mass == 0
    inverse = 1 / xp.where(empty, xp.ones_like(mass), mass)
    return Y * xp.where(empty, xp.zeros_like(mass), inverse)[..., None]


def _checked_mask(mask: Any, F: Array, G: Array, V: Array, method: str) -> StructuredMatrix:
    if method not in METHODS:
        msg = f"unknown method {method!r}; choose one of {', '.join(map(repr, METHODS))}"
        raise ValueError(msg)
    L, S = int(F.shape[-2]), int(G.shape[-2])
    if mask is None:
        return constant(L, S, 1.0, V)
    if not isinstance(mask, StructuredMatrix):
        msg = (
            f"mask must be a StructuredMatrix or None, got {type(mask).__name__}; wrap an array as "
            "structmask.Dense(mask)"
        )
        raise TypeError(msg)
    if mask.shape[-2:] != (L, S):
        msg = f"mask of shape {mask.shape} does not fit {L} queries and {S} keys; it needs shape (..., {L}, {S})"
        raise ValueError(msg)
    return mask


def check_shapes(q: Array, k: Array, v: Array) -> None:
    """Raise ValueError if the last two axes of q (..., L, d), k (..., S, d) and v (..., S, e) do not fit."""
    if min(q.ndim, k.ndim, v.ndim) < 2 or k.shape[-2] != v.shape[-2]:
        msg = (
            "attention needs q (..., L, d), k (..., S, d) and v (..., S, e), "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
        raise ValueError(msg)


def _batch(mask: StructuredMatrix, F: Array, G: Array, V: Array) -> tuple[int, ...]:
    if F.shape[-1] != G.shape[-1]:
        msg = f"queries and keys need as many features, got {F.shape[-1]} and {G.shape[-1]}"
        raise ValueError(msg)
    shapes = [mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, V))]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        msg = f"batch dimensions of mask, q, k and v do not broadcast: {', '.join(map(str, shapes))}"
        raise ValueError(msg) from None
