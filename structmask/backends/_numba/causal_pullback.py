"""Gradients of a causal mask times a low-rank matrix, by chunks: all of them from two walks.

For ``<P, (M * (F @ G.mT)) @ X>``, with ``D = M * (P @ X.mT)`` and ``B = M * (F @ G.mT)``,

    dF = D @ G,    dG = D.mT @ F,    dX = B.mT @ P

Inside a chunk D and B are formed once. What lies before it enters dF through the state ``S = sum_j m_j x_j g_j^T``,
what lies behind it enters dG and dX through ``R = sum_i m_i p_i f_i^T``, both k x r. A walk forwards leaves in dF what
comes from S, a walk backwards adds all the rest: five products of a chunk with a state and five with D or B, where the
product itself takes two of each.

Few long heads are cut into groups of chunks, as for the product.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .causal import CHUNK, group_start, groups_of, set_mask, set_unit_mask
from .gemm import (
    ROWS,
    add_transposed,
    lanes_of,
    multiply,
    multiply_masked,
    pack_panels,
    pack_rows,
    padded_rank,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
    transposed_panels,
)

_SERIAL_WORK = 1e7  # multiply-adds one thread does in less than the time it takes to share them


class _Scratch(NamedTuple):
    """Of one chunk: packed rows, panels of the same and of transposes, D and B, some rows of results; R transposed."""

    F: np.ndarray
    G: np.ndarray
    P: np.ndarray
    X: np.ndarray
    F_panels: np.ndarray
    G_panels: np.ndarray
    P_panels: np.ndarray
    G_transposed: np.ndarray
    X_transposed: np.ndarray
    R_transposed: np.ndarray
    mask: np.ndarray
    D: np.ndarray
    B: np.ndarray
    Z: np.ndarray
    sums: np.ndarray
    carry: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, X):
    V, tall = lanes_of(F), rounded(CHUNK, ROWS)
    r, k = padded_rank(F.shape[1], V), padded_rank(X.shape[1], V)
    wide_r, wide_k = rounded(F.shape[1], 2 * V), rounded(X.shape[1], 2 * V)
    return _Scratch(
        scratch(tall * r, F),
        scratch(tall * r, F),
        scratch(tall * k, F),
        scratch(tall * k, F),
        scratch(CHUNK * wide_r, F),
        scratch(CHUNK * wide_r, F),
        scratch(CHUNK * wide_k, F),
        scratch(CHUNK * r, F),
        scratch(CHUNK * k, F),
        scratch(wide_r * wide_k, F),
        scratch(tall * CHUNK, F),
        scratch(tall * CHUNK + ROWS, F),
        scratch(tall * CHUNK + ROWS, F),
        scratch(ROWS * max(wide_r, wide_k), F),
        scratch(ROWS * V, F),
        scratch(CHUNK, F),
    )


@njit(nogil=True, cache=True, forceinline=True)
def _state_rows(k, V):
    """Rows of a state: whole tiles, and whole squares where it is transposed."""
    return rounded(rounded(k, ROWS), V)


@njit(nogil=True, cache=True, forceinline=True)
def _advance(rows, stride, panels, weights, w, count, k, r, factor, unit, state):
    """``state = factor * state + rows.T @ (weights * panels)`` over the rows of a chunk."""
    V = lanes_of(rows)
    W, tall = 2 * V, _state_rows(k, V)
    if not unit:
        scale_row(state, 0, state, 0, state.size, factor)
        for q in range(0, rounded(r, W), W):
            for j in range(count):
                place = q * CHUNK + j * W
                scale_row(panels, place, panels, place, W, weights[w + j])
    for p in range(0, k, ROWS):
        add_transposed(rows, p, stride, panels, 0, CHUNK, state, p * W, W, tall * W, r, count)


@njit(nogil=True, cache=True)
def _forwards(G, P, X, decay, unit, begin, end, S, started, outputs, dF, work):
    """The chunks ``begin ... end`` in their order: S runs over them, ``outputs`` are its parts of dF, else zero."""
    V, (n, r), k = lanes_of(G), G.shape, X.shape[1]
    W, stride, tall, columns = 2 * V, padded_rank(k, V), _state_rows(k, V), rounded(r, 2 * V)
    Z, chunks = work.Z, (n + CHUNK - 1) // CHUNK
    for c in range(begin, end):
        first = c * CHUNK
        count = min(CHUNK, n - first)
        if not unit:
            set_mask(decay, first, count, False, work)
        if outputs and started:
            pack_rows(P, first, count, work.P, stride, rounded(count, ROWS))
            for i in range(0, count, ROWS):
                multiply(work.P, i * stride, stride, S, 0, tall, Z, 0, columns, W, r, k, True)
                for row in range(min(ROWS, count - i)):
                    factor = S.dtype.type(1) if unit else work.carry[i + row]
                    scale_row(Z, row * columns, dF, (first + i + row) * r, r, factor)
        if c + 1 < chunks:
            pack_rows(X, first, count, work.X, stride, CHUNK)
            pack_panels(G, first, count, work.G_panels, CHUNK)
            last = (count - 1) * CHUNK
            _advance(work.X, stride, work.G_panels, work.mask, last, count, k, r, work.carry[count - 1], unit, S)
        started = True


@njit(nogil=True, cache=True, forceinline=True)
def _pack(F, G, P, X, first, count, work):
    """Everything that a chunk needs, in the forms that it needs."""
    V, r, k = lanes_of(F), F.shape[1], X.shape[1]
    wide, stride = padded_rank(r, V), padded_rank(k, V)
    pack_rows(F, first, count, work.F, wide, rounded(count, ROWS))
    pack_rows(G, first, count, work.G, wide, CHUNK)
    pack_rows(P, first, count, work.P, stride, rounded(count, ROWS))
    pack_rows(X, first, count, work.X, stride, CHUNK)
    pack_panels(F, first, count, work.F_panels, CHUNK)
    pack_panels(G, first, count, work.G_panels, CHUNK)
    pack_panels(P, first, count, work.P_panels, CHUNK)
    transpose_panels(work.G, wide, r, count, work.G_transposed)
    transpose_panels(work.X, stride, k, count, work.X_transposed)


@njit(nogil=True, cache=True, forceinline=True)
def _rows_down(first, count, r, k, dF, work):
    """D and B of a chunk, and D's part of dF."""
    V, Z = lanes_of(work.F), work.Z
    W, wide, stride, columns = 2 * V, padded_rank(r, V), padded_rank(k, V), rounded(r, 2 * V)
    work.sums[:] = 0
    for i in range(0, count, ROWS):
        rows, place = min(ROWS, count - i), i * CHUNK
        D, B, end = work.D[place:], work.B[place:], i + rows
        multiply_masked(
            work.P, i * stride, stride, work.X_transposed, stride, work.mask, place, D, CHUNK, work.sums, 0, 0, end, k
        )
        multiply_masked(
            work.F, i * wide, wide, work.G_transposed, wide, work.mask, place, B, CHUNK, work.sums, 0, 0, end, r
        )
        for row in range(rows):
            scale_row(dF, (first + i + row) * r, Z, row * columns, r, 1)
        multiply(work.D, place, CHUNK, work.G_panels, 0, CHUNK, Z, 0, columns, W, r, end, False)
        for row in range(rows):
            scale_row(Z, row * columns, dF, (first + i + row) * r, r, 1)


@njit(nogil=True, cache=True, forceinline=True)
def _rows_up(rows, stride, state, height, inner, D, panels, first, count, k, unit, started, out, work):
    """``out = w * (rows @ state) + D.T @ panels`` for the rows of a chunk, ``w`` decaying to its last one."""
    V, Z, width = lanes_of(rows), work.Z, rounded(k, 2 * lanes_of(rows))
    W, last = 2 * V, (count - 1) * CHUNK
    for j in range(0, count, ROWS):
        size = min(ROWS, count - j)
        if started:
            multiply(rows, j * stride, stride, state, 0, height, Z, 0, width, W, k, inner, True)
            if not unit:
                for row in range(size):
                    scale_row(Z, row * width, Z, row * width, width, work.mask[last + j + row])
        else:
            Z[: ROWS * width] = 0
        add_transposed(D, j * CHUNK + j, CHUNK, panels, j * W, CHUNK, Z, 0, width, W, k, count - j)
        for row in range(size):
            scale_row(Z, row * width, out, (first + j + row) * out.shape[1], k, 1)


@njit(nogil=True, cache=True)
def _backwards(F, G, P, X, decay, unit, begin, end, R, started, outputs, dF, dG, dX, work):
    """The chunks ``end - 1 ... begin``: R runs over them, and ``outputs`` are dG, dX and D's part of dF."""
    V, (n, r), k, d = lanes_of(F), F.shape, X.shape[1], dX.shape[1]
    wide, stride, tall, high = padded_rank(r, V), padded_rank(k, V), _state_rows(k, V), rounded(r, 2 * V)
    for c in range(end - 1, begin - 1, -1):
        first = c * CHUNK
        count = min(CHUNK, n - first)
        if not unit:
            set_mask(decay, first, count, False, work)
        if outputs:
            _pack(F, G, P, X, first, count, work)
            _rows_down(first, count, r, k, dF, work)
            _rows_up(work.X, stride, R, tall, k, work.D, work.F_panels, first, count, r, unit, started, dG, work)
            if d and started:
                transposed_panels(R, tall, r, d, work.R_transposed, high)
            if d:
                T = work.R_transposed
                _rows_up(work.G, wide, T, high, r, work.B, work.P_panels, first, count, d, unit, started, dX, work)
        else:
            pack_rows(P, first, count, work.P, stride, rounded(count, ROWS))
            pack_panels(F, first, count, work.F_panels, CHUNK)
        if c > 0:
            _advance(work.P, stride, work.F_panels, work.carry, 0, count, k, r, work.carry[count - 1], unit, R)
        started = True


@njit(nogil=True, cache=True)
def _run_tasks(F, G, P, X, decay, unit, groups, begin, end, ahead, behind, outputs, dF, dG, dX):
    """Tasks are (head, group). Without ``outputs``, a group's own states become those its neighbours start from."""
    work, chunks = _new_scratch(F[0], X[0]), (F.shape[1] + CHUNK - 1) // CHUNK
    if unit:
        set_unit_mask(False, work)
    for task in range(begin, end):
        h, g = task // groups, task % groups
        rates = decay[h if decay.shape[0] > 1 else 0]
        first, last = group_start(chunks, groups, g), group_start(chunks, groups, g + 1)
        if outputs or g + 1 < groups:
            S = ahead[task if outputs else task + 1]
            _forwards(G[h], P[h], X[h], rates, unit, first, last, S, outputs and g > 0, outputs, dF[h], work)
        if outputs or g > 0:
            R, started = behind[task if outputs else task - 1], outputs and g + 1 < groups
            _backwards(F[h], G[h], P[h], X[h], rates, unit, first, last, R, started, outputs, dF[h], dG[h], dX[h], work)


@njit(nogil=True, cache=True)
def _join(chunks, decay, groups, ahead, behind):
    """Turn the groups' own states into the states they start from."""
    number = ahead.dtype.type
    for task in range(ahead.shape[0]):
        h, g = task // groups, task % groups
        if 0 < g < groups - 1:
            _carry_on(ahead, task, task + 1, number(_passing(decay, h, chunks, groups, g)))
        last = groups - 1 - g  # backwards
        if 0 < last < groups - 1:
            source = h * groups + last
            _carry_on(behind, source, source - 1, number(_passing(decay, h, chunks, groups, last)))


@njit(nogil=True, cache=True)
def _passing(decay, h, chunks, groups, g):
    """The product of a group's decays."""
    row, factor = h if decay.shape[0] > 1 else 0, 1.0
    for i in range(group_start(chunks, groups, g) * CHUNK, group_start(chunks, groups, g + 1) * CHUNK):
        factor *= decay[row, i]
    return factor


@njit(nogil=True, cache=True)
def _carry_on(states, source, target, factor):
    for i in range(states.shape[1]):
        states[target, i] += factor * states[source, i]


@parallel
def _run_parallel(F, G, P, X, decay, unit, groups, workers, ahead, behind, outputs, dF, dG, dX):
    tasks = F.shape[0] * groups
    for w in prange(workers):
        begin, end = tasks * w // workers, tasks * (w + 1) // workers
        _run_tasks(F, G, P, X, decay, unit, groups, begin, end, ahead, behind, outputs, dF, dG, dX)


def causal_pullback(
    F: np.ndarray, G: np.ndarray, P: np.ndarray, X: np.ndarray, decay: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of ``<P, (M * (F @ G.mT)) @ X>`` for F, G and the first columns of X.

    Parameters
    ----------
    F, G : (heads, n, r) arrays
        Row and column factors.
    P, X : (heads, n, k) arrays
        Cotangent and operand.
    decay : (1 or heads, n) array
        Factors of the mask ``M_ij = decay_{j+1} ... decay_i`` for i >= j, else 0, taken in double precision;
        ``decay[:, 0]`` is not used.
    columns : int
        Of X, from 0 to k.

    Returns
    -------
    dF, dG : (heads, n, r) arrays
    dX : (heads, n, columns) array
        In the precision of the operands, which are C-contiguous and of one dtype, float32 or float64.
    """
    decay = np.ascontiguousarray(decay, np.float64)
    (heads, n, r), k, V = F.shape, X.shape[2], int(lanes_of(F))
    dF, dG, dX = (np.zeros((heads, n, width), F.dtype) for width in (r, r, columns))
    if heads * n * r * k == 0:
        return dF, dG, dX
    unit = bool((decay[:, 1:] == 1).all())
    serial = get_num_threads() == 1 or heads * n * (5 * r * k + 3 * CHUNK * (r + k)) < _SERIAL_WORK
    groups = 1 if serial else groups_of(heads, n)
    size = int(_state_rows(k, V) * rounded(r, 2 * V))
    ahead, behind = (scratch(heads * groups * size, F).reshape(-1, size) for _ in range(2))
    if serial:
        _run_tasks(F, G, P, X, decay, unit, 1, 0, heads, ahead, behind, True, dF, dG, dX)
        return dF, dG, dX
    workers = min(get_num_threads(), heads * groups)
    if groups > 1:
        _run_parallel(F, G, P, X, decay, unit, groups, workers, ahead, behind, False, dF, dG, dX)
        _join(-(-n // CHUNK), decay, groups, ahead, behind)
    _run_parallel(F, G, P, X, decay, unit, groups, workers, ahead, behind, True, dF, dG, dX)
    return dF, dG, dX
