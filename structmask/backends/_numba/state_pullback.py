"""What the gradient of a state-space mask needs of attention by chunks: lags of the tiles, and sums over states.

With D_ij = (P X^T)_ij (F G^T)_ij, the gradient for an entry of the mask:

1. lags: sums of D along the diagonals of the tiles;
2. moments of keys and queries in every chunk, as for the product, in p directions U;
3. states, a panel of columns at a time, all in cache: those that the keys drive, S_c = A S_(c-1) + inward mu_(c-B),
   and backwards those that the queries drive, T_c = A^T T_(c+1) + outward nu_c; on the way the sums of nu_c S_c^T,
   T_c mu_(c-B)^T and T_c S_(c-1)^T.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    add_products,
    add_row_products,
    lanes_of,
    multiply,
    pack_rows,
    padded_rank,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
)
from .state_moments import Sizes, chunk_moments, new_scratch

_SERIAL_WORK = 1e7  # multiply-adds one thread does in less than the time it takes to share them


class _Tiles(NamedTuple):
    """Packed rows of F, G, P and X, panels of G^T and X^T, ROWS rows of the two products."""

    F: np.ndarray
    P: np.ndarray
    G: np.ndarray
    X: np.ndarray
    G_transposed: np.ndarray
    X_transposed: np.ndarray
    R: np.ndarray
    Q: np.ndarray


@njit(nogil=True, cache=True)
def _new_tiles(F, X, C):
    V = lanes_of(F)
    r, k, tall, wide = padded_rank(F.shape[2], V), padded_rank(X.shape[2], V), rounded(C, ROWS), rounded(C, 2 * V)
    return _Tiles(
        scratch(tall * r, F),
        scratch(tall * k, F),
        scratch(wide * r, F),
        scratch(wide * k, F),
        scratch(wide * r, F),
        scratch(wide * k, F),
        scratch(ROWS * wide, F),
        scratch(ROWS * wide, F),
    )


@njit(nogil=True, cache=True)
def _run_lags(F, G, P, X, c, C, nearest, distances, lags, work):
    """Add D_ij of the rows of chunk c at the place j - i + (len(lags) - 1) / 2."""
    V, (n, m), k = lanes_of(F), F.shape, X.shape[1]
    r, wide_k, W, wide = padded_rank(m, V), padded_rank(k, V), 2 * V, work.R.size // ROWS
    first, middle, chunks = c * C, lags.size // 2, (n + C - 1) // C
    rows = min(C, n - first)
    pack_rows(F, first, rows, work.F, r, rounded(rows, ROWS))
    pack_rows(P, first, rows, work.P, wide_k, rounded(rows, ROWS))
    for source in range(max(0, c - nearest - distances + 1), min(chunks, c - nearest + 1)):
        start = source * C
        keys = min(C, n - start)
        pack_rows(G, start, keys, work.G, r, wide)
        pack_rows(X, start, keys, work.X, wide_k, wide)
        transpose_panels(work.G, r, m, keys, work.G_transposed)
        transpose_panels(work.X, wide_k, k, keys, work.X_transposed)
        for i in range(0, rows, ROWS):
            multiply(work.F, i * r, r, work.G_transposed, 0, r, work.R, 0, wide, W, keys, m, True)
            multiply(work.P, i * wide_k, wide_k, work.X_transposed, 0, wide_k, work.Q, 0, wide, W, keys, k, True)
            for row in range(min(ROWS, rows - i)):
                place = start - (first + i + row) + middle
                add_products(work.R, row * wide, work.Q, row * wide, lags, place, keys)


@njit(nogil=True, cache=True)
def _run_states(inward, outward, above, start, sizes, mu, nu, B, S, sums):
    """One side of a panel; ``sums`` grows by vectors of nu S^T (p x r), T mu^T (r x p) and T S^T (r x r).

    Rows of B are the states, their copy and the moments that drive them; those of S all states, and T behind them.
    """
    W, p, r, N, tall, inner = 2 * lanes_of(mu), sizes.p, sizes.r, sizes.chunks, inward.shape[0], inward.shape[1]
    T, with_mu, with_states = N * tall * W, p * r * W, 2 * p * r * W
    B[:] = 0
    for s in range(sizes.reach, N):
        source = N - 1 - s + sizes.reach if above else s - sizes.reach
        scale_row(mu, start + source * p * W, B, 2 * r * W, p * W, 1)
        for i in range(0, tall, ROWS):
            multiply(inward, i * inner, inner, B, 0, inner, S, (s * tall + i) * W, W, W, W, inner, True)
        scale_row(S, s * tall * W, B, 0, r * W, 1)
        scale_row(S, s * tall * W, B, r * W, r * W, 1)
    B[:] = 0
    for s in range(N - 1, sizes.reach - 1, -1):
        c = N - 1 - s if above else s
        source = c + sizes.reach if above else c - sizes.reach
        scale_row(nu, start + c * p * W, B, 2 * r * W, p * W, 1)
        for i in range(0, tall, ROWS):
            multiply(outward, i * inner, inner, B, 0, inner, S, T + i * W, W, W, W, inner, True)
        add_row_products(nu, start + c * p * W, S, s * tall * W, sums, 0, p, r)
        add_row_products(S, T, mu, start + source * p * W, sums, with_mu, r, p)
        if s > sizes.reach:
            add_row_products(S, T, S, (s - 1) * tall * W, sums, with_states, r, r)
        scale_row(S, T, B, 0, r * W, 1)
        scale_row(S, T, B, r * W, r * W, 1)


@njit(nogil=True, cache=True)
def _lag_tasks(worker, workers, F, G, P, X, C, nearest, distances, lags):
    work, N = _new_tiles(F, X, C), (F.shape[1] + C - 1) // C
    for task in range(F.shape[0] * N * worker // workers, F.shape[0] * N * (worker + 1) // workers):
        h, own = task // N, lags[worker, 0 if lags.shape[1] == 1 else task // N]
        _run_lags(F[h], G[h], P[h], X[h], task % N, C, nearest, distances, own, work)


@njit(nogil=True, cache=True)
def _state_tasks(phase, worker, workers, F, G, P, X, U, inward, outward, sizes, mu, nu, results):
    """Tasks are (head, chunk) for the moments, (head, panel) for the states."""
    shared, N, p, count = inward.shape[0] == 1, sizes.chunks, sizes.p, sizes.panels if phase else sizes.chunks
    begin, end = F.shape[0] * count * worker // workers, F.shape[0] * count * (worker + 1) // workers
    W = 2 * lanes_of(F)
    if phase == 0:
        work = new_scratch(F, X, sizes.C, p)
        for task in range(begin, end):
            h, c = task // N, task % N
            own, first, place, down = U[0 if shared else h], c * sizes.C, h * sizes.total + c * p * W, N * p * W
            beyond = sizes.features * down
            chunk_moments(G[h], X[h], own, first, sizes.C, p, mu, place, W, down, beyond, work)
            chunk_moments(F[h], P[h], own, first, sizes.C, p, nu, place, W, down, beyond, work)
        return
    tall, inner = inward.shape[2], inward.shape[3]
    B, S = scratch(inner * W, F), scratch((N + 1) * tall * W, F)
    sums = scratch(results.shape[3] * W, F)
    for task in range(begin, end):
        h, t = task // count, task % count
        own, start = 0 if shared else h, h * sizes.total + t * N * p * W
        for side in range(2):
            if sizes.above if side else sizes.below:
                sums[:] = 0
                _run_states(inward[own, side], outward[own, side], side == 1, start, sizes, mu, nu, B, S, sums)
                for index in range(results.shape[3]):
                    for lane in range(W):
                        results[worker, own, side, index] += sums[index * W + lane]


@parallel
def _lags_parallel(workers, F, G, P, X, C, nearest, distances, lags):
    for w in prange(workers):
        _lag_tasks(w, workers, F, G, P, X, C, nearest, distances, lags)


@parallel
def _states_parallel(phase, workers, F, G, P, X, U, inward, outward, sizes, mu, nu, results):
    for w in prange(workers):
        _state_tasks(phase, w, workers, F, G, P, X, U, inward, outward, sizes, mu, nu, results)


def tile_lags(
    F: np.ndarray, G: np.ndarray, P: np.ndarray, X: np.ndarray, C: int, distances: range, heads: int
) -> np.ndarray:
    """Sums of D_ij at every i - j over tiles of C x C at some distances in chunks below the diagonal.

    Parameters
    ----------
    F, G, P, X : (H, n, m), (H, n, m), (H, n, k), (H, n, k) arrays
        C-contiguous and of one dtype, float32 or float64.
    heads : int
        1 for sums over all heads together, else H.

    Returns
    -------
    (heads, 2 l - 1) array
        At the offsets ``1 - l ... l - 1``, l = C times the reach of the tiles.
    """
    H, n, m = F.shape
    work, reach = H * n * len(distances) * C * (m + X.shape[2]), max(distances.stop, 1 - distances.start)
    workers = 1 if work < _SERIAL_WORK else min(get_num_threads(), H * -(-n // C))
    lags = np.zeros((workers, heads, 2 * reach * C - 1), F.dtype)
    if workers == 1:
        _lag_tasks(0, 1, F, G, P, X, C, distances.start, len(distances), lags)
    else:
        _lags_parallel(workers, F, G, P, X, C, distances.start, len(distances), lags)
    return lags.sum(axis=0)[:, ::-1]


def state_sums(
    F: np.ndarray,
    G: np.ndarray,
    P: np.ndarray,
    X: np.ndarray,
    U: np.ndarray,
    maps: tuple[np.ndarray, np.ndarray],
    reach: int,
    sides: tuple[bool, bool],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of nu_c S_c^T, T_c mu_(c-B)^T and T_c S_(c-1)^T over the chunks, see the module.

    Parameters
    ----------
    F, G, P, X : (H, n, m), (H, n, m), (H, n, k), (H, n, k) arrays
    U : (1 or H, C, p) array
        Directions.
    maps : pair of (1 or H, 2, r, 2 r + p) arrays
        For both sides, from the states, their copy and the moments to the states one chunk further, forwards; and
        backwards.
    reach : int
        Distance B in chunks from which on states carry the mask.
    sides : pair of bool
        Whether there is anything below, and above the diagonal.

    Returns
    -------
    three (1 or H, 2, rows, columns) arrays
        In double precision. All arguments are of one dtype, float32 or float64.
    """
    (H, n, m), k, (heads, C, p), r = F.shape, X.shape[2], U.shape, maps[0].shape[2]
    V, N = int(lanes_of(F)), -(-n // C)
    U, inward, outward = (
        np.ascontiguousarray(np.pad(a, [(0, -size % ROWS if axis == side else 0) for axis, size in enumerate(a.shape)]))
        for a, side in ((U, 2), (maps[0], 2), (maps[1], 2))
    )
    features = int(rounded(m, ROWS))
    panels = features * (int(rounded(k, 2 * V)) // (2 * V))
    sizes = Sizes(C, p, r, reach, 0, *sides, N, features, panels, panels * N * p * 2 * V)
    mu, nu = scratch(H * sizes.total, F), scratch(H * sizes.total, F)
    workers = 1 if H * n * p * m * k < _SERIAL_WORK else min(get_num_threads(), H * N)
    results = np.zeros((workers, heads, 2, (2 * p + r) * r))
    for phase in (0, 1):
        arguments = F, G, P, X, U, inward, outward, sizes, mu, nu, results
        if workers == 1:
            _state_tasks(phase, 0, 1, *arguments)
        else:
            _states_parallel(phase, workers, *arguments)
    seen, driven, step = np.split(results.sum(axis=0), [p * r, 2 * p * r], axis=-1)
    return seen.reshape(heads, 2, p, r), driven.reshape(heads, 2, r, p), step.reshape(heads, 2, r, r)
