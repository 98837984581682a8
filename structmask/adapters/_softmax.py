"""Softmax attention under the same masks, all pairs of tokens at once: what linear attention is compared with."""

from __future__ import annotations

import math
from typing import Any

import torch

from structmask.adapters._compute import alone
from structmask.adapters._operations import matmul
from structmask.adapters._parameters import Parameters
from structmask.adapters._tensors import Tensor, check_places, check_tensors, promoted
from structmask.attention import check_fit, check_padding, check_shapes, without_padding
from structmask.linalg.base import StructuredMatrix


@alone
def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /,
    *,
    mask: StructuredMatrix | None = None,
    parameters: Parameters | None = None,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The rows of A = M * exp(q k^T / sqrt(d)), normalised to sum one, times v: the attention of GKAT.

    For a positive mask it is softmax(q k^T / sqrt(d) + log M) v, attention with the bias log M; zeros of M leave keys
    out, and rows without mass are zero. Linear attention under the same mask approximates it by its features.

    Parameters
    ----------
    q, k, v, mask, parameters, key_padding_mask
        As in `masked_attention`.
    dropout : float
        Probability with which a weight is dropped, the others scaled up as in torch; pass 0 outside training.

    Returns
    -------
    tensor (..., L, e)

    Raises
    ------
    ValueError, TypeError, BackendError
        As in `masked_attention`.

    Notes
    -----
    O(L S) memory: the mask is written out. It is here to compare with, and for short sequences.

    Examples
    --------
    >>> import torch
    >>> from structmask import Causal
    >>> from structmask.adapters.torch import softmax_attention
    >>> q, k, v = torch.randn(3, 4, 2)
    >>> bias = torch.full((4, 4), -torch.inf).triu(1)
    >>> dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    >>> torch.allclose(softmax_attention(q, k, v, mask=Causal(4)), dense, atol=1e-6)
    True
    """
    check_tensors(q=q, k=k, v=v)
    check_shapes(q, k, v)
    if key_padding_mask is not None:
        check_places(q=q, key_padding_mask=key_padding_mask)
    check_padding(key_padding_mask, mask, q, k, v)
    q, k, v = promoted(q, *(without_padding(x, key_padding_mask) for x in (k, v)))
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    M = _written_out(mask, parameters, logits)
    if key_padding_mask is not None:
        M = torch.where(key_padding_mask[..., None, :], 0.0, M)
    highest = torch.where(M != 0, logits, -torch.inf).amax(-1, keepdim=True) if logits.shape[-1] else 0 * logits
    A = M * torch.exp(torch.where(M != 0, logits - highest.detach(), 0.0))
    mass = A.sum(-1, keepdim=True)
    weights = A / torch.where(mass == 0, 1.0, mass)
    return torch.nn.functional.dropout(weights, dropout) @ v


def _written_out(mask: Any, parameters: Parameters | None, like: Tensor) -> Tensor:
    """All entries of a mask, in the precision of a tensor."""
    L, S = like.shape[-2:]
    if mask is None:
        return like.new_ones(L, S)
    check_fit(mask.shape, L, S)
    return matmul(mask, torch.eye(S, dtype=like.dtype, device=like.device), parameters=parameters)
