"""State-space masks times a low-rank matrix, by chunks: ``(M * (F G^T)) @ X`` without an n x n array.

Beyond some tiles around the diagonal, the block of the mask between two chunks is ``left T right^T`` with p directions,
the same for all chunks. Three passes:

1. moments: a chunk's keys and values meet its p directions, ``sum_j right_jp g_j x_j^T``;
2. states: the r states run over the chunks, below and above the diagonal, and leave p combinations of the moments in
   their place, a panel of columns at a time;
3. rows: queries meet those, and the tiles.

Tasks of the first and the last pass are chunks, of the second panels of columns. The cost is
O(n (p r k + CHUNK (r + k))) operations, the memory p m k numbers a chunk.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    dot_rows,
    horizontal_sum,
    lanes_of,
    multiply,
    multiply_masked,
    pack_panels,
    pack_rows,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
)
from .state_moments import Sizes, chunk_masses, chunk_moments, new_scratch, scaled_rows

_SERIAL_WORK = 1e7  # multiply-adds one thread does in less than the time it takes to share them


class Form(NamedTuple):
    """A mask cut into chunks; heads are 1 or all, rows are padded with zeros to whole tiles.

    Attributes
    ----------
    tiles : (heads, distances, C rounded, C) array
        Blocks at the distances ``nearest, nearest + 1, ...`` below the diagonal, in chunks.
    left, right : (heads, C, p rounded) arrays
        What queries and keys meet.
    step : (heads, sides, r rounded, 2 r + p) array
        From the states, their copy and the moments to the states one chunk further; below the diagonal, above it.
    out : (heads, sides, p rounded, r) array
        From the states to what queries meet.
    """

    tiles: np.ndarray
    left: np.ndarray
    right: np.ndarray
    step: np.ndarray
    out: np.ndarray


@njit(nogil=True, cache=True, forceinline=True)
def _run_side(step, out, t, start, above, sizes, moments, B, S, Z):
    """One side of panel t: states run over the chunks, Z grows by what they leave in each."""
    W, p, r, N = B.size // step.shape[1], sizes.p, sizes.r, sizes.chunks
    inner, tall, fresh = step.shape[1], out.shape[0], not (above and sizes.below)
    B[:] = 0
    for s in range(N):
        c = N - 1 - s if above else s
        if s >= sizes.reach:
            source = c + sizes.reach if above else c - sizes.reach
            for d in range(p):
                place = (start + source * p + d) * sizes.total + t * W
                scale_row(moments, place, B, (2 * r + d) * W, W, 1)
            for i in range(0, step.shape[0], ROWS):
                multiply(step, i * inner, inner, B, 0, inner, S, i * W, W, W, W, inner, True)
            scale_row(S, 0, B, 0, r * W, 1)
            scale_row(S, 0, B, r * W, r * W, 1)
        for i in range(0, tall, ROWS):
            multiply(out, i * r, r, B, 0, inner, Z, (c * tall + i) * W, W, W, W, r, fresh)


@njit(nogil=True, cache=True)
def _run_panels(form, start, t, h, sizes, moments, B, S, Z):
    """Panel t of a head: both sides, then what queries meet replaces the moments."""
    W, p, tall = B.size // form.step.shape[3], sizes.p, form.out.shape[2]
    if sizes.below:
        _run_side(form.step[h, 0], form.out[h, 0], t, start, False, sizes, moments, B, S, Z)
    if sizes.above:
        _run_side(form.step[h, 1], form.out[h, 1], t, start, True, sizes, moments, B, S, Z)
    for c in range(sizes.chunks):
        for d in range(p):
            scale_row(Z, (c * tall + d) * W, moments, (start + c * p + d) * sizes.total + t * W, W, 1)


@njit(nogil=True, cache=True, forceinline=True)
def _far_rows(F, left, first, count, base, k, sizes, moments, work):
    """Queries and what the states have left for them."""
    V, m = lanes_of(F), F.shape[1]
    W, rank, columns = 2 * V, work.A.size // rounded(sizes.C, ROWS), rounded(k, 2 * V)
    for d in range(sizes.p):
        place = base + d * sizes.total
        scaled_rows(F, first, count, left, d, work.A, rank)
        for i in range(0, count, ROWS):
            multiply(
                work.A, i * rank, rank, moments, place, sizes.features, work.Y, i * columns, columns, W, k, m, d == 0
            )
            dot_rows(work.A, i * rank, rank, moments, place + sizes.panels * W, work.sums, i * V, rounded(m, V))


@njit(nogil=True, cache=True, forceinline=True)
def _near_rows(F, G, X, tiles, c, first, count, started, sizes, work):
    """Queries and the tiles around the diagonal."""
    V, (n, m), k, C = lanes_of(F), F.shape, X.shape[1], sizes.C
    W, rank, columns = 2 * V, work.F.size // rounded(C, ROWS), rounded(k, 2 * V)
    flat, area = tiles.reshape(-1), tiles.shape[1] * C
    pack_rows(F, first, count, work.F, rank, rounded(count, ROWS))
    for index in range(tiles.shape[0]):
        source = c - sizes.nearest - index
        if source < 0 or source >= sizes.chunks:
            continue
        keys, diagonal = min(C, n - source * C), source == c
        pack_rows(G, source * C, keys, work.G, rank, C)
        transpose_panels(work.G, rank, m, keys, work.transposed)
        pack_panels(X, source * C, keys, work.X, C)
        for i in range(0, count, ROWS):
            begin = i // W * W if diagonal and not sizes.below else 0
            end = min(keys, i + ROWS) if diagonal and not sizes.above else keys
            mask = index * area + i * C
            multiply_masked(
                work.F, i * rank, rank, work.transposed, rank, flat, mask, work.S, C, work.sums, i * V, begin, end, m
            )
            multiply(
                work.S, begin, C, work.X, begin * W, C, work.Y, i * columns, columns, W, k, end - begin, not started
            )
        started = True


@njit(nogil=True, cache=True)
def _run_rows(F, G, X, tiles, left, c, start, far, sizes, moments, Y, mass, work):
    """The rows of chunk c."""
    V, k, first = lanes_of(F), X.shape[1], c * sizes.C
    count, columns = min(sizes.C, F.shape[0] - first), rounded(k, 2 * V)
    work.sums[:] = 0
    if far:
        _far_rows(F, left, first, count, (start + c * sizes.p) * sizes.total, k, sizes, moments, work)
    _near_rows(F, G, X, tiles, c, first, count, far, sizes, work)
    for i in range(count):
        scale_row(work.Y, i * columns, Y, (first + i) * k, k, 1)
        horizontal_sum(work.sums, i * V, mass, first + i)


@njit(nogil=True, cache=True)
def _run_tasks(phase, begin, end, F, G, X, form, sizes, far, moments, Y, mass):
    """Tasks of a pass: (head, chunk), or (head, panel) in the second."""
    shared, N, V = form.tiles.shape[0] == 1, sizes.chunks, lanes_of(F)
    if phase == 1:
        W, panels = 2 * V, sizes.total // (2 * V)
        B, S = scratch(form.step.shape[3] * W, F), scratch(form.step.shape[2] * W, F)
        Z = scratch(N * form.out.shape[2] * W, F)
        for task in range(begin, end):
            h = task // panels
            _run_panels(form, h * N * sizes.p, task % panels, 0 if shared else h, sizes, moments, B, S, Z)
        return
    work = new_scratch(F, X, sizes.C, sizes.p)
    for task in range(begin, end):
        h, c = task // N, task % N
        s, start = 0 if shared else h, h * N * sizes.p
        if phase == 0:
            place, first, W = (start + c * sizes.p) * sizes.total, c * sizes.C, 2 * V
            chunk_moments(
                G[h],
                X[h],
                form.right[s],
                first,
                sizes.C,
                sizes.p,
                moments,
                place,
                sizes.total,
                W,
                sizes.features * W,
                work,
            )
            place += sizes.panels * W
            chunk_masses(G[h], form.right[s], first, sizes.C, sizes.p, moments, place, sizes.total, work)
        else:
            _run_rows(F[h], G[h], X[h], form.tiles[s], form.left[s], c, start, far, sizes, moments, Y[h], mass[h], work)


@parallel
def _run_parallel(phase, tasks, workers, F, G, X, form, sizes, far, moments, Y, mass):
    for w in prange(workers):
        begin, end = tasks * w // workers, tasks * (w + 1) // workers
        _run_tasks(phase, begin, end, F, G, X, form, sizes, far, moments, Y, mass)


def state_hadamard(
    F: np.ndarray,
    G: np.ndarray,
    X: np.ndarray,
    form: Form,
    directions: int,
    reach: int,
    nearest: int,
    sides: tuple[bool, bool],
) -> tuple[np.ndarray, np.ndarray]:
    """Product with a state-space mask times a low-rank matrix, elementwise, and its row sums.

    ``Y = (M * (F @ G.mT)) @ X`` and ``mass = (M * (F @ G.mT)) @ 1``.

    Parameters
    ----------
    F, G : (heads, n, m) arrays
        Row and column factors.
    X : (heads, n, k) array
        Operand.
    form : Form
        The mask in chunks.
    directions, reach, nearest : int
        p; the distance in chunks from which on states carry the mask; the distance of the first tile.
    sides : pair of bool
        Whether there is anything below, and above the diagonal.

    Returns
    -------
    Y : (heads, n, k) array
    mass : (heads, n) array
        Both in the precision of the arguments, which are C-contiguous and of one dtype, float32 or float64.
    """
    (heads, n, m), k, C = F.shape, X.shape[2], form.left.shape[1]
    Y, mass = np.empty((heads, n, k), F.dtype), np.empty((heads, n), F.dtype)
    V = int(lanes_of(F))
    features, panels, chunks = int(rounded(m, ROWS)), int(rounded(k, 2 * V)) // (2 * V), -(-n // C)
    panels *= features
    total = panels * 2 * V + int(rounded(m, 2 * V))
    sizes = Sizes(C, directions, form.out.shape[3], reach, nearest, *sides, chunks, features, panels, total)
    far = chunks > reach and directions > 0
    moments = scratch(heads * chunks * directions * total if far else 0, F)
    tasks = {0: heads * chunks, 1: heads * total // (2 * V), 2: heads * chunks}
    threads = get_num_threads()
    small = threads == 1 or heads * n * (2 * directions * m * k + C * (m + k)) < _SERIAL_WORK
    for phase in (0, 1, 2) if far else (2,):
        count = tasks[phase]
        if small:
            _run_tasks(phase, 0, count, F, G, X, form, sizes, far, moments, Y, mass)
        else:
            workers = min(threads, count)
            _run_parallel(phase, count, workers, F, G, X, form, sizes, far, moments, Y, mass)
    return Y, mass
