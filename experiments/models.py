"""One small transformer, whose masks are all that differs between the models of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside a skip connection."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.norms = attention, nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.perceptron = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor, mask: Any = None) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x), mask=mask)
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
        attention: Callable[[], nn.Module],
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
