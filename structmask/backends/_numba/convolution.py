"""Products with Toeplitz matrices and their gradient, many columns at once, by the FFT of `fft_plan`.

A task is one batch entry and one block of V columns, one a lane (or fewer columns in several phases, see `polyphase`).
Tasks have in common only tables that nobody writes: they are spread over the threads, every worker with its own scratch
of h rows. Inside a task the
stages run depth first: a wide stage when its block is entered or left, the stages of a block that fits the L1 cache one
after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fft_jobs import Job, worker_count
from .fft_plan import RUN_IN, RUN_OUT, Plan
from .fft_stages import enter_columns, leave_columns
from .fft_walk import backward, chunk_rows, correlate, forward, multiply, part


@part
def _enter(lanes, axes, legs, level, stages, twiddles, rows, base, X, step, column):
    """The first level of a block of columns, forward."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_IN], chunk):
        count = min(chunk, level[RUN_IN] - begin)
        enter_columns(lanes, axes, legs, level, rows, base + begin, begin, count, X, step, column, X.size, twiddles)
        forward(lanes, axes, level, stages, twiddles, rows, base + begin, count)


@part
def _leave(lanes, axes, legs, level, stages, twiddles, rows, base, Y, step, column):
    """The first level back to a block of columns."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_OUT], chunk):
        count = min(chunk, level[RUN_OUT] - begin)
        backward(lanes, axes, level, stages, twiddles, rows, base + begin, count)
        leave_columns(lanes, axes, legs, level, rows, base + begin, begin, count, Y, step, column, Y.size, twiddles)


def _product_tasks(
    _turn, worker, workers, lanes, phases, group, axes, legs, sides, stages, twiddles, rows, spectrum, X, Y
):  # fmt: skip
    (batch, _, k), width, levels = X.shape, len(lanes), sides[0]
    step = len(phases) * k
    blocks = (step + width - 1) // width
    for task in range(worker, batch * blocks, workers):
        b, column = task // blocks, task % blocks * width
        _enter(lanes, axes, legs, levels[0], stages, twiddles, rows, 0, X[b], step, column)
        multiply(lanes, phases, group, axes, legs, levels, stages, twiddles, rows, spectrum[b % len(spectrum)])
        _leave(lanes, axes, legs, levels[0], stages, twiddles, rows, 0, Y[b], step, column)


def _correlation_tasks(
    _turn, worker, workers, lanes, _phases, _group, axes, legs, sides, stages, twiddles, rows, X, P, total
):  # fmt: skip
    """`total` (batch, parts, 2 size): columns are dealt to parts, so that a task owns its total."""
    (batch, _, k), width, parts = X.shape, len(lanes), total.shape[1]
    signal = rows.size // (4 * width)
    for task in range(worker, batch * parts, workers):
        b, part = task // parts, task % parts
        for column in range(part * width, k, parts * width):
            _enter(lanes, axes, legs, sides[0, 0], stages, twiddles, rows, 0, X[b], k, column)
            _enter(lanes, axes, legs, sides[1, 0], stages, twiddles, rows, signal, P[b], k, column)
            correlate(lanes, axes, legs, sides, stages, twiddles, rows, signal, total[b, part])


PRODUCT = Job(_product_tasks, given=(2, 3), made=(3,))
CORRELATION = Job(_correlation_tasks, given=(3, 3), made=(3,))


def product(plan: Plan, spectrum: NDArray[Any], X: NDArray[Any], /, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Y = M X.

    Parameters
    ----------
    plan : for M of shape (m, n).
    spectrum : (D, 2 size) from `plan.spectrum`; D = 1 (one matrix for the whole batch) or D = batch.
    X : (batch, n, k).
    out : where Y goes, contiguous; X itself where m = n.

    Returns
    -------
    Y (batch, m, k) in the dtype of the plan. Cost O(batch k h log h), scratch 2 V h numbers per thread.
    """
    batch, _, k = X.shape
    Y = np.empty((batch, plan.m, k), plan.dtype) if out is None else out
    if Y.size == 0:
        return Y
    X = np.ascontiguousarray(X, plan.dtype)
    workers = worker_count(plan, batch * -(-k // plan.lanes))
    PRODUCT.run(plan, workers, 1, spectrum, X, Y)
    return Y


def offsets_gradient(plan: Plan, P: NDArray[Any], X: NDArray[Any], D: int, /) -> NDArray[Any]:
    """Gradient of <P, M X> for the table of M: sum over columns, and i - j = s, of P_i X_j.

    Parameters
    ----------
    P, X : (batch, m, k) and (batch, n, k).
    D : 1 for a table shared by the batch (its gradients are added), or batch.

    Returns
    -------
    (D, m_1+n_1-1, ...). One inverse transform: columns are added as spectra. Cost O(batch k h log h).
    """
    batch, _, k = X.shape
    if X.size == 0:
        return np.zeros((D, *plan.table_shape), plan.dtype)
    P, X = (np.ascontiguousarray(A, plan.dtype) for A in (P, X))
    blocks = -(-k // plan.lanes)
    workers = worker_count(plan, batch * blocks)
    parts = 1 if batch % workers == 0 else min(blocks, workers)
    total = np.zeros((batch, parts, 2 * plan.size), plan.dtype)
    CORRELATION.run(plan, min(workers, batch * parts), 2, X, P, total)
    return gather_offsets(plan, total.sum(axis=1), D)


def gather_offsets(plan: Plan, total: NDArray[Any], D: int) -> NDArray[Any]:
    """Tables (D, m_1+n_1-1, ...) from the correlation spectra (batch, 2 size) of every batch entry."""
    shared = total.sum(axis=0, keepdims=True, dtype=np.float64) if D == 1 else total
    return plan.offsets(shared).astype(plan.dtype)
