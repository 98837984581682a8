"""Data from installed packages only, and batches of them. Nothing is downloaded."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class MissingDataError(RuntimeError):
    """A package that holds data is not installed."""


class Batches(Protocol):
    """Pairs of a model's inputs and their targets; in an order drawn from rng, or the same each time without one."""

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]: ...


@dataclass(frozen=True)
class Split:
    """What a model learns from, what its learning rate is chosen by, and what is reported."""

    train: Batches
    validation: Batches
    test: Batches


@dataclass(frozen=True)
class Samples:
    """Samples of one shape, in batches drawn anew for every epoch."""

    inputs: torch.Tensor
    targets: torch.Tensor
    size: int = 100

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
        n = len(self.targets)
        order = torch.from_numpy(np.arange(n) if rng is None else rng.permutation(n))
        for chosen in order.split(self.size):
            yield (self.inputs[chosen],), self.targets[chosen]


@dataclass(frozen=True)
class Packed:
    """Batches made once, because their masks are; only their order changes."""

    made: tuple[tuple[tuple[Any, ...], torch.Tensor], ...]

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
        for index in range(len(self.made)) if rng is None else rng.permutation(len(self.made)):
            yield self.made[index]


def fashion_mnist(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 28, 28) with values in [0, 1], and their classes; the name is "train" or "t10k"."""
    if not FASHION_MNIST.is_dir():
        msg = f"{FASHION_MNIST} does not exist; install the Debian package dataset-fashion-mnist"
        raise MissingDataError(msg)
    images = _idx(FASHION_MNIST / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = _idx(FASHION_MNIST / f"{name}-labels-idx1-ubyte.gz", 8)
    return torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


def mnist1d(seed: int, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences (n, 40) drawn by the package's own generator, and their classes."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        msg = "mnist1d is not installed; install the extra `experiments`, or `pip install mnist1d requests`"
        raise MissingDataError(msg) from error
    options = get_dataset_args()
    options.seed, options.num_samples, options.train_split = seed, samples, 1.0
    made = make_dataset(options)
    return torch.from_numpy(made["x"].astype(np.float32)), torch.from_numpy(made["y"].astype(np.int64))


def _idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)
