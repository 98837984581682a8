"""Causal masks with decay times a low-rank matrix, by chunks.

Rows are cut into chunks. Inside a chunk the masked product is formed tile by tile; everything before the chunk enters
through the state ``sum_j m_j g_j x_j^T`` (r x k) and the moment ``sum_j m_j g_j`` (r), m_j being the product of the
decays between j and the chunk. With the transposed mask chunks run from the last to the first. The cost is
O(n (r k + CHUNK (r + k))) operations.

Few long heads are cut into groups of chunks: the groups' own states are found in parallel, a short sequential pass
turns them into the states the groups start from, and all groups are then independent.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    add_transposed,
    dot_rows,
    horizontal_sum,
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
)

CHUNK = 64
_SERIAL_WORK = 1e7  # multiply-adds one thread does in less than the time it takes to share them
_GROUPS_PER_THREAD = 4


class _Scratch(NamedTuple):
    """Packed operands of one chunk: rows of F and G, panels of G^T and X, the mask, tiles of S and Y."""

    F: np.ndarray
    G: np.ndarray
    transposed: np.ndarray
    X: np.ndarray
    mask: np.ndarray
    S: np.ndarray
    Y: np.ndarray
    sums: np.ndarray
    carry: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, X):
    V = lanes_of(F)
    rank, columns = padded_rank(F.shape[2], V), rounded(X.shape[2], 2 * V)
    tall = rounded(CHUNK, ROWS)
    return _Scratch(
        scratch(tall * rank, F),
        scratch(CHUNK * rank, F),
        scratch(CHUNK * rank, F),
        scratch(CHUNK * columns, F),
        scratch(tall * CHUNK, F),
        scratch(ROWS * CHUNK, F),
        scratch(ROWS * columns, F),
        scratch(ROWS * V, F),
        scratch(CHUNK, F),
    )


@njit(nogil=True, cache=True)
def set_mask(decay, first, count, upper, work):
    """Decay products in the chunk, row by row (exact zeros and signs), and ``carry``: from the state to each row.

    The decays are in double precision and so are the products that ``carry`` takes from chunk to chunk: a decay rounded
    to single precision would be off by as many roundings as it has steps.
    """
    mask, carry, n, number = work.mask, work.carry, decay.size, work.mask.dtype.type
    mask[:] = 0
    for s in range(count):
        i = count - 1 - s if upper else s
        here, before = i * CHUNK, (i + 1) * CHUNK if upper else (i - 1) * CHUNK
        if s > 0:
            factor = decay[first + i + 1] if upper else decay[first + i]
            scale_row(mask, before, mask, here, CHUNK, number(factor))
        mask[here + i] = 1
    edge = first + count if upper else first
    product = decay[edge] if 0 < edge < n else 1.0
    for s in range(count):
        i = count - 1 - s if upper else s
        if s > 0:
            product *= decay[first + i + 1] if upper else decay[first + i]
        carry[i] = number(product)


@njit(nogil=True, cache=True)
def set_unit_mask(upper, work):
    """The mask of any chunk without decay."""
    for i in range(CHUNK):
        for j in range(CHUNK):
            work.mask[i * CHUNK + j] = j >= i if upper else j <= i


@njit(nogil=True, cache=True, forceinline=True)
def _rows_out(work, i, count, rank, upper, unit, started, states, state, Y, mass, first):
    """ROWS rows of the result, from row i of the chunk on."""
    F, S, Z, sums, carry = work.F, work.S, work.Y, work.sums, work.carry
    V, r, k = lanes_of(F), work.G.size // CHUNK, Y.shape[1]
    W, columns = 2 * V, rounded(k, 2 * V)
    sums[:] = 0
    rows = min(ROWS, count - i)
    if started:
        multiply(F, i * r, r, states, state, r, Z, 0, columns, W, k, rank, True)
        dot_rows(F, i * r, r, states, state + r * columns, sums, 0, r)
        if not unit:
            for row in range(rows):
                scale_row(Z, row * columns, Z, row * columns, columns, carry[i + row])
                scale_row(sums, row * V, sums, row * V, V, carry[i + row])
    begin, end = (i, count) if upper else (0, i + rows)
    multiply_masked(F, i * r, r, work.transposed, r, work.mask, i * CHUNK, S, CHUNK, sums, 0, begin, end, rank)
    multiply(S, begin, CHUNK, work.X, begin * W, CHUNK, Z, 0, columns, W, k, end - begin, not started)
    for row in range(rows):
        scale_row(Z, row * columns, Y, (first + i + row) * k, k, 1)
        horizontal_sum(sums, row * V, mass, first + i + row)


@njit(nogil=True, cache=True, forceinline=True)
def _advance(work, count, rank, k, upper, unit, states, state):
    """The state past the chunk: decayed, plus the chunk's own sum."""
    G, X, mask = work.G, work.X, work.mask
    r, V = G.size // CHUNK, lanes_of(G)
    W, columns = 2 * V, rounded(k, 2 * V)
    last = 0 if upper else (count - 1) * CHUNK
    if not unit:
        scale_row(states, state, states, state, r * (columns + 1), work.carry[last // CHUNK])
        for q in range(0, columns, W):
            for j in range(count):
                place = q * CHUNK + j * W
                scale_row(X, place, X, place, W, mask[last + j])
    for f in range(0, rank, ROWS):
        add_transposed(G, f, r, X, 0, CHUNK, states, state + f * W, W, r * W, k, count)
    moment = states[state + r * columns : state + r * columns + r]
    for j in range(count):
        weight = mask[last + j]
        for f in range(r):
            moment[f] += weight * G[j * r + f]


@njit(nogil=True, cache=True, forceinline=True)
def _run_chunks(F, G, X, decay, upper, unit, begin, end, states, state, started, outputs, Y, mass, work):
    """The chunks ``begin ... end`` in the order of the recurrence; their rows of the result too if ``outputs``."""
    n, rank = F.shape
    k, r, chunks = X.shape[1], work.G.size // CHUNK, (n + CHUNK - 1) // CHUNK
    for c in range(begin, end):
        first = (chunks - 1 - c if upper else c) * CHUNK
        count = min(CHUNK, n - first)
        pack_rows(G, first, count, work.G, r, CHUNK)
        pack_panels(X, first, count, work.X, CHUNK)
        if not unit:
            set_mask(decay, first, count, upper, work)
        if outputs:
            pack_rows(F, first, count, work.F, r, rounded(count, ROWS))
            transpose_panels(work.G, r, rank, count, work.transposed)
            for i in range(0, count, ROWS):
                _rows_out(work, i, count, rank, upper, unit, started, states, state, Y, mass, first)
        if c + 1 < chunks:
            _advance(work, count, rank, k, upper, unit, states, state)
        started = True


@njit(nogil=True, cache=True)
def group_start(chunks, groups, g):
    """The first chunk of group g."""
    return chunks * g // groups


@njit(nogil=True, cache=True)
def _run_tasks(F, G, X, decay, upper, unit, groups, begin, end, states, outputs, Y, mass):
    """Tasks are (head, group). Without ``outputs``, a group's own state becomes the next group's."""
    work = _new_scratch(F, X)
    if unit:
        set_unit_mask(upper, work)
    chunks, size = (F.shape[1] + CHUNK - 1) // CHUNK, states.size // (F.shape[0] * groups)
    for task in range(begin, end):
        h, g = task // groups, task % groups
        if not outputs and g + 1 == groups:
            continue
        state = (task if outputs else task + 1) * size
        rates = decay[h if decay.shape[0] > 1 else 0]
        first, last = group_start(chunks, groups, g), group_start(chunks, groups, g + 1)
        started = outputs and g > 0
        _run_chunks(
            F[h], G[h], X[h], rates, upper, unit, first, last, states, state, started, outputs, Y[h], mass[h], work
        )


@njit(nogil=True, cache=True)
def _prefix(heads, n, decay, upper, groups, states):
    """Turn the groups' own states into the states they start from."""
    chunks, size = (n + CHUNK - 1) // CHUNK, states.size // (heads * groups)
    for task in range(heads * groups):
        h, g = task // groups, task % groups
        if g == 0 or g + 1 == groups:
            continue
        rates, factor = decay[h if decay.shape[0] > 1 else 0], 1.0
        for c in range(group_start(chunks, groups, g) * CHUNK, group_start(chunks, groups, g + 1) * CHUNK):
            factor *= rates[chunks * CHUNK - c] if upper else rates[c]
        for i in range(task * size, (task + 1) * size):
            states[i + size] += states.dtype.type(factor) * states[i]


@parallel
def _run_parallel(F, G, X, decay, upper, unit, groups, workers, states, outputs, Y, mass):
    tasks = F.shape[0] * groups
    for w in prange(workers):
        begin, end = tasks * w // workers, tasks * (w + 1) // workers
        _run_tasks(F, G, X, decay, upper, unit, groups, begin, end, states, outputs, Y, mass)


@njit(nogil=True, cache=True)
def _new_states(F, X, groups):
    V = lanes_of(F)
    size = padded_rank(F.shape[2], V) * (rounded(X.shape[2], 2 * V) + 1)
    return scratch(F.shape[0] * groups * size, F)


def groups_of(heads: int, n: int) -> int:
    """How many groups of chunks give all threads the same to do."""
    threads = get_num_threads()
    if heads % threads == 0 or heads >= 4 * threads:
        return 1
    return min(-(-n // CHUNK), _GROUPS_PER_THREAD * threads)


def causal_hadamard(
    F: np.ndarray, G: np.ndarray, X: np.ndarray, decay: np.ndarray, upper: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Product with a causal mask times a low-rank matrix, elementwise, and its row sums.

    ``Y = (M * (F @ G.mT)) @ X`` and ``mass = (M * (F @ G.mT)) @ 1`` with ``M_ij = decay_{j+1} ... decay_i`` for i >= j,
    else 0; with ``upper``, M transposed.

    Parameters
    ----------
    F, G : (heads, n, r) arrays
        Row and column factors.
    X : (heads, n, k) array
        Operand.
    decay : (1 or heads, n) array
        Factors of the mask, taken in double precision; ``decay[:, 0]`` is not used.
    upper : bool
        Whether the mask is transposed.

    Returns
    -------
    Y : (heads, n, k) array
    mass : (heads, n) array
        Both in the precision of F, G and X, which are C-contiguous and of one dtype, float32 or float64.
    """
    decay = np.ascontiguousarray(decay, np.float64)
    heads, n, rank = F.shape
    k = X.shape[2]
    Y, mass = np.empty((heads, n, k), F.dtype), np.empty((heads, n), F.dtype)
    if heads * n == 0:
        return Y, mass
    unit = bool((decay[:, 1:] == 1).all())
    work = heads * n * (2 * rank * k + CHUNK * (rank + k))
    threads = get_num_threads()
    if threads == 1 or work < _SERIAL_WORK:
        _run_tasks(F, G, X, decay, upper, unit, 1, 0, heads, _new_states(F, X, 1), True, Y, mass)
        return Y, mass
    groups = groups_of(heads, n)
    workers = min(threads, heads * groups)
    states = _new_states(F, X, groups)
    if groups > 1:
        _run_parallel(F, G, X, decay, upper, unit, groups, workers, states, False, Y, mass)
        _prefix(heads, n, decay, upper, groups, states)
    _run_parallel(F, G, X, decay, upper, unit, groups, workers, states, True, Y, mass)
    return Y, mass
