"""Walks drawn step by step: the same ones on every backend, whatever the number of threads.

Steps are chosen by Philox's counters (`backends.walk_kernels`): the key comes from the generator, the counter is the
number of the walk and of the step. A process jumps as the chain of its rates does, and stays in state i for an
exponential time of mean one over the rate of leaving i.
"""

from __future__ import annotations

import numpy as np

from structmask.backends import arrays, walk_kernels
from structmask.backends.arrays import Array
from structmask.backends.walk_kernels import Steps
from structmask.graphs.walks import walk_plan


def simulated_walks(steps: Steps, start: Array, count: int, rng: np.random.Generator) -> Array:
    """States (..., count + 1) of a walk from each of an array of states, where the steps are."""
    plan = walk_plan(count + 1, 1, 0.0, rng, repelling=False)
    first = arrays.move(start.reshape(-1), arrays.home(steps.indptr))
    paths = walk_kernels.random_walks(steps, first, plan)
    return arrays.cast(paths.reshape(*start.shape, count + 1), "int64")


def simulated_jumps(
    steps: Steps, out: Array, start: Array, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """States (..., count + 1) and the times (..., count + 1) of their entry; `out` (n,) are the rates of leaving."""
    states = simulated_walks(steps, start, count, rng)
    home, xp = arrays.home(states), arrays.namespace(states)
    with np.errstate(divide="ignore"):
        drawn, rates = (arrays.move(a, home) for a in (rng.standard_exponential((*start.shape, count)), out))
        stays = drawn / rates[states[..., :-1]]
    never = xp.zeros((*start.shape, 1), dtype=xp.float64)
    return states, xp.concat([never, xp.cumsum(stays, axis=-1)], axis=-1)
