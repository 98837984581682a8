"""Linear attention under a structured mask: the central lemma with its rows normalised."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from structmask.backends import arrays, devices
from structmask.backends.arrays import Array
from structmask.features import apply_features, elu_features
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients
from structmask.linalg.hadamard import METHODS, mask_gradient, masked_product, masked_pullback
from structmask.linalg.low_rank import constant

Shape: TypeAlias = tuple[int, ...]


def masked_attention(
    q: Array,
    k: Array,
    v: Array,
    /,
    *,
    mask: StructuredMatrix | None = None,
    features: Any = elu_features,
    key_padding_mask: Array | None = None,
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
    key_padding_mask : array of bool (..., S), optional
        True is PADDING, a key to ignore: the convention of torch.nn.MultiheadAttention. Such keys and their values
        contribute nothing, whatever is stored there, NaN included. Either (S,) for the whole batch or with every
        leading axis: for (batch, heads, S, d) pass ``padding[:, None, :]``. From lengths (batch,):
        ``np.arange(S) >= lengths[:, None, None]``.
    method : {"auto", "dense", "stream", "fused", "scan", "sparse", "low_rank", "diagonal", "terms", "blocks", "border"}
        "auto" takes the cheapest by the cost model and keeps every row accurate. "dense" forms blocks of A and is
        accurate row by row; "stream" multiplies by the mask once a feature and, for a Toeplitz mask, is accurate
        relative to the largest row of the product only, so that a row of zero mass need not give zeros; "scan" is for
        causal masks; the others need a mask of that kind.
    eps : float
        Added to every entry of A, padded columns excepted.

    Returns
    -------
    array (..., L, e)
        A row whose mass is zero gives zeros; so does every row when all keys are padding.

    Raises
    ------
    ValueError
        If shapes do not fit, or the method is unknown or does not apply to the mask.
    TypeError
        If the mask is not a StructuredMatrix, or the padding not boolean.

    Notes
    -----
    O(L (m + e)) memory for m features, whatever the method; padding copies k, its features and v. Theory: the central
    lemma of Choromanski et al. (2022).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Causal, masked_attention
    >>> x = np.ones((3, 2))
    >>> masked_attention(x, x, np.arange(6.0).reshape(3, 2), mask=Causal(3))
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])

    The last key is padding:

    >>> padding = np.array([False, False, True])
    >>> masked_attention(x, x, np.arange(6.0).reshape(3, 2), mask=Causal(3), key_padding_mask=padding)
    array([[0., 1.],
           [1., 2.],
           [1., 2.]])
    """
    q, k, v = arrays.as_arrays(("q", q), ("k", k), ("v", v))
    check_shapes(q, k, v)
    padding = _as_padding(key_padding_mask, k)
    check_padding(padding, mask, q, k, v)
    F, G = apply_features(features, q, repeated_over_padding(k, padding))
    G, v = without_padding(G, padding), without_padding(v, padding)
    return attend(F, G, v, mask, padding=padding, method=method, eps=eps)[0]


def attend(
    F: Array,
    G: Array,
    V: Array,
    mask: StructuredMatrix | None,
    *,
    padding: Array | None = None,
    method: str = "auto",
    eps: float = 0.0,
) -> tuple[Array, Array]:
    """Attention of features F (..., L, m), G (..., S, m) to values V (..., S, e), and the mass (..., L) of its rows.

    Where `padding` (..., S) is True, G and V are zero already, and `eps` is not added.
    """
    F, G, V = arrays.as_arrays(("the features of q", F), ("the features of k", G), ("v", V))
    if method not in METHODS:
        msg = f"unknown method {method!r}; choose one of {', '.join(map(repr, METHODS))}"
        raise ValueError(msg)
    mask = _as_mask(mask, F, G, V)
    batch = _checked_batch(mask.shape, *(tuple(a.shape) for a in (F, G, V)))
    xp, S, eps = arrays.namespace(V), G.shape[-2], float(eps)
    if 0 in (*batch, *F.shape, *V.shape):
        L, e = F.shape[-2], V.shape[-1]
        Y, mass = xp.zeros((*batch, L, e), dtype=V.dtype), xp.zeros((*batch, L), dtype=V.dtype)
    else:
        Y, mass = masked_product(mask, F, G, V, method, with_mass=True)
    if eps:
        Y = Y + eps * xp.sum(V, axis=-2, keepdims=True)
        mass = mass + eps * (S if padding is None else _present(padding, V))
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
    mask = _as_mask(mask, F, G, V)
    conj = xp.conj if any(map(arrays.is_complex, (F, G, out))) else lambda a: a
    F_, G_ = conj(F), conj(G)
    U = xp.concat([V, xp.ones_like(V[..., :1])], axis=-1)
    P = _divided(g, conj(mass))
    slope = -arrays.row_products(P, conj(out))[..., None]
    P_all = xp.concat([P, slope], axis=-1)
    d_mask: Gradients = {}
    if 0 in (*out.shape, *G.shape[-2:]):
        dF, dG, dV = (xp.zeros_like(a) for a in (F, G, V))
    elif needs[0] and needs[1] and needs[3]:  # together they may share their transforms
        d_mask, dF, dG, dV = masked_pullback(mask, F, G, P_all, U, columns=int(V.shape[-1]) if needs[2] else 0)
    else:
        dV = masked_product(mask.mH, G_, F_, P)[0] if needs[2] else None
        dF = masked_product(mask.conj(), P_all, conj(U), G_)[0] if needs[0] else None
        dG = masked_product(mask.mH, conj(U), P_all, F_)[0] if needs[1] else None
        d_mask = mask_gradient(mask, F_, G, P_all, U) if needs[3] else {}
    if eps and dV is not None:
        dV = dV + eps * xp.sum(P, axis=-2, keepdims=True)
    return dF, dG, dV, d_mask


def _divided(Y: Array, mass: Array) -> Array:
    """Rows over their mass; zeros where the mass is zero."""
    xp = arrays.namespace(Y)
    if xp is np and mass.all():  # elsewhere the question would make a device wait
        return Y / mass[..., None]
    empty = mass == 0
    inverse = 1 / xp.where(empty, xp.ones_like(mass), mass)
    return Y * xp.where(empty, xp.zeros_like(mass), inverse)[..., None]


def _as_mask(mask: Any, F: Array, G: Array, V: Array) -> StructuredMatrix:
    if mask is None:
        return constant(int(F.shape[-2]), int(G.shape[-2]), 1.0, V)
    if not isinstance(mask, StructuredMatrix):
        msg = (
            f"mask must be a StructuredMatrix or None, got {type(mask).__name__}; wrap an array as "
            "structmask.Dense(mask)"
        )
        raise TypeError(msg)
    return mask


@lru_cache(maxsize=1024)  # short sequences have no time to look at shapes twice
def _checked_batch(mask: Shape, F: Shape, G: Shape, V: Shape) -> Shape:
    """The common batch of a mask (..., L, S), features (..., L, m) and (..., S, m), and values (..., S, e)."""
    check_fit(mask, F[-2], G[-2])
    if F[-1] != G[-1]:
        msg = f"queries and keys need as many features, got {F[-1]} and {G[-1]}"
        raise ValueError(msg)
    return common_batch({"mask": mask[:-2], "q": F[:-2], "k": G[:-2], "v": V[:-2]})


def check_shapes(q: Array, k: Array, v: Array) -> None:
    """Raise ValueError if the last two axes of q (..., L, d), k (..., S, d) and v (..., S, e) do not fit."""
    if min(q.ndim, k.ndim, v.ndim) < 2 or k.shape[-2] != v.shape[-2]:
        msg = (
            "attention needs q (..., L, d), k (..., S, d) and v (..., S, e), "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
        raise ValueError(msg)


def check_fit(mask: Shape, L: int, S: int) -> None:
    """Raise ValueError if a mask of this shape is not one for L queries and S keys."""
    if mask[-2:] != (L, S):
        msg = f"mask of shape {mask} does not fit {L} queries and {S} keys; it needs shape (..., {L}, {S})"
        raise ValueError(msg)


def check_padding(padding: Array | None, mask: Any, q: Array, k: Array, v: Array) -> None:
    """Raise if a padding is not boolean (S,), or (..., S) with all leading axes of q, k, v and the mask.

    With fewer of them, (batch, S) would be taken for (heads, S) whenever the two sizes agree.
    """
    if padding is None:
        return
    if arrays.dtype_name(padding) != "bool":
        msg = (
            f"key_padding_mask must be boolean, True where a key is padding, got {arrays.dtype_name(padding)}; "
            "from keys to keep pass keep == 0, from lengths np.arange(S) >= lengths[..., None]"
        )
        raise TypeError(msg)
    shape, S = tuple(padding.shape), int(k.shape[-2])
    axes = max(q.ndim, k.ndim, v.ndim, getattr(mask, "ndim", 2))
    if shape[-1:] != (S,) or 1 < len(shape) < axes - 1:
        msg = (
            f"key_padding_mask of shape {shape} does not fit {S} keys and {axes - 2} batch axes; it needs ({S},), or "
            f"(..., {S}) with all of these axes: a padding (batch, S) for all heads is padding[:, None, :]"
        )
        raise ValueError(msg)
    common_batch({"key_padding_mask": shape[:-1], "k": tuple(k.shape[:-2]), "v": tuple(v.shape[:-2])})


def without_padding(x: Array, padding: Array | None) -> Array:
    """Rows of x (..., S, d) where the padding (..., S) is False, zeros elsewhere; tensors too."""
    if padding is None:
        return x
    xp = arrays.namespace(x)
    return xp.where(padding[..., None], xp.zeros_like(x), x)  # a product with zero would keep NaN


def repeated_over_padding(k: Array, padding: Array | None) -> Array:
    """Keys with the first one that is present in the place of padding: features see no others; tensors too."""
    if padding is None or 0 in k.shape:
        return k
    xp, zero = arrays.namespace(k), arrays.namespace(k).zeros_like(k)
    index = xp.arange(padding.shape[-1])
    first = index == xp.argmax(xp.where(padding, 0 * index, 1 + 0 * index), axis=-1, keepdims=True)
    first = xp.sum(xp.where((first & ~padding)[..., None], k, zero), axis=-2, keepdims=True)
    return xp.where(padding[..., None], first, k)


def _as_padding(padding: Any, k: Array) -> Array | None:
    if padding is None:
        return None
    if arrays.home(padding) == "numpy":
        padding = devices.imported(padding, "key_padding_mask")
    padding = arrays.settle(padding, "key_padding_mask")
    arrays.common_home((k, padding), "k, key_padding_mask")
    return padding


def _present(padding: Array, like: Array) -> Array:
    """How many keys (..., 1) are no padding, in the precision of an array."""
    xp = arrays.namespace(like)
    ones = xp.ones(padding.shape, dtype=getattr(xp, arrays.precision(like)))
    return xp.sum(xp.where(padding, xp.zeros_like(ones), ones), axis=-1, keepdims=True)


def common_batch(shapes: dict[str, Shape]) -> Shape:
    """The common batch of named operands, or a ValueError that names them."""
    try:
        return arrays.broadcast_shapes(*shapes.values())
    except ValueError:
        *first, last = shapes
        msg = (
            f"batch dimensions of {', '.join(first)} and {last} do not broadcast: "
            f"{', '.join(map(str, shapes.values()))}"
        )
        raise ValueError(msg) from None
