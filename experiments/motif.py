"""Motif detection: does a random graph contain a planted motif?

Erdős–Rényi graphs of about sixty nodes, half of them with a motif, the others with a random graph of as many nodes
and edges in its place; new graphs for every seed. Nodes know the five largest degrees of their neighbours. The models
with attention are alike but for the mask. Graphs of a batch are stacked, with zeros of the mask where one is shorter
than the longest; masks are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments import command, graphs
from experiments.data import Packed, Split
from experiments.models import Block
from experiments.training import Budget, Variant
from structmask import Dense, StructuredMatrix
from structmask.adapters.torch import MaskedLinearAttention, matmul

FEATURES, CLASSES = 5, 2


@dataclass(frozen=True)
class Config:
    """Sizes of the data and of the models: half as many nodes as the paper's authors take, of the same mean degree."""

    motif: str = "caveman"
    nodes: int = 50
    p: float = 0.054
    p_join: float = 0.008
    train: int = 768
    validation: int = 256
    test: int = 512
    batch: int = 64
    heads: int = 2
    dim: int = 18
    layers: int = 2
    budget: Budget = Budget(epochs=25)


QUICK = Config(nodes=20, p=0.1, train=16, validation=8, test=8, batch=8, layers=1, budget=Budget(1, (1e-2,), 1))

MASKS: dict[str, Callable[[Sequence[graphs.Adjacency]], StructuredMatrix]] = {
    "walks, exact (GKAT)": graphs.walks_exact,
    "walks, sampled (GKAT)": graphs.walks_sampled,
    "diffusion": graphs.diffusion,
    "neighbours": graphs.neighbours,
    "no mask": graphs.no_mask,
}


class Attending(nn.Module):
    """Blocks of attention (or of what stands in its place) with the graphs' masks, then the mean over nodes."""

    def __init__(self, config: Config, mixing: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, config.dim)
        self.blocks = nn.ModuleList([Block(config.dim, mixing()) for _ in range(config.layers)])
        self.head = nn.Linear(config.dim, CLASSES)

    def forward(self, x: torch.Tensor, mask: Dense, weights: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.head((weights * x).sum(-2))


class Convolution(nn.Module):
    """The graph's propagation matrix in the place of attention, with as many parameters."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: torch.Tensor, *, mask: Dense) -> torch.Tensor:
        return self.outward(matmul(mask, self.inward(x).unsqueeze(1)).squeeze(1).relu())


class Convolving(nn.Module):
    """A graph convolutional network: H <- relu(S H W) with the propagation matrix S, then the mean over nodes."""

    def __init__(self, config: Config, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n, width) for n in (FEATURES, *[width] * (config.layers - 1))])
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor, mask: Dense, weights: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = matmul(mask, layer(x).unsqueeze(1)).squeeze(1).relu()
        return self.head((weights * x).sum(-2))


def variants(config: Config) -> list[Variant]:
    """Attention under each mask, convolutions, and the same blocks where no node sees another."""
    attending = partial(Attending, config, partial(MaskedLinearAttention, config.dim, config.heads))
    mixed = partial(Attending, config, partial(Convolution, config.dim))
    convolved = partial(split, config, graphs.gcn)
    return [
        *(Variant(name, attending, partial(split, config, mask)) for name, mask in MASKS.items()),
        Variant("GCN", partial(Convolving, config), convolved),
        Variant("GCN, in the same blocks", mixed, convolved),
        Variant("nodes alone, in the same blocks", mixed, partial(split, config, graphs.alone)),
    ]


@cache
def drawn(config: Config, seed: int) -> list[tuple[graphs.Adjacency, int]]:
    """Graphs and whether the motif is there, half and half, in random order."""
    rng = np.random.default_rng(seed)
    motif, count = graphs.MOTIFS[config.motif](), config.train + config.validation + config.test
    makers = (graphs.unplanted, graphs.planted)
    classes = rng.permutation(np.arange(count) % 2)
    return [(makers[c](motif, config.nodes, config.p, config.p_join, rng), int(c)) for c in classes]


@lru_cache(maxsize=1)
def split(config: Config, mask: Callable[[Sequence[graphs.Adjacency]], StructuredMatrix], seed: int) -> Split:
    """Batches with the masks of their graphs."""
    found = drawn(config, seed)
    ends = np.cumsum([config.train, config.validation, config.test])
    parts = (found[end - n : end] for n, end in zip((config.train, config.validation, config.test), ends, strict=True))
    return Split(*(_packed(part, mask, config.batch) for part in parts))


def _packed(part: list[Any], mask: Callable[[Sequence[graphs.Adjacency]], StructuredMatrix], size: int) -> Packed:
    batches = [part[start : start + size] for start in range(0, len(part), size)]
    return Packed(tuple(_batch([A for A, _ in one], [c for _, c in one], mask) for one in batches))


def _batch(
    found: list[graphs.Adjacency], classes: list[int], mask: Callable[[Sequence[graphs.Adjacency]], StructuredMatrix]
) -> tuple[tuple[Any, ...], torch.Tensor]:
    longest = max(A.shape[0] for A in found)
    x, weights = np.zeros((len(found), longest, FEATURES), np.float32), np.zeros((len(found), longest, 1), np.float32)
    for index, A in enumerate(found):
        n = A.shape[0]
        x[index, :n] = np.log1p(graphs.degree_features(A))
        weights[index, :n] = 1 / n
    return (torch.from_numpy(x), Dense(graphs.blocks(found, mask)[:, None]), torch.from_numpy(weights)), torch.tensor(
        classes
    )


def main(arguments: list[str] | None = None) -> None:
    command.main("motif", __doc__, Config(), QUICK, variants, arguments)


if __name__ == "__main__":
    main()
