"""One training loop, and one way to tune: the rate that is best on validation data for the first seed, of one grid."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from experiments.data import Batches, Split

IGNORED = -100  # the target of a token that is not to be classified


@dataclass(frozen=True)
class Budget:
    """What every model of an experiment gets alike."""

    epochs: int
    rates: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class Variant:
    """A model, and the data (drawn from a seed) that it is trained on."""

    name: str
    model: Callable[[], torch.nn.Module]
    data: Callable[[int], Split]


@dataclass(frozen=True)
class Run:
    """A row of the results: accuracies of the epoch that is best on validation data; `chosen` rates are reported."""

    variant: str
    seed: int
    rate: float
    chosen: bool
    epoch: int
    validation: float
    test: float
    parameters: int


def compare(variants: Sequence[Variant], budget: Budget) -> Iterator[Run]:
    """Tune each model's rate on the first seed, then train it with that rate on the other seeds."""
    for variant in variants:
        tried = [trained(variant, 0, rate, budget.epochs) for rate in budget.rates]
        best = max(tried, key=lambda run: run.validation)
        others = (trained(variant, seed, best.rate, budget.epochs) for seed in range(1, budget.seeds))
        for run in (*tried, *others):
            row = replace(run, chosen=run.rate == best.rate)
            print(f"  {row.variant}: {row.rate:g}, seed {row.seed}: {row.test:.3f}", file=sys.stderr, flush=True)
            yield row


def trained(variant: Variant, seed: int, rate: float, epochs: int) -> Run:
    """Adam with a rate that falls to zero along a cosine; the epoch that is best on validation data counts."""
    data = variant.data(seed)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = variant.model()
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    best, state, epoch = -1.0, {}, 0
    for current in range(epochs):
        _epoch(model, data.train, optimiser, rng)
        schedule.step()
        if (value := accuracy(model, data.validation)) > best:
            best, state, epoch = value, copy.deepcopy(model.state_dict()), current + 1
    model.load_state_dict(state)
    size = sum(p.numel() for p in model.parameters())
    return Run(
        variant=variant.name,
        seed=seed,
        rate=rate,
        chosen=False,
        epoch=epoch,
        validation=best,
        test=accuracy(model, data.test),
        parameters=size,
    )


def accuracy(model: torch.nn.Module, data: Batches) -> float:
    """Fraction of the targets that the model finds."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for inputs, targets in data.batches():
            asked = targets != IGNORED
            right += int((model(*inputs).argmax(-1) == targets)[asked].sum())
            total += int(asked.sum())
    return right / total


def _epoch(model: torch.nn.Module, data: Batches, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> None:
    model.train()
    for inputs, targets in data.batches(rng):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(*inputs), targets, ignore_index=IGNORED).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
