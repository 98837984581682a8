"""Products with Toeplitz matrices and their gradient, many columns at once, by the FFT of `fft_plan`.

A task is one batch entry and one block of 2V columns: V columns are the real, V the imaginary parts of V complex
signals. The matrix is real, so both sets of columns come out of one complex product. Tasks have in common only tables
that nobody writes: they are spread over the threads, every worker with its own scratch of h rows. Inside a task the
stages run depth first: a wide stage when its block is entered or left, the stages of a block that fits the L1 cache one
after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .fft_jobs import Job, block_widths, worker_count
from .fft_plan import GAP, Plan
from .fft_stages import (
    correlate_multiply_stage,
    correlate_stage,
    enter_columns,
    forward_stage,
    inverse_stage,
    leave_columns,
    multiply_stage,
)

LEAF_BYTES = 32 * 1024


@njit(nogil=True, cache=True)
def leaf_stage(lanes, rows, stages):
    """The first stage whose blocks fit the L1 cache (the last one if none does)."""
    leaf = LEAF_BYTES // (2 * len(lanes) * rows.itemsize)
    stage = 1
    while stage < len(stages) - 1 and stages[stage, 1] > leaf:
        stage += 1
    return stage


@njit(nogil=True, cache=True)
def descend(lanes, rows, base, start, low, stages, twiddles):
    """Forward stages but the last of the leaf at `start` of block `base`; wide ones where it begins their block."""
    for t in range(1, len(stages) - 1):
        size, end = stages[t, 1], start + stages[low, 1]
        if t < low:
            end = start + 1 if start % size == 0 else start
        for r in range(start, end, size):
            forward_stage(lanes, stages[t, 0], rows, base + r, stages[t + 1, 1], twiddles, stages[t, 2])


@njit(nogil=True, cache=True)
def ascend(lanes, rows, base, start, low, stages, twiddles):
    """The inverse of `descend`; wide stages where the leaf ends their block."""
    for t in range(len(stages) - 2, 0, -1):
        size, begin, end = stages[t, 1], start, start + stages[low, 1]
        if t < low:
            begin = end - size if end % size == 0 else end
        for r in range(begin, end, size):
            inverse_stage(lanes, stages[t, 0], rows, base + r, stages[t + 1, 1], twiddles, stages[t, 2])


@njit(nogil=True, cache=True)
def multiply(lanes, rows, stages, twiddles, spectrum):
    """All stages but first and last: forward, times one half of the spectrum, back."""
    low, stride, radix = leaf_stage(lanes, rows, stages), stages[1, 1], stages[-1, 0]
    leaf = stages[low, 1]
    for leg in range(stages[0, 0]):
        base = leg * (stride + GAP)
        for start in range(0, stride, leaf):
            descend(lanes, rows, base, start, low, stages, twiddles)
            multiply_stage(lanes, radix, rows, base + start, leaf // radix, spectrum, 2 * (leg * stride + start))
            ascend(lanes, rows, base, start, low, stages, twiddles)


@njit(nogil=True, cache=True)
def correlate(lanes, rows, signal, stages, twiddles, total):
    """Forward stages of F (rows 0..) and E (rows signal..); total += sum over lanes of E conj F."""
    low, stride, radix = leaf_stage(lanes, rows, stages), stages[1, 1], stages[-1, 0]
    leaf = stages[low, 1]
    for leg in range(stages[0, 0]):
        base = leg * (stride + GAP)
        for start in range(0, stride, leaf):
            place, table = base + start, 2 * (leg * stride + start)
            for shift in (0, signal):
                descend(lanes, rows, shift + base, start, low, stages, twiddles)
            correlate_stage(lanes, radix, rows, place, signal + place, leaf // radix, total, table)


@njit(nogil=True, cache=True)
def correlate_multiply(lanes, rows, signal, stages, twiddles, spectrum, total):
    """`correlate`, and both signals back: F times the spectrum, E times its conjugate (the transposed matrix)."""
    low, stride, radix = leaf_stage(lanes, rows, stages), stages[1, 1], stages[-1, 0]
    leaf = stages[low, 1]
    for leg in range(stages[0, 0]):
        base = leg * (stride + GAP)
        for start in range(0, stride, leaf):
            place, table = base + start, 2 * (leg * stride + start)
            for shift in (0, signal):
                descend(lanes, rows, shift + base, start, low, stages, twiddles)
            correlate_multiply_stage(lanes, radix, rows, place, signal + place, leaf // radix, spectrum, total, table)
            for shift in (0, signal):
                ascend(lanes, rows, shift + base, start, low, stages, twiddles)


@njit(nogil=True, cache=True)
def _set_scales(X, column, width, scales):
    """Powers of two that bring each column of a block to size one, and then their inverses.

    Two columns are the parts of one complex signal: a small one would take on the rounding of a large one beside it.
    """
    count = min(width, X.shape[1] - column)
    scales[:] = 0
    for r in range(X.shape[0]):
        for c in range(count):
            size = abs(X[r, column + c])
            scales[c] = size if size > scales[c] else scales[c]  # noqa: FURB136  max() would stop at a nan
    for c in range(width):
        exponent = 0
        if 0 < scales[c] < np.inf:
            exponent = min(max(math.frexp(scales[c])[1], -100), 100)
        scales[width + c] = 2.0**exponent if scales[c] > 0 else 0  # a column of zeros stays one
        scales[c] = 2.0**-exponent


def _product_tasks(_phase, worker, workers, lanes, legs, stages, twiddles, rows, spectrum, X, Y):
    (batch, n, k), m, width = X.shape, Y.shape[1], 2 * len(lanes)
    blocks, stride, scales = (k + width - 1) // width, stages[1, 1], np.empty(2 * width, rows.dtype)
    for task in range(worker, batch * blocks, workers):
        b, column = task // blocks, task % blocks * width
        table = spectrum[b % len(spectrum)]
        _set_scales(X[b], column, width, scales)
        for half in range(2):
            enter_columns(lanes, legs, half, X[b], n, k, column, rows, 0, stride, twiddles, scales)
            multiply(lanes, rows, stages, twiddles, table[half])
            leave_columns(lanes, legs, half, Y[b], m, k, column, rows, 0, stride, twiddles, scales)


def _correlation_tasks(_phase, worker, workers, lanes, legs, stages, twiddles, rows, X, P, total):
    """`total` (batch, parts, 2, 2h): columns are dealt to parts, so that a task owns its total."""
    (batch, n, k), m, width, parts = X.shape, P.shape[1], 2 * len(lanes), total.shape[1]
    stride = stages[1, 1]
    signal, ones = stages[0, 0] * (stride + GAP), np.ones(width, rows.dtype)
    for task in range(worker, batch * parts, workers):
        b, part = task // parts, task % parts
        for column in range(part * width, k, parts * width):
            for half in range(2):
                enter_columns(lanes, legs, half, X[b], n, k, column, rows, 0, stride, twiddles, ones)
                enter_columns(lanes, legs, half, P[b], m, k, column, rows, signal, stride, twiddles, ones)
                correlate(lanes, rows, signal, stages, twiddles, total[b, part, half])


PRODUCT = Job(_product_tasks, given=(3, 3), made=(3,))
CORRELATION = Job(_correlation_tasks, given=(3, 3), made=(4,))


def _blocks(plan: Plan, batch: int, k: int) -> tuple[int, int]:
    """Lanes and workers: the fewest rounds of tasks, narrow blocks on a tie."""
    wide, narrow = block_widths(plan)
    tasks = {lanes: batch * -(-k // (2 * lanes)) for lanes in (narrow, wide)}
    workers = {lanes: worker_count(plan, count) for lanes, count in tasks.items()}
    lanes = min(tasks, key=lambda lanes: -(-tasks[lanes] // workers[lanes]))
    return lanes, workers[lanes]


def product(plan: Plan, spectrum: NDArray[Any], X: NDArray[Any], /) -> NDArray[Any]:
    """Y = M X.

    Parameters
    ----------
    plan : for M of shape (m, n).
    spectrum : (D, 2, 2h) from `plan.spectrum`; D = 1 (one matrix for the whole batch) or D = batch.
    X : (batch, n, k).

    Returns
    -------
    Y (batch, m, k) in the dtype of the plan. Cost O(batch k h log h), scratch 2 V h numbers per thread.
    """
    batch, _, k = X.shape
    Y = np.empty((batch, plan.m, k), plan.dtype)
    if Y.size == 0:
        return Y
    X = np.ascontiguousarray(X, plan.dtype)
    lanes, workers = _blocks(plan, batch, k)
    PRODUCT.run(plan, lanes, workers, 1, spectrum, X, Y)
    return Y


def offsets_gradient(plan: Plan, P: NDArray[Any], X: NDArray[Any], D: int, /) -> NDArray[Any]:
    """Gradient of <P, M X> for the table of M: sum over columns, and i - j = s, of P_i X_j.

    Parameters
    ----------
    P, X : (batch, m, k) and (batch, n, k).
    D : 1 for a table shared by the batch (its gradients are added), or batch.

    Returns
    -------
    (D, m+n-1). One inverse transform: columns are added as spectra. Cost O(batch k h log h).
    """
    (batch, _, k), lanes = X.shape, block_widths(plan)[0]
    if X.size == 0:
        return np.zeros((D, plan.m + plan.n - 1), plan.dtype)
    P, X = (np.ascontiguousarray(A, plan.dtype) for A in (P, X))
    blocks = -(-k // (2 * lanes))
    workers = worker_count(plan, batch * blocks)
    parts = 1 if batch % workers == 0 else min(blocks, workers)
    total = np.zeros((batch, parts, 2, 2 * plan.h), plan.dtype)
    CORRELATION.run(plan, lanes, min(workers, batch * parts), 2, X, P, total)
    return gather_offsets(plan, total.sum(axis=1), D)


def gather_offsets(plan: Plan, total: NDArray[Any], D: int) -> NDArray[Any]:
    """Tables (D, m+n-1) from the correlation spectra (batch, 2, 2h) of every batch entry."""
    shared = total.sum(axis=0, keepdims=True, dtype=np.float64) if D == 1 else total
    return plan.offsets(shared).astype(plan.dtype)
