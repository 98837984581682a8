"""One small transformer, whose masks are all that differs between the models of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from structmask import Toeplitz
from structmask.adapters.torch import masked_attention


class RelativePositions(nn.Module):
    """A learnable Toeplitz mask exp(b[i - j]) over a grid, one table a head; it starts at b = 0, as no mask."""

    def __init__(self, heads: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        shape = (heads, *(2 * n - 1 for n in grid))
        self.structure = Toeplitz(np.ones(shape, dtype=np.float32), levels=len(grid))
        self.logarithms = nn.Parameter(torch.zeros(shape))

    def generators(self) -> dict[str, torch.Tensor]:
        return {"offsets": self.logarithms.exp()}


class Attention(nn.Module):
    """Attention of several heads: linear under a mask (fixed, learnable or given with the input), or softmax."""

    def __init__(self, dim: int, heads: int, *, mask: Any = None, softmax: bool = False) -> None:
        super().__init__()
        self.heads, self.softmax, self.mask = heads, softmax, mask
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: Any = None) -> torch.Tensor:
        q, k, v = self.inward(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
        if self.softmax:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            out = masked_attention(q, k, v, **_as_arguments(self.mask if mask is None else mask))
        return self.outward(out.transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside a skip connection."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.norms = attention, nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.perceptron = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor, mask: Any = None) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x), mask)
        return x + self.perceptron(self.norms[1](x))


class SequenceClassifier(nn.Module):
    """Tokens (B, L, features) to classes: blocks, the mean over tokens, one linear map."""

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        dim: int,
        layers: int,
        attention: Callable[[], Attention],
        positions: int | None = None,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, dim)
        self.positions = None if positions is None else nn.Parameter(0.02 * torch.randn(positions, dim))
        self.blocks = nn.ModuleList([Block(dim, attention()) for _ in range(layers)])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(-2))


def _as_arguments(mask: Any) -> dict[str, Any]:
    if isinstance(mask, nn.Module):
        return {"mask": mask.structure, "parameters": mask.generators()}
    return mask if isinstance(mask, dict) else {"mask": mask}
