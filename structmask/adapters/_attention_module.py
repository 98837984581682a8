"""Linear attention of several heads under a structured mask, as a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from structmask.adapters._mask_module import MaskModule
from structmask.adapters._operations import masked_attention
from structmask.adapters._packed import packed
from structmask.adapters._softmax import softmax_attention
from structmask.adapters._tensors import Tensor
from structmask.features import elu_features
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import with_global_tokens

Mask: TypeAlias = StructuredMatrix | MaskModule | None


class MaskedLinearAttention(torch.nn.Module):
    """Multi-head linear attention under a mask: projections, `masked_attention` in every head, one more projection.

    Parameters
    ----------
    embed_dim : int
        Size of the queries given and of the result.
    num_heads : int
        Number of heads; each has embed_dim / num_heads of the projected sizes.
    mask : StructuredMatrix or MaskModule (..., L, S), optional
        What every call uses unless it is given another one. A matrix stays as it is; a module is trained along. Leading
        axes are (num_heads,), or (batch, num_heads) with ones where shared.
    features : callable, pair of callables, or None
        Feature maps of the heads' queries and keys, as in `masked_attention`. Modules among them are trained along; the
        projection of `positive_features` and `relu_features` is saved in the state.
    global_tokens : int
        How many tokens in front see all others and are seen by all, with weight 1: the mask is that of the others.
    softmax : bool
        `softmax_attention` under the same mask in the place of linear attention, to compare with; features are not used
        then, and memory is O(L S).
    eps : float
        Added to every entry of A before it is normalised, in linear attention.
    bias : bool
        Whether projections have a bias.
    kdim, vdim : int, optional
        Sizes of the keys and values given, embed_dim by default.
    device, dtype
        Of the parameters.

    Raises
    ------
    ValueError
        If num_heads does not divide embed_dim, or global_tokens is negative.
    TypeError
        If the mask is neither a StructuredMatrix nor a MaskModule.

    Notes
    -----
    Shapes and `key_padding_mask` are as in ``torch.nn.MultiheadAttention(batch_first=True)``, and so is the
    initialisation; the result is one tensor, for linear attention never has the weights, and for the same reason there
    is no dropout of weights: put torch.nn.Dropout behind the layer.

    Examples
    --------
    >>> import torch
    >>> from structmask import Causal
    >>> from structmask.adapters.torch import MaskedLinearAttention
    >>> layer = MaskedLinearAttention(16, num_heads=4, mask=Causal(10, decay=0.9))
    >>> layer(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mask: Mask = None,
        features: Any = elu_features,
        global_tokens: int = 0,
        softmax: bool = False,
        eps: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            msg = f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}"
            raise ValueError(msg)
        if global_tokens < 0:
            msg = f"global_tokens must not be negative, got {global_tokens}"
            raise ValueError(msg)
        self.embed_dim, self.num_heads, self.global_tokens = embed_dim, num_heads, global_tokens
        self.softmax, self.eps = softmax, eps
        self.mask, self.features = _checked(mask), FeatureMaps(features)
        options: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.q_proj = torch.nn.Linear(embed_dim, embed_dim, **options)
        self.k_proj = torch.nn.Linear(embed_dim if kdim is None else kdim, embed_dim, **options)
        self.v_proj = torch.nn.Linear(embed_dim if vdim is None else vdim, embed_dim, **options)
        self.out_proj = torch.nn.Linear(embed_dim, embed_dim, **options)
        self._own = self._bordered(self.mask)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections anew, as torch.nn.MultiheadAttention does; the mask and the features stay."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            torch.nn.init.xavier_uniform_(projection.weight)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            if projection.bias is not None:
                torch.nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        key_padding_mask: Tensor | None = None,
        mask: Mask = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Attention of queries (..., L, embed_dim) to keys (..., S, kdim) with values (..., S, vdim).

        Parameters
        ----------
        query : tensor (..., L, embed_dim)
            Leading axes are none, or one batch axis.
        key, value : tensor (..., S, kdim) and (..., S, vdim), optional
            The query by default (self-attention), and the key.
        key_padding_mask : tensor of bool (..., S), optional
            True is padding.
        mask : StructuredMatrix or MaskModule, optional
            For this call, in the place of the layer's.
        lengths : sequence of int, optional
            Lengths of sequences packed one behind the other, L in all: a token sees its own sequence only, under the
            leading block of the mask (`packed`). Not with global tokens.

        Returns
        -------
        tensor (..., L, embed_dim)
        """
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        padding = None if key_padding_mask is None else key_padding_mask[..., None, :]
        structure, tensors = self._mask(_checked(mask), lengths)
        given: dict[str, Any] = {"mask": structure, "parameters": tensors, "key_padding_mask": padding}
        if self.softmax:
            out = softmax_attention(q, k, v, **given)
        else:
            out = masked_attention(q, k, v, **given, features=self.features.maps(), eps=self.eps)
        return self.out_proj(out.transpose(-3, -2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., L, embed_dim) as (..., num_heads, L, embed_dim / num_heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def _mask(self, other: Mask, lengths: Sequence[int] | None) -> tuple[StructuredMatrix | None, dict[str, Tensor]]:
        """The mask of a call, and tensors for its generators."""
        mask = self.mask if other is None else other
        tensors = mask.generators() if isinstance(mask, MaskModule) else {}
        if lengths is not None:
            if self.global_tokens:
                msg = "packed sequences cannot share global tokens; leave lengths or global_tokens out"
                raise ValueError(msg)
            return packed(_structure(mask), tensors, lengths)
        structure = self._own if other is None else self._bordered(other)
        return structure, {f"mask.{name}": x for name, x in tensors.items()} if self.global_tokens else tensors

    def _bordered(self, mask: Mask) -> StructuredMatrix | None:
        """The structure of a mask with the layer's global tokens in front."""
        own = _structure(mask)
        return own if own is None or not self.global_tokens else with_global_tokens(own, self.global_tokens)


class FeatureMaps(torch.nn.Module):
    """Feature maps inside a module: those that are modules train, and random projections are part of the state."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self._maps = features if isinstance(features, tuple) else (features,)
        self._is_pair = isinstance(features, tuple)
        for index, feature in enumerate(self._maps):
            projection = getattr(feature, "projection", None)
            if isinstance(feature, torch.nn.Module):
                self.add_module(str(index), feature)
            elif isinstance(projection, np.ndarray):
                self.register_buffer(str(index), torch.tensor(projection, dtype=torch.get_default_dtype()))

    def maps(self) -> Any:
        """The maps as `masked_attention` takes them."""
        found = tuple(
            dataclasses.replace(feature, projection=self._buffers[str(index)])
            if str(index) in self._buffers
            else feature
            for index, feature in enumerate(self._maps)
        )
        return found if self._is_pair else found[0]


def _structure(mask: Mask) -> StructuredMatrix | None:
    return mask.structure if isinstance(mask, MaskModule) else mask


def _checked(mask: Any) -> Mask:
    if mask is None or isinstance(mask, StructuredMatrix | MaskModule):
        return mask
    msg = (
        f"mask must be a StructuredMatrix, a MaskModule or None, got {type(mask).__name__}; wrap an array as "
        "structmask.Dense(mask)"
    )
    raise TypeError(msg)
