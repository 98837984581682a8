"""One training loop, and one way to tune: the rate of a grid that is best on validation data, for a seed of its own."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from experiments.data import Batches, Split

IGNORED = -100  # the target of a token that is not to be classified
TUNING = 1000  # the seed that rates are chosen with; no result of it is reported


@dataclass(frozen=True)
class Budget:
    """What every model of an experiment gets alike."""

    epochs: int
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    seeds: int = 3


@dataclass(frozen=True)
class Variant:
    """A model, and the data (drawn from a seed) that it is trained on."""

    name: str
    model: Callable[[], torch.nn.Module]
    data: Callable[[int], Split]


@dataclass(frozen=True)
class Run:
    """A row of the results: accuracies of the epoch best on validation data. What only tunes is not reported."""

    variant: str
    seed: int
    rate: float
    reported: bool
    epoch: int
    validation: float
    test: float
    parameters: int


def compare(variants: Sequence[Variant], budget: Budget) -> Iterator[Run]:
    """Tune each model's rate with the data and weights of one seed, then train it with that rate for all others."""
    for variant in variants:
        tried = []
        for rate in budget.rates:
            tried.append(trained(variant, TUNING, rate, budget.epochs))
            yield _told(tried[-1])
        best = max(tried, key=lambda run: run.validation)
        for seed in range(budget.seeds):
            yield _told(trained(variant, seed, best.rate, budget.epochs))


def _told(run: Run) -> Run:
    print(f"  {run.variant}: {run.rate:g}, seed {run.seed}: {run.test:.3f}", file=sys.stderr, flush=True)
    return run


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
        reported=seed != TUNING,
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
