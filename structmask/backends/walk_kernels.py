"""Random walks and rows of matrix powers: one entry each, to numba for host arrays, else to the standard form."""

from __future__ import annotations

import numpy as np

from structmask.backends import _standard_walks as standard
from structmask.backends._standard_walks import WORD, Loads, Plan, Steps
from structmask.backends.arrays import Array, cast, home
from structmask.backends.config import get_backend
from structmask.backends.kernels import numba_runs

__all__ = [
    "WORD",
    "Loads",
    "Plan",
    "Steps",
    "power_gram",
    "power_gram_pullback",
    "random_walks",
    "steps",
    "walk_features",
    "walk_loads",
]


def steps(W: Array) -> Steps:
    """The steps of walks on a graph of positive weights, a host CSR matrix without stored zeros."""
    indptr, indices = W.indptr.astype(np.int64), W.indices.astype(np.int32)
    first = W.data[np.minimum(indptr[:-1], max(0, W.data.size - 1))] if W.data.size else np.zeros(W.shape[0])
    if np.array_equal(W.data, np.repeat(first, np.diff(indptr))):  # one weight a row: no table
        return Steps(indptr, indices, np.zeros(0, np.uint32), np.zeros(0, np.int32))
    threshold, alias = np.empty(W.data.size, np.uint32), np.empty(W.data.size, np.int32)
    weights = cast(W.data, "float64")
    if _compiled():
        from structmask.backends._numba.walks import alias_tables

        alias_tables(indptr, weights, threshold, alias)
    else:
        standard.alias_tables(indptr, weights, threshold, alias)
    return Steps(indptr, indices, threshold, alias)


def random_walks(steps: Steps, starts: Array, plan: Plan, first: int = 0) -> Array:
    """Nodes (len(starts) * walks, length) of walks from each start, numbered from `first`; -1 where one has ended.

    They run where the steps are; starts are int64 numbers.
    """
    if home(steps.indptr) == "cupy":
        from structmask.backends._cupy import random_walks as launch

        return launch(steps, starts, plan, first)
    starts = np.asarray(starts, dtype=np.int64)
    if not _compiled():
        return standard.random_walks(steps, starts, plan, first)
    from structmask.backends._numba.walks import random_walks as walk

    return walk(steps, starts, plan, first)


def walk_features(steps: Steps, gain: Array, modulation: Array, plan: Plan) -> tuple[Array, Array, Array]:
    """CSR arrays (indptr, indices, data) of means over the walks from every node, in double precision.

    F_iv is the mean of sum_l modulation_l load_l over the visits l of v; the load is multiplied by gain (n,) of every
    node that is left, and stays one without gains (0,).
    """
    if home(steps.indptr) == "cupy":
        from structmask.backends._cupy import walk_features as on_device

        return on_device(steps, gain, modulation, plan)
    gain, modulation = np.asarray(gain, dtype=np.float64), np.asarray(modulation, dtype=np.float64)
    if not _compiled():
        return standard.walk_features(steps, gain, modulation, plan)
    from structmask.backends._numba.walks import walk_features as walk

    return walk(steps, gain, modulation, plan)


def walk_loads(steps: Steps, gain: Array, plan: Plan) -> Loads:
    """Features of walks as a linear function of the modulation, in double precision; O(visits log visits)."""
    gain = np.asarray(gain, dtype=np.float64)
    return standard.walk_loads(steps, gain, plan, random_walks)


def power_gram(P: Array, rows: range, length: int) -> Array:
    """H (rows, length, length), H_ilm = sum_v (P^l)_iv (P^m)_iv for a range of rows of a sparse P (n, n)."""
    if not numba_runs(P.data):
        return standard.power_gram(P, rows, length)
    from structmask.backends._numba.gram import power_gram as gram

    return gram(P.indptr, P.indices, P.data, rows, length)


def power_gram_pullback(P: Array, sources: Array, rows: range, weights: Array) -> Array:
    """Gradient (edges,) of sum_ilm weights_ilm H_ilm for the entries of P; weights (rows, L, L) symmetric in l, m."""
    if not numba_runs(P.data, weights):
        return standard.power_gram_pullback(P, sources, rows, weights)
    from structmask.backends._numba.gram import power_gram_pullback as pullback

    return pullback(P.indptr, P.indices, P.data, rows, weights)


def _compiled() -> bool:
    """Whether walks, which live on the host, run compiled."""
    return get_backend() != "numpy"
