"""All gradients of a state-space mask times a low-rank matrix, by chunks as the product.

For ``<P, (M * (F @ G.mT)) @ X>``, where beyond some tiles the block of M between chunks c and c - d is O A^(d-B) Z:

1. moments, k x m matrices of every chunk and state: mu = sum_q Z_q x_q g_q^T and nu = sum_p O_p p_p f_p^T;
2. states, a panel of columns at a time: S_c = A S_(c-1) + mu_(c-B) in the place of mu, and backwards, in the place of
   nu, T_(c-B) = L_c with L_c = A^T L_(c+1) + nu_c; on the way the gradient for A, the sum of L_c S_(c-1)^T;
3. rows: P S is added to dF with weights O, and its products with F are the gradient for O; X T gives dG and the
   gradient for Z likewise, and G T^T gives dX. Tiles of ``F @ G.mT`` and ``P @ X.mT`` give the rest, and sums along
   diagonals the gradient for their part of the mask.

That is five products with states and five with tiles, where the product of the mask takes two of each. Above the
diagonal all is the same backwards, with states of its own.
"""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.scratch import borrowed_arrays
from structmask.backends._numba.threads import parallel

from .gemm import (
    ROWS,
    add_dot,
    add_row,
    add_row_and_dot,
    add_transposed,
    correlate_row,
    lanes_of,
    multiply,
    pack_panels,
    pack_rows,
    padded_rank,
    rounded,
    scale_row,
    scratch,
    transpose_panels,
    transposed_panels,
)
from .state_moments import chunk_moments, new_scratch, scaled_rows

_Arrays: TypeAlias = tuple[np.ndarray, ...]
_Operands: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_Places: TypeAlias = tuple[int, int, tuple[bool, bool]]

_PANEL = 512  # numbers of a state that run through the chunks together
_MOST = 1 << 26  # numbers that moments may take, unless one head has more
_SERIAL_WORK = 1e7  # multiply-adds one thread does in less than the time it takes to share them


class Form(NamedTuple):
    """A mask cut into chunks of C rows; heads are 1 or all.

    Attributes
    ----------
    tiles : (heads, distances, C, C) array
        Blocks at the distances ``nearest, nearest + 1, ...`` below the diagonal, in chunks.
    left, right : (heads, C, p) arrays
        O and Z^T of one side beside those of the other.
    step, back : (heads, 2, r, r) arrays
        A and A^T, each as two numbers.
    """

    tiles: np.ndarray
    left: np.ndarray
    right: np.ndarray
    step: np.ndarray
    back: np.ndarray


class _Sizes(NamedTuple):
    """Chunks; p and r; reach in chunks, nearest tile; whether a side is there; rows and numbers of a state."""

    chunks: int
    p: int
    r: int
    reach: int
    nearest: int
    below: bool
    above: bool
    far: bool
    height: int
    total: int


class _Scratch(NamedTuple):
    """Of one chunk: packed rows, panels and transposes of operands, two tiles, a state transposed, rows of results."""

    F: np.ndarray
    G: np.ndarray
    P: np.ndarray
    X: np.ndarray
    A: np.ndarray
    F_panels: np.ndarray
    G_panels: np.ndarray
    P_panels: np.ndarray
    G_transposed: np.ndarray
    X_transposed: np.ndarray
    T_transposed: np.ndarray
    R: np.ndarray
    Q: np.ndarray
    Z: np.ndarray
    dF: np.ndarray
    dG: np.ndarray
    dX: np.ndarray
    dO: np.ndarray
    dZ: np.ndarray


@njit(nogil=True, cache=True)
def _new_scratch(F, X, C, p):
    V, tall = lanes_of(F), rounded(C, ROWS)
    m, k = padded_rank(F.shape[2], V), padded_rank(X.shape[2], V)
    wide_m, wide_k = rounded(F.shape[2], 2 * V), rounded(X.shape[2], 2 * V)
    return _Scratch(
        scratch(tall * m, F),
        scratch(tall * m, F),
        scratch(tall * k, F),
        scratch(tall * k, F),
        scratch(tall * m, F),
        scratch(C * wide_m, F),
        scratch(C * wide_m, F),
        scratch(C * wide_k, F),
        scratch(C * m, F),
        scratch(C * k, F),
        scratch(wide_m * wide_k, F),
        scratch(tall * C + ROWS, F),
        scratch(tall * C + ROWS, F),
        scratch(ROWS * wide_m, F),
        scratch(tall * wide_m, F),
        scratch(tall * wide_m, F),
        scratch(tall * wide_k, F),
        scratch(C * p, F),
        scratch(C * p, F),
    )


# --- states -----------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _advance(step, states, place, apart, out, width):
    """``out`` (r rows) grows by step @ states; A counts as two numbers, most of which are zero."""
    r = step.shape[1]
    for part in range(2):
        for i in range(r):
            for j in range(r):
                if step[part, i, j] != 0:
                    add_row(states, place + j * apart, out, i * width, width, step[part, i, j])


@njit(nogil=True, cache=True)
def _run_forwards(step, above, place, sizes, mu, width, ring, state):
    """S_c takes the place of mu_c, which waits in a ring for the chunk that it reaches."""
    N, r, reach, apart = sizes.chunks, sizes.r, sizes.reach, sizes.total
    stride, state[:] = sizes.p * apart, 0
    for s in range(N):
        here, slot = place + (N - 1 - s if above else s) * stride, s % reach * r * width
        before = here + (stride if above else -stride)
        for d in range(r):
            scale_row(ring, slot + d * width, state, d * width, width, 1 if s >= reach else 0)
            scale_row(mu, here + d * apart, ring, slot + d * width, width, 1)
        if s > reach:
            _advance(step, mu, before, apart, state, width)
        for d in range(r):
            scale_row(state, d * width, mu, here + d * apart, width, 1)


@njit(nogil=True, cache=True)
def _run_backwards(back, above, place, sizes, mu, nu, width, ring, state, fresh, total):
    """T_(c-B) takes the place of nu_(c-B), which waits in a ring; ``total`` (r, r) grows by T_(c-B) S_(c-1)^T."""
    N, r, reach, apart = sizes.chunks, sizes.r, sizes.reach, sizes.total
    stride, state[:] = sizes.p * apart, 0
    for s in range(N + reach - 1, reach - 1, -1):
        target, slot = place + (N - 1 - s + reach if above else s - reach) * stride, s % reach * r * width
        for d in range(r):  # nu_s, which was there before T_s, and nu_(s-B) in its place
            scale_row(ring, slot + d * width, fresh, d * width, width, 1 if s < N else 0)
            scale_row(nu, target + d * apart, ring, slot + d * width, width, 1)
        if s < N:
            _advance(back, state, 0, width, fresh, width)
        if reach < s < N:
            source = place + (N - s if above else s - 1) * stride
            for i in range(r):
                for j in range(r):
                    add_dot(fresh, i * width, mu, source + j * apart, total, i * r + j, width)
        for d in range(r):
            scale_row(fresh, d * width, state, d * width, width, 1)
            scale_row(fresh, d * width, nu, target + d * apart, width, 1)


@njit(nogil=True, cache=True)
def _moment_tasks(begin, end, F, G, P, X, form, sizes, mu, nu):
    """Tasks are (head, chunk)."""
    C, p, shared, N, W = form.left.shape[1], sizes.p, form.left.shape[0] == 1, sizes.chunks, 2 * lanes_of(F)
    work, beyond = new_scratch(X, F, C, p), sizes.height * W
    for task in range(begin, end):
        h, first, place = task // N, task % N * C, task * p * sizes.total
        own, end = 0 if shared else h, place + p * sizes.total
        mu[place:end], nu[place:end] = 0, 0  # also between rows
        chunk_moments(X[h], G[h], form.right[own], first, C, p, mu, place, sizes.total, W, beyond, work)
        chunk_moments(P[h], F[h], form.left[own], first, C, p, nu, place, sizes.total, W, beyond, work)


@njit(nogil=True, cache=True)
def _state_tasks(begin, end, panels, form, sizes, mu, nu, steps):
    """Tasks are (head, part of the numbers of a state); ``steps`` (heads, 2, r r) grows by the gradient for A."""
    p, r, shared, W = sizes.p, sizes.r, form.left.shape[0] == 1, 2 * lanes_of(mu)
    most = rounded((sizes.total + panels - 1) // panels, W)
    ring, state, fresh = scratch(sizes.reach * r * most, mu), scratch(r * most, mu), scratch(r * most, mu)
    total = scratch(r * r, mu)
    for task in range(begin, end):
        h, t = task // panels, task % panels
        width, own = min(most, sizes.total - t * most), 0 if shared else h
        place = h * sizes.chunks * p * sizes.total + t * most
        if width <= 0:
            continue
        for side in range(2):
            if sizes.above if side else sizes.below:
                above = side == 1
                total[:] = 0
                _run_forwards(form.step[own], above, place, sizes, mu, width, ring, state)
                _run_backwards(form.back[own], above, place, sizes, mu, nu, width, ring, state, fresh, total)
                for index in range(r * r):
                    steps[own, side, index] += total[index]
                place += r * sizes.total


# --- rows -------------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _through_states(rows, stride, k, states, place, height, features, first, count, weights, d, total, out, work):
    """``out`` grows by rows @ state with weights of direction d, ``total`` by the products with the features."""
    m, W = features.shape[1], 2 * lanes_of(rows)
    wide, p = rounded(m, W), weights.shape[1]
    for i in range(0, count, ROWS):
        multiply(rows, i * stride, stride, states, place, height, work.Z, 0, wide, W, m, k, True)
        for row in range(i, min(count, i + ROWS)):
            at, here = (row - i) * wide, row * p + d
            add_row_and_dot(
                work.Z, at, features, (first + row) * m, out, row * wide, total, here, m, weights[row, d]
            )  # fmt: skip


@njit(nogil=True, cache=True)
def _far_rows(F, G, k, columns, left, right, first, count, start, sizes, mu, nu, work):
    """What comes through states, whose places begin at ``start``."""
    V, m, p = lanes_of(F), F.shape[1], sizes.p
    W, rank, stride, wide = 2 * V, padded_rank(m, V), padded_rank(k, V), rounded(k, 2 * V)
    for d in range(p):
        place, high = start + d * sizes.total, rounded(m, W)
        _through_states(work.P, stride, k, mu, place, sizes.height, F, first, count, left, d, work.dO, work.dF, work)
        _through_states(work.X, stride, k, nu, place, sizes.height, G, first, count, right, d, work.dZ, work.dG, work)
        if columns:
            transposed_panels(nu[place:], sizes.height, m, columns, work.T_transposed, high)
            scaled_rows(G, first, count, right, d, work.A, rank)
            for i in range(0, count, ROWS):
                multiply(
                    work.A, i * rank, rank, work.T_transposed, 0, high, work.dX, i * wide, wide, W, columns, m, False
                )


@njit(nogil=True, cache=True)
def _pack_queries(F, P, first, count, C, work):
    V = lanes_of(F)
    pack_rows(F, first, count, work.F, padded_rank(F.shape[1], V), rounded(count, ROWS))
    pack_rows(P, first, count, work.P, padded_rank(P.shape[1], V), rounded(count, ROWS))
    pack_panels(F, first, count, work.F_panels, C)
    pack_panels(P, first, count, work.P_panels, C)


@njit(nogil=True, cache=True)
def _pack_keys(G, X, first, count, C, work):
    V = lanes_of(G)
    m, k = padded_rank(G.shape[1], V), padded_rank(X.shape[1], V)
    pack_rows(G, first, count, work.G, m, C)
    pack_rows(X, first, count, work.X, k, C)
    pack_panels(G, first, count, work.G_panels, C)
    transpose_panels(work.G, m, G.shape[1], count, work.G_transposed)
    transpose_panels(work.X, k, X.shape[1], count, work.X_transposed)


@njit(nogil=True, cache=True)
def _tile(tile, rows, keys, m, k, place, lower, upper, lags, C, work):
    """R and Q between the queries and the keys at hand: R * Q goes to ``lags``, and both are multiplied by the mask.

    A tile on the diagonal of a causal mask is ``lower``, of the transpose of one ``upper``: no more is filled.
    """
    V = lanes_of(work.F)
    W, rank, stride, flat = 2 * V, padded_rank(m, V), padded_rank(k, V), tile.reshape(-1)
    for i in range(0, rows, ROWS):
        begin, end = i // W * W if upper else 0, min(keys, rounded(i + ROWS, W)) if lower else keys
        at, wide = i * C + begin, end - begin
        multiply(work.F, i * rank, rank, work.G_transposed, begin * rank, rank, work.R, at, C, W, wide, m, True)
        multiply(work.P, i * stride, stride, work.X_transposed, begin * stride, stride, work.Q, at, C, W, wide, k, True)
        for row in range(i, min(rows, i + ROWS)):
            at = row * C + begin
            correlate_row(work.R, at, work.Q, at, flat, at, lags, place - row + begin, wide)


@njit(nogil=True, cache=True)
def _queries_near(rows, keys, m, lower, upper, C, work):
    """Add Q G to dF."""
    W = 2 * lanes_of(work.F)
    wide = rounded(m, W)
    for i in range(0, rows, ROWS):
        begin, end = i // W * W if upper else 0, min(keys, i + ROWS) if lower else keys
        multiply(
            work.Q, i * C + begin, C, work.G_panels, begin * W, C, work.dF, i * wide, wide, W, m, end - begin, False
        )


@njit(nogil=True, cache=True)
def _keys_near(rows, keys, m, columns, lower, upper, C, wide_k, work):
    """Add Q^T F to dG and R^T P to dX."""
    W = 2 * lanes_of(work.F)
    wide = rounded(m, W)
    for j in range(0, keys, ROWS):
        begin, end = j if lower else 0, min(rows, j + ROWS) if upper else rows
        if begin < end:
            at, count = begin * C + j, end - begin
            add_transposed(work.Q, at, C, work.F_panels, begin * W, C, work.dG, j * wide, wide, W, m, count)
            add_transposed(work.R, at, C, work.P_panels, begin * W, C, work.dX, j * wide_k, wide_k, W, columns, count)


@njit(nogil=True, cache=True)
def _near_rows(F, G, P, X, columns, tiles, c, first, count, sizes, lags, unused, work):
    """What comes through tiles in the rows and the columns of chunk c.

    Off the diagonal a tile is formed for its rows and again for its columns, so that no two tasks write to one place.
    """
    (n, m), k, C, N, middle = F.shape, X.shape[1], tiles.shape[2], sizes.chunks, lags.size // 2
    wide_k = rounded(k, 2 * lanes_of(F))
    for index in range(tiles.shape[0]):
        source, behind = c - sizes.nearest - index, c + sizes.nearest + index
        lower, upper = source == c and not sizes.above, source == c and not sizes.below
        if 0 <= source < N:
            keys = min(C, n - source * C)
            _pack_queries(F, P, first, count, C, work)
            _pack_keys(G, X, source * C, keys, C, work)
            place = source * C - first + middle
            _tile(tiles[index], count, keys, m, k, place, lower, upper, lags, C, work)
            _queries_near(count, keys, m, lower, upper, C, work)
            if source == c:
                _keys_near(count, keys, m, columns, lower, upper, C, wide_k, work)
        if behind != c and 0 <= behind < N:
            rows = min(C, n - behind * C)
            _pack_queries(F, P, behind * C, rows, C, work)
            _pack_keys(G, X, first, count, C, work)
            place = first - behind * C + middle
            _tile(tiles[index], rows, count, m, k, place, False, False, unused, C, work)
            _keys_near(rows, count, m, columns, False, False, C, wide_k, work)


@njit(nogil=True, cache=True)
def _row_tasks(begin, end, F, G, P, X, form, sizes, mu, nu, dF, dG, dX, dO, dZ, lags):
    """Tasks are (head, chunk); gradients for the mask grow."""
    (n, m), k, columns, C, p = F.shape[1:], X.shape[2], dX.shape[2], form.left.shape[1], sizes.p
    N, shared, V = sizes.chunks, form.left.shape[0] == 1, lanes_of(F)
    work, wide_m, wide_k, unused = _new_scratch(F, X, C, p), rounded(m, 2 * V), rounded(k, 2 * V), lags[0].copy()
    for task in range(begin, end):
        h, c = task // N, task % N
        own, first = 0 if shared else h, c * C
        count, start = min(C, n - first), task * p * sizes.total
        for rows in (work.dF, work.dG, work.dX, work.dO, work.dZ):
            rows[:] = 0
        if sizes.far:
            pack_rows(P[h], first, count, work.P, padded_rank(k, V), rounded(count, ROWS))
            pack_rows(X[h], first, count, work.X, padded_rank(k, V), rounded(count, ROWS))
            left, right = form.left[own], form.right[own]
            _far_rows(F[h], G[h], k, columns, left, right, first, count, start, sizes, mu, nu, work)
        _near_rows(F[h], G[h], P[h], X[h], columns, form.tiles[own], c, first, count, sizes, lags[own], unused, work)
        for i in range(count):
            scale_row(work.dF, i * wide_m, dF[h], (first + i) * m, m, 1)
            scale_row(work.dG, i * wide_m, dG[h], (first + i) * m, m, 1)
            scale_row(work.dX, i * wide_k, dX[h], (first + i) * columns, columns, 1)
        for i in range(C * p):
            dO[own, i // p, i % p] += work.dO[i]
            dZ[own, i // p, i % p] += work.dZ[i]


@parallel
def _moments_parallel(tasks, workers, F, G, P, X, form, sizes, mu, nu):
    for w in prange(workers):
        _moment_tasks(tasks * w // workers, tasks * (w + 1) // workers, F, G, P, X, form, sizes, mu, nu)


@parallel
def _states_parallel(tasks, workers, panels, form, sizes, mu, nu, steps):
    for w in prange(workers):
        _state_tasks(tasks * w // workers, tasks * (w + 1) // workers, panels, form, sizes, mu, nu, steps[w])


@parallel
def _rows_parallel(tasks, workers, F, G, P, X, form, sizes, mu, nu, dF, dG, dX, dO, dZ, lags):
    for w in prange(workers):
        begin, end = tasks * w // workers, tasks * (w + 1) // workers
        _row_tasks(begin, end, F, G, P, X, form, sizes, mu, nu, dF, dG, dX, dO[w], dZ[w], lags[w])


def state_pullback(operands: _Operands, form: Form, places: _Places, columns: int) -> tuple[_Arrays, _Arrays]:
    """Gradients of ``<P, (M * (F @ G.mT)) @ X>``.

    Parameters
    ----------
    operands : (H, n, m), (H, n, m), (H, n, k), (H, n, k) arrays
        F, G, P and X, C-contiguous and, as the form, of one dtype, float32 or float64.
    form : Form
        The mask in chunks.
    places : int, int, pair of bool
        The distance B in chunks from which on states carry the mask; the distance of the first tile; whether there is
        anything below, and above the diagonal.
    columns : int
        Of X whose gradient is wanted.

    Returns
    -------
    dF, dG, dX : (H, n, m), (H, n, m), (H, n, columns) arrays
    dO, dZ, dA, lags : (heads, C, p), (heads, C, p), (heads, 2, r, r) and (heads, 2 l - 1) arrays
        In double precision but for the last: gradients for O, for Z^T, for A by sides, and for the values of the mask
        at the offsets ``1 - l ... l - 1``, l = C times the reach of the tiles.
    """
    H, heads = operands[0].shape[0], form.left.shape[0]
    step = max(1, int(_MOST // (2 * max(1, math.prod(_moments(operands, form))))))
    parts = []
    for h in range(0, H, step):
        F, G, P, X = (a[h : h + step] for a in operands)
        own = form if heads == 1 else Form(*(a[h : h + step] for a in form))
        parts.append(_some_heads((F, G, P, X), own, places, columns))
    rows, of_mask = zip(*parts, strict=True)
    if len(parts) == 1:
        return rows[0], of_mask[0]
    joined = tuple(np.concatenate(found) for found in zip(*rows, strict=True))
    if heads > 1:
        return joined, tuple(np.concatenate(found) for found in zip(*of_mask, strict=True))
    return joined, tuple(sum(found) for found in zip(*of_mask, strict=True))


def _moments(operands: _Operands, form: Form) -> tuple[int, int, int, int]:
    """Chunks, states, and rows and columns in memory of the moments of a head."""
    F, _, _, X = operands
    V, (_, C, p) = int(lanes_of(F)), form.left.shape
    height = int(rounded(rounded(X.shape[2], ROWS), V))
    return -(-F.shape[1] // C), p, height, int(rounded(F.shape[2], 2 * V))


def _some_heads(operands: _Operands, form: Form, places: _Places, columns: int) -> tuple[_Arrays, _Arrays]:
    """The same, with the moments of all heads in memory at once."""
    F, G, P, X = operands
    (reach, nearest, sides), (N, p, height, wide) = places, _moments(operands, form)
    (H, n, m), k, (heads, C, _) = F.shape, X.shape[2], form.left.shape
    tiles, r, total = form.tiles.shape[1], p // max(1, sum(sides)), height * wide
    sizes = _Sizes(N, p, r, reach, nearest, *sides, reach < N and r > 0, height, total)
    small = get_num_threads() == 1 or H * n * (5 * p * m * k + 3 * C * tiles * (m + k)) < _SERIAL_WORK
    tasks = H * N
    workers = 1 if small else min(get_num_threads(), tasks)
    dF, dG, dX = np.empty(F.shape, F.dtype), np.empty(G.shape, F.dtype), np.empty((H, n, columns), F.dtype)
    dO, dZ = np.zeros((workers, heads, C, p)), np.zeros((workers, heads, C, p))
    steps = np.zeros((workers, heads, 2, r * r))
    far = max(nearest + tiles, 1 - nearest)
    lags = np.zeros((workers, heads, 2 * far * C - 1), F.dtype)
    rows, panels, size = (F, G, P, X, form, sizes), -(-total // _PANEL), tasks * p * total if sizes.far else 0
    with borrowed_arrays(F.dtype, ((size,), (size,))) as (mu, nu):
        if small:
            if sizes.far:
                _moment_tasks(0, tasks, *rows, mu, nu)
                _state_tasks(0, H * panels, panels, form, sizes, mu, nu, steps[0])
            _row_tasks(0, tasks, *rows, mu, nu, dF, dG, dX, dO[0], dZ[0], lags[0])
        else:
            if sizes.far:
                _moments_parallel(tasks, workers, *rows, mu, nu)
                _states_parallel(H * panels, workers, panels, form, sizes, mu, nu, steps)
            _rows_parallel(tasks, workers, *rows, mu, nu, dF, dG, dX, dO, dZ, lags)
    of_mask = (a.sum(axis=0) for a in (dO, dZ, steps.reshape(workers, heads, 2, r, r), lags[..., ::-1]))
    return (dF, dG, dX), tuple(of_mask)
