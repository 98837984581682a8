"""Walks drawn step by step: the same ones on every backend, whatever the number of threads.

Steps are chosen by Philox's counters (`backends.walk_kernels`): the key comes from the generator, the counter is the
number of the walk and of the step. A process jumps as the chain of its rates does, and stays in state i for an
exponential time of mean one over the rate of leaving i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import walk_kernels
from structmask.backends.arrays import Array
from structmask.graphs.walks import walk_plan


def simulated_walks(weights: Any, start: Array, steps: int, rng: np.random.Generator) -> Array:
    """States (..., steps + 1) of a walk from each of an array of states, steps in proportion to the weights."""
    plan = walk_plan(steps + 1, 1, 0.0, rng, repelling=False)
    paths = walk_kernels.random_walks(walk_kernels.steps(weights), start.reshape(-1), plan)
    return paths.reshape(*start.shape, steps + 1).astype(np.int64)


def simulated_jumps(A: Any, start: Array, steps: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """States (..., steps + 1) and the times (..., steps + 1) of their entry; a state without exits is kept for ever."""
    out = np.asarray(A.sum(axis=1)).reshape(-1)
    absorbed = scipy.sparse.diags_array((out == 0).astype(np.float64))
    states = simulated_walks(scipy.sparse.csr_array(A + absorbed), start, steps, rng)
    with np.errstate(divide="ignore"):
        stays = rng.standard_exponential((*start.shape, steps)) / out[states[..., :-1]]
    times = np.concatenate([np.zeros((*start.shape, 1)), np.cumsum(stays, axis=-1)], axis=-1)
    return states, times
