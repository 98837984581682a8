"""One-dimensional sequences: masks in the place of positions.

The data are those of mnist1d, drawn anew for each seed: 40 numbers, ten classes, each number a token. The models are
alike but for the mask; one has learnt absolute positions in its place. In the last two the tokens of all sequences are
in one random order, in which neighbours mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from experiments import command
from experiments.data import Samples, Split, mnist1d
from experiments.models import SequenceClassifier
from experiments.training import Budget, Variant
from structmask import Causal
from structmask.adapters.torch import MaskedLinearAttention, RelativePositionMask

LENGTH, CLASSES = 40, 10


@dataclass(frozen=True)
class Config:
    """Sizes of the data and of the models."""

    train: int = 4000
    validation: int = 500
    test: int = 1000
    dim: int = 16
    heads: int = 2
    layers: int = 2
    budget: Budget = Budget(epochs=30)


QUICK = Config(train=100, validation=50, test=50, dim=8, heads=2, layers=1, budget=Budget(1, (1e-2,), 1))


def variants(config: Config) -> list[Variant]:
    """Masks, absolute positions, and the control in a random order."""
    heads = config.heads
    masks = {
        "no mask": lambda: None,
        "causal": lambda: Causal(LENGTH),
        "1-D mask": lambda: RelativePositionMask(LENGTH, heads=heads),
    }
    ordered, shuffled = (partial(split, config, shuffle=shuffle) for shuffle in (False, True))
    rows = [(name, name, None, ordered) for name in masks]
    rows.append(("no mask, absolute positions", "no mask", LENGTH, ordered))
    rows += [(f"{name}, random order", name, None, shuffled) for name in ("no mask", "1-D mask")]

    def model(mask: str, positions: int | None) -> SequenceClassifier:
        return SequenceClassifier(
            1,
            CLASSES,
            dim=config.dim,
            layers=config.layers,
            attention=lambda: MaskedLinearAttention(config.dim, heads, mask=masks[mask]()),
            positions=positions,
        )

    return [Variant(name, partial(model, mask, positions), data) for name, mask, positions, data in rows]


@cache
def split(config: Config, seed: int, *, shuffle: bool) -> Split:
    """New sequences for every seed; in one random order of the tokens if asked."""
    sizes = [config.train, config.validation, config.test]
    x, y = mnist1d(seed, sum(sizes))
    if shuffle:
        x = x[:, torch.from_numpy(np.random.default_rng(0).permutation(LENGTH))]
    return Split(*(Samples(*part) for part in zip(x[..., None].split(sizes), y.split(sizes), strict=True)))


def main(arguments: list[str] | None = None) -> None:
    command.main("sequence", __doc__, Config(), QUICK, variants, arguments)


if __name__ == "__main__":
    main()
