"""Graphs to walk on, how walks are drawn, and what they leave behind."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import walk_kernels
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import as_adjacency


def walkable(graph: Any) -> Any:
    """Adjacency matrix with positive weights only: zeros are no edges, negative ones an error."""
    W = as_adjacency(graph)
    if W.nnz and W.data.min() < 0:
        msg = f"random walks need weights >= 0, got {W.data.min():.3g}; take absolute values if that fits"
        raise ValueError(msg)
    if W.nnz and W.data.min() == 0:
        W = W.copy()
        W.eliminate_zeros()
    return W


def transition(W: Any) -> Any:
    """P = D^-1 W in the precision of W; rows without entries stay empty."""
    d = np.asarray(W.sum(axis=1, dtype=np.float64))
    data = (W.data / np.repeat(d, np.diff(W.indptr))).astype(W.dtype)
    return scipy.sparse.csr_array((data, W.indices, W.indptr), shape=W.shape)


def walk_plan(
    length: int, walks: int, stop: float, rng: np.random.Generator, *, repelling: bool, draw: int = 0
) -> walk_kernels.Plan:
    """How to draw walks, with a key from a generator; `stop` on a grid of 2^-32."""
    threshold = min(round(stop * walk_kernels.WORD), walk_kernels.WORD - 1)
    key = int(rng.integers(0, 1 << 64, dtype=np.uint64))
    return walk_kernels.Plan(length, walks, threshold, key, draw, bool(repelling))


def sampled_features(W: Any, gain: Array, modulation: Array, plan: walk_kernels.Plan) -> Any:
    """F (n, n) as csr_array in double precision: means over walks of modulation_l times the load, by visited node."""
    indptr, indices, data = walk_kernels.walk_features(walk_kernels.steps(W), gain, modulation, plan)
    F = scipy.sparse.csr_array((data, indices, indptr), shape=W.shape)
    F.has_canonical_format = True  # rows are sorted and without duplicates
    return F


def in_precision(F: Any, W: Any) -> Any:
    """Sampled features in the precision of the weights."""
    return F if F.dtype == W.dtype else F.astype(W.dtype)


def check_count(value: Any, name: str, what: str) -> int:
    """An integer of at least one."""
    count = operator.index(value)
    if count < 1:
        msg = f"{name} counts {what}: it must be at least 1, got {count}"
        raise ValueError(msg)
    return count


def check_stop(stop: Any) -> None:
    """A probability in [0, 1)."""
    if not 0 <= stop < 1:
        msg = f"stop is the probability to end before each step and must be in [0, 1), got {stop!r}"
        raise ValueError(msg)
