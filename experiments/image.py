"""Images: a small topological vision transformer, whose mask over the grid of patches is learnt.

Fashion-MNIST, a sample of the training images for each seed, patches of 4 x 4 pixels. The models are alike but for the
mask: none, relative positions along the rows of patches as one sequence, relative positions in the plane. Softmax
attention, and learnt absolute positions, are there to compare with. In the control all images have their pixels in one
random order: neighbours mean nothing, and what a mask of the plane gains must vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from experiments import command
from experiments.data import Samples, Split, fashion_mnist
from experiments.models import SequenceClassifier
from experiments.training import Budget, Variant
from structmask.adapters.torch import MaskedLinearAttention, RelativePositionMask

CLASSES, SIDE = 10, 28


@dataclass(frozen=True)
class Config:
    """Sizes of the data and of the models."""

    train: int = 3000
    validation: int = 500
    test: int = 2000
    patch: int = 4
    dim: int = 16
    heads: int = 2
    layers: int = 2
    budget: Budget = Budget(epochs=16)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in each direction."""
        return SIDE // self.patch, SIDE // self.patch

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]


QUICK = Config(train=100, validation=50, test=50, patch=7, dim=8, heads=2, layers=1, budget=Budget(1, (1e-2,), 1))


def variants(config: Config) -> list[Variant]:
    """Masks, what they are compared with, and the control."""
    tables = {"no mask": None, "1-D mask": (config.tokens,), "2-D mask": config.grid}
    natural, permuted = (partial(split, config, permute=permute) for permute in (False, True))

    def attention(name: str) -> MaskedLinearAttention:
        grid = tables.get(name)
        mask = None if grid is None else RelativePositionMask(grid, heads=config.heads)
        return MaskedLinearAttention(config.dim, config.heads, mask=mask, softmax=name == "softmax")

    def model(name: str, positions: int | None) -> SequenceClassifier:
        sizes = {"dim": config.dim, "layers": config.layers, "positions": positions}
        return SequenceClassifier(config.patch**2, CLASSES, attention=partial(attention, name), **sizes)

    rows = [(name, name, None, natural) for name in tables]
    rows += [
        (f"{name}, absolute positions", name, config.tokens, natural) for name in ("no mask", "2-D mask", "softmax")
    ]
    rows += [(f"{name}, permuted pixels", name, None, permuted) for name in ("no mask", "2-D mask")]
    return [Variant(name, partial(model, kind, positions), data) for name, kind, positions, data in rows]


@cache
def split(config: Config, seed: int, *, permute: bool) -> Split:
    """Training and validation images drawn for every seed; the test images are the first of the test set."""
    order = np.random.default_rng(seed).permutation(60_000)
    parts = order[: config.train], order[config.train : config.train + config.validation]
    images, labels = fashion_mnist("train")
    train, validation = (Samples(_patches(images[part], config.patch, permute=permute), labels[part]) for part in parts)
    images, labels = (x[: config.test] for x in fashion_mnist("t10k"))
    return Split(train, validation, Samples(_patches(images, config.patch, permute=permute), labels))


def _patches(images: torch.Tensor, side: int, *, permute: bool) -> torch.Tensor:
    """(n, 28, 28) as tokens (n, L, side²), row by row."""
    pixels = images.flatten(1)
    if permute:
        pixels = pixels[:, torch.from_numpy(np.random.default_rng(0).permutation(SIDE**2))]
    folded = pixels.unflatten(1, (SIDE // side, side, SIDE // side, side))
    return folded.transpose(2, 3).reshape(len(images), -1, side**2) - 0.5


def main(arguments: list[str] | None = None) -> None:
    command.main("image", __doc__, Config(), QUICK, variants, arguments)


if __name__ == "__main__":
    main()
