"""Fused products with M * (F G^T), M Toeplitz, and their gradients: masked attention without the n x r x k array.

    Y = sum_r diag(F_r) M diag(G_r) X,   columns of the transform: pairs (r, c) of a feature and a column of X.

The first stage of the FFT makes the columns G_jr X_jc, the last one contracts them with F_ir: they exist in one
scratch of h rows. V of them are transformed together, one value of an index ("singles") times V values of the other
("blocks" of V lanes). Either index may be the lanes, since Y_c, X_c and F_r, G_r play symmetric parts; the choice that
wastes fewer lanes is taken:

    lanes are columns    signal G_r (x) block(X),   Y block += F_r . signal            (a sum over singles)
    lanes are features   signal X_c (x) block(G),   Y_c     += block(F) . signal       (a sum over lanes)

The gradients of <P, Y> need two signals, M (G (x) X) and M^T (F (x) P), in one walk: at the innermost stage their
spectra also meet in the gradient of the table, sum over all columns of FFT(F (x) P) conj FFT(G (x) X).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .convolution import gather_offsets
from .fft_jobs import Job, worker_count
from .fft_plan import RUN_IN, RUN_OUT, Plan
from .fft_stages import enter_outer, leave_to_block, leave_to_both, leave_to_single
from .fft_walk import backward, chunk_rows, correlate_multiply, forward, multiply, part
from .scratch import borrowed_arrays

# A sum over lanes costs a little more than a sum over singles.
FEATURE_LANES_COST = 1.04
TILE = 32


@njit(nogil=True, cache=True)
def _pack(worker, workers, A, packed):
    """Columns of A (batch, n, columns) in groups: packed (batch, groups, h, width), padded with zeros."""
    (_, n, columns), (batch, groups, h, width) = A.shape, packed.shape
    for begin in range(worker * TILE, h, workers * TILE):
        for b in range(batch):
            for g in range(groups):
                for i in range(begin, min(begin + TILE, h)):
                    for lane in range(width):
                        c = g * width + lane
                        packed[b, g, i, lane] = A[b, i, c] if i < n and c < columns else 0


@njit(nogil=True, cache=True)
def _clear(worker, workers, A):
    """A = 0, a slice of it by each worker."""
    flat = A.reshape(-1)
    flat[flat.size * worker // workers : flat.size * (worker + 1) // workers] = 0


@njit(nogil=True, cache=True)
def _unpack(worker, workers, totals, A):
    """A = the sum over parts of totals (parts, batch, groups, h, width), the inverse of `_pack`."""
    (batch, n, columns), (parts, _, groups, _, width) = A.shape, totals.shape
    for begin in range(worker * TILE, n, workers * TILE):
        for b in range(batch):
            for g in range(groups):
                for i in range(begin, min(begin + TILE, n)):
                    for lane in range(min(width, columns - g * width)):
                        total = totals[0, b, g, i, lane]
                        for other in range(1, parts):
                            total += totals[other, b, g, i, lane]
                        A[b, i, g * width + lane] = total


@part
def _enter(lanes, axes, legs, level, stages, twiddles, rows, base, single, block):
    """The first level of the products of a single and a block, forward."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_IN], chunk):
        count = min(chunk, level[RUN_IN] - begin)
        enter_outer(lanes, axes, legs, level, rows, base + begin, begin, count, single, block, twiddles)
        forward(lanes, axes, level, stages, twiddles, rows, base + begin, count)


@part
def _to_block(lanes, axes, legs, level, stages, twiddles, rows, base, single, total):
    """The first level back, contracted with a single."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_OUT], chunk):
        count = min(chunk, level[RUN_OUT] - begin)
        backward(lanes, axes, level, stages, twiddles, rows, base + begin, count)
        leave_to_block(lanes, axes, legs, level, rows, base + begin, begin, count, single, total, twiddles)


@part
def _to_single(lanes, axes, legs, level, stages, twiddles, rows, base, block, total):
    """The first level back, contracted with a block."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_OUT], chunk):
        count = min(chunk, level[RUN_OUT] - begin)
        backward(lanes, axes, level, stages, twiddles, rows, base + begin, count)
        leave_to_single(lanes, axes, legs, level, rows, base + begin, begin, count, block, total, twiddles)


@part
def _to_both(lanes, axes, legs, level, stages, twiddles, rows, base, single, block, single_total, block_total):
    """Both."""
    chunk = chunk_rows(level)
    for begin in range(0, level[RUN_OUT], chunk):
        count = min(chunk, level[RUN_OUT] - begin)
        backward(lanes, axes, level, stages, twiddles, rows, base + begin, count)
        leave_to_both(
            lanes, axes, legs, level, rows, base + begin, begin, count, single, block, single_total, block_total,
            twiddles,
        )  # fmt: skip


def _hadamard_tasks(
    turn, worker, workers, lanes, phases, group, axes, legs, sides, stages, twiddles, rows, spectrum, features, first,
    second, third, singles, blocks, left, totals, Y,
):  # fmt: skip
    if turn == 0:
        _pack(worker, workers, first, singles)
        _pack(worker, workers, second, blocks)
        _pack(worker, workers, third, left)
        _clear(worker, workers, totals)
    elif turn == 1:
        _contract(
            worker, workers, lanes, phases, group, axes, legs, sides[0], stages, twiddles, rows, spectrum, features,
            singles, blocks, left, totals,
        )  # fmt: skip
    else:
        _unpack(worker, workers, totals, Y)


@part
def _contract(
    worker, workers, lanes, phases, group, axes, legs, levels, stages, twiddles, rows, spectrum, features, singles,
    blocks, left, totals,
):  # fmt: skip
    """One task: a block of Y (a single, if lanes are features) of one batch entry, and a part of the sum."""
    (parts, batch, owned, _, _), level = totals.shape, levels[0]
    summed = blocks.shape[1] if features else singles.shape[1]
    for task in range(worker, parts * batch * owned, workers):
        part, b, own = task // (batch * owned), task // owned % batch, task % owned
        table, total = spectrum[b % len(spectrum)], totals[part, b, own]
        for other in range(part, summed, parts):
            single, block = (own, other) if features else (other, own)
            _enter(lanes, axes, legs, level, stages, twiddles, rows, 0, singles[b, single], blocks[b, block])
            multiply(lanes, phases, group, axes, legs, levels, stages, twiddles, rows, table)
            if features:
                _to_single(lanes, axes, legs, level, stages, twiddles, rows, 0, left[b, block], total)
            else:
                _to_block(lanes, axes, legs, level, stages, twiddles, rows, 0, left[b, single], total)


def _pullback_tasks(
    turn, worker, workers, lanes, phases, group, axes, legs, sides, stages, twiddles, rows, spectrum, features, first,
    second, third, fourth, singles, blocks, left_singles, left_blocks, d_singles, d_blocks, d_left, d_spectrum, d_first,
    d_second, d_third,
):  # fmt: skip
    if turn == 0:
        _pack(worker, workers, first, singles)
        _pack(worker, workers, second, blocks)
        _pack(worker, workers, third, left_singles)
        _pack(worker, workers, fourth, left_blocks)
        _clear(worker, workers, d_singles)
        _clear(worker, workers, d_blocks)
        _clear(worker, workers, d_left)
    elif turn == 1:
        _differentiate(
            worker, workers, lanes, axes, legs, sides, stages, twiddles, rows, spectrum, features, singles, blocks,
            left_singles, left_blocks, d_singles, d_blocks, d_left, d_spectrum,
        )  # fmt: skip
    else:
        _unpack(worker, workers, d_singles, d_first)
        _unpack(worker, workers, d_blocks, d_second)
        _unpack(worker, workers, d_left, d_third)


@part
def _differentiate(
    worker, workers, lanes, axes, legs, sides, stages, twiddles, rows, spectrum, features, singles, blocks,
    left_singles, left_blocks, d_singles, d_blocks, d_left, d_spectrum,
):  # fmt: skip
    """One task: every so many blocks and singles of one batch entry; it owns a slice of each total."""
    (batch, groups, _, _), block_parts, single_parts = blocks.shape, len(d_singles), len(d_blocks)
    right, left, signal = sides[0, 0], sides[1, 0], rows.size // (4 * len(lanes))
    for task in range(worker, batch * block_parts * single_parts, workers):
        b, u, v = task // (block_parts * single_parts), task // single_parts % block_parts, task % single_parts
        table, total = spectrum[b % len(spectrum)], d_spectrum[b, u * single_parts + v]
        for block in range(u, groups, block_parts):
            right_block, left_block, d_block = blocks[b, block], left_blocks[b, block], d_blocks[v, b, block]
            for single in range(v, singles.shape[1], single_parts):
                right_single, left_single = singles[b, single], left_singles[b, single]
                _enter(lanes, axes, legs, right, stages, twiddles, rows, 0, right_single, right_block)
                _enter(lanes, axes, legs, left, stages, twiddles, rows, signal, left_single, left_block)
                correlate_multiply(lanes, axes, legs, sides, stages, twiddles, rows, signal, table, total)
                if features:
                    _to_block(lanes, axes, legs, right, stages, twiddles, rows, 0, left_single, d_left[v, b, block])
                else:
                    _to_single(lanes, axes, legs, right, stages, twiddles, rows, 0, left_block, d_left[u, b, single])
                _to_both(
                    lanes, axes, legs, left, stages, twiddles, rows, signal, right_single, right_block,
                    d_singles[u, b, single], d_block,
                )  # fmt: skip


HADAMARD = Job(_hadamard_tasks, given=(2, 0, 3, 3, 3), made=(4, 4, 4, 5, 3), turns=3)
PULLBACK = Job(_pullback_tasks, given=(2, 0, 3, 3, 3, 3), made=(4, 4, 4, 4, 5, 5, 5, 3, 3, 3, 3), turns=3)


def _groups(columns: int, width: int) -> int:
    return -(-columns // width)


def _packed(batch: int, columns: int, rows: int, width: int) -> tuple[int, int, int, int]:
    """Shape of columns in groups, see `_pack`."""
    return batch, _groups(columns, width), rows, width


def _lanes_are_features(r: int, k: int, lanes: int) -> bool:
    return FEATURE_LANES_COST * k * _groups(r, lanes) < r * _groups(k, lanes)


def _parts(tasks: int, most: int, workers: int) -> int:
    """In how many parts to cut each of `tasks` independent tasks, so that all workers are busy."""
    return 1 if tasks % workers == 0 or tasks >= 4 * workers else min(most, workers)


def hadamard(plan: Plan, spectrum: NDArray[Any], F: NDArray[Any], G: NDArray[Any], X: NDArray[Any], /) -> NDArray[Any]:
    """Y = (M * (F G^T)) X = sum_r diag(F_r) M diag(G_r) X.

    Parameters
    ----------
    plan, spectrum : of M (m, n), see `convolution.product`.
    F, G, X : (batch, m, r), (batch, n, r), (batch, n, k).

    Returns
    -------
    Y (batch, m, k) in the dtype of the plan. Cost O(batch r k N log N), memory O(batch N (r + k)) and scratch 2 V N
    per thread, N = n and little more.
    """
    (batch, _, r), k = G.shape, X.shape[2]
    Y = np.zeros((batch, plan.m, k), plan.dtype)
    if Y.size == 0 or r == 0:
        return Y
    lanes, dtype = plan.lanes, plan.dtype
    F, G, X = (np.ascontiguousarray(A, dtype) for A in (F, G, X))
    features = _lanes_are_features(r, k, lanes)
    of_singles, of_blocks = (k, r) if features else (r, k)
    right, above = plan.padded(transposed=False), plan.padded(transposed=True)
    singles, blocks = _packed(batch, of_singles, right, 1), _packed(batch, of_blocks, right, lanes)
    left = _packed(batch, r, above, lanes if features else 1)
    owned = singles[1] if features else blocks[1]
    workers = worker_count(plan, batch * singles[1] * blocks[1])
    parts = _parts(batch * owned, left[1], workers)
    workers = min(workers, batch * owned * parts)
    totals = parts, batch, owned, above, 1 if features else lanes
    first, second = (X, G) if features else (G, X)
    with borrowed_arrays(dtype, (singles, blocks, left, totals)) as packed:
        HADAMARD.run(plan, workers, 1, spectrum, int(features), first, second, F, *packed, Y)
    return Y


def hadamard_pullback(
    plan: Plan, spectrum: NDArray[Any], F: NDArray[Any], G: NDArray[Any], X: NDArray[Any], P: NDArray[Any], /
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gradients of <P, (M * (F G^T)) X> for F, G, X and the table of offsets of M.

    Parameters
    ----------
    plan, spectrum : of M (m, n), see `convolution.product`.
    F, G, X, P : (batch, m, r), (batch, n, r), (batch, n, k), (batch, m, k).

    Returns
    -------
    dF, dG, dX, d offsets (D, m_1+n_1-1, ...), D = len(spectrum); gradients of a table shared by the batch are added.
    Exact; cost O(batch r k N log N), memory O(batch N (r + k)) and scratch 4 V N per thread.
    """
    (batch, _, r), k, D = G.shape, X.shape[2], len(spectrum)
    dF, dG, dX = (np.zeros(A.shape, plan.dtype) for A in (F, G, X))
    if X.size == 0 or F.size == 0:
        return dF, dG, dX, np.zeros((D, *plan.table_shape), plan.dtype)
    lanes, dtype = plan.lanes, plan.dtype
    F, G, X, P = (np.ascontiguousarray(A, dtype) for A in (F, G, X, P))
    features = _lanes_are_features(r, k, lanes)
    of_singles, of_blocks = (k, r) if features else (r, k)
    sides = plan.padded(transposed=False), plan.padded(transposed=True)
    singles, left_singles = (_packed(batch, of_singles, rows, 1) for rows in sides)
    blocks, left_blocks = (_packed(batch, of_blocks, rows, lanes) for rows in sides)
    workers = worker_count(plan, batch * singles[1] * blocks[1])
    block_parts = _parts(batch, blocks[1], workers)
    single_parts = min(singles[1], -(-workers // (batch * block_parts)))
    workers = min(workers, batch * block_parts * single_parts)
    d_singles, d_blocks = (block_parts, *singles), (single_parts, *blocks)
    d_left = (single_parts, *left_blocks) if features else (block_parts, *left_singles)
    d_spectrum = np.zeros((batch, block_parts * single_parts, 2 * plan.size), dtype)
    given, made = ((X, G, P, F), (dX, dG, dF)) if features else ((G, X, F, P), (dG, dX, dF))
    shapes = singles, blocks, left_singles, left_blocks, d_singles, d_blocks, d_left
    with borrowed_arrays(dtype, shapes) as packed:
        PULLBACK.run(plan, workers, 2, spectrum, int(features), *given, *packed, d_spectrum, *made)
    return dF, dG, dX, gather_offsets(plan, d_spectrum.sum(axis=1), D)
