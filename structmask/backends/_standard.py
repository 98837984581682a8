"""Every kernel in the array-API standard: the reference of the fast ones, and what runs where there is no fast one."""

from __future__ import annotations

import math

import numpy as np

from structmask.backends.arrays import (
    Array,
    cast,
    cast_precision,
    dtype_name,
    fft_module,
    is_complex,
    namespace,
    precision,
)

SCAN_CHUNK = 64
CAUSAL_CHUNK = 128
WALSH_RADIX = 32


def linear_scan(X: Array, decay: Array) -> Array:
    """Y with Y_i = X_i + decay_i Y_{i-1}; X (..., n, k), decay (..., n), the first decay unused.

    Chunks of positions are products with small triangles of decays; what crosses chunks is again a linear scan, one
    position a chunk, so the depth is logarithmic and the work O(n k).
    """
    xp = namespace(X)
    n, k = X.shape[-2:]
    width = precision(X)
    if n <= SCAN_CHUNK:
        return cast_precision(decay_triangle(decay), width) @ X
    chunked = _chunks(X, SCAN_CHUNK)
    factors = _chunks(decay[..., None], SCAN_CHUNK)[..., 0]
    triangle = decay_triangle(factors)
    local = cast_precision(triangle, width) @ chunked
    entering = triangle[..., :, 0] * factors[..., :1]  # decay from before the chunk to each of its positions
    state = _delayed(linear_scan(local[..., -1, :], entering[..., -1]))
    Y = local + cast_precision(entering, width)[..., None] * state[..., None, :]
    return xp.reshape(Y, (*Y.shape[:-3], -1, k))[..., :n, :]


def causal_hadamard(F: Array, G: Array, X: Array, decay: Array) -> tuple[Array, Array]:
    """Y = (M * F G^T) X and its row sums (M * F G^T) 1 for the lower-triangular decay mask M.

    F, G (..., n, r), X (..., n, k), decay (..., n). Inside a chunk a masked matrix product, between chunks a state of
    size r x (k + 1): O(n (C (r + k) + r k)) for chunks of C.
    """
    xp = namespace(X)
    n, k = X.shape[-2:]
    ones = xp.ones_like(X[..., :1])
    F, G, V = (_chunks(a, CAUSAL_CHUNK) for a in (F, G, xp.concat([X, ones], axis=-1)))
    factors = _chunks(decay[..., None], CAUSAL_CHUNK)[..., 0]
    triangle = decay_triangle(factors)
    steps = triangle[..., :, 0] * factors[..., :1]
    triangle, entering = (cast_precision(a, precision(X)) for a in (triangle, steps))
    leaving = triangle[..., -1, :]
    Y = (F @ _transposed(G) * triangle) @ V
    contribution = _transposed(G * leaving[..., None]) @ V
    states = xp.reshape(contribution, (*contribution.shape[:-2], -1))
    carried = linear_scan(states, xp.broadcast_to(steps[..., -1], states.shape[:-1]))
    carried = xp.reshape(_delayed(carried), contribution.shape)
    Y = Y + (F * entering[..., None]) @ carried
    Y = xp.reshape(Y, (*Y.shape[:-3], -1, k + 1))[..., :n, :]
    return Y[..., :k], Y[..., k]


def decay_triangle(decay: Array) -> Array:
    """T (..., n, n) with T_ij = prod_{t=j+1..i} decay_t for i >= j, else 0: by doubling, exact for zeros and signs.

    Two neighbouring triangles join into one; below the diagonal stand the products of what leaves the first and what
    enters the second.
    """
    xp, n = namespace(decay), decay.shape[-1]
    size = 1 << max(0, n - 1).bit_length()
    if size > n:
        decay = xp.concat([decay, xp.ones((*decay.shape[:-1], size - n), dtype=decay.dtype)], axis=-1)
    T = xp.ones((*decay.shape, 1, 1), dtype=decay.dtype)
    width = 1
    while width < size:
        pairs = xp.reshape(T, (*decay.shape[:-1], size // (2 * width), 2, width, width))
        first, second = pairs[..., 0, :, :], pairs[..., 1, :, :]
        step = xp.reshape(decay, (*decay.shape[:-1], size // (2 * width), 2, width))[..., 1, :1]
        below = (step * second[..., :, 0])[..., :, None] * first[..., -1:, :]
        above = xp.concat([first, xp.zeros_like(first)], axis=-1)
        T = xp.concat([above, xp.concat([below, second], axis=-1)], axis=-2)
        width *= 2
    return T[..., 0, :n, :n]


def reversed_decay(decay: Array) -> Array:
    """The decays of the same mask read from its end: the transposed mask is the mask of these, flipped."""
    xp = namespace(decay)
    return xp.concat([decay[..., :1], xp.flip(decay[..., 1:], axis=-1)], axis=-1)


def circulant_spectrum(offsets: Array, columns: tuple[int, ...], lengths: tuple[int, ...]) -> Array:
    """Eigenvalues of the circulant with the given sides that embeds a Toeplitz table; half of them if it is real."""
    xp = namespace(offsets)
    levels = len(lengths)
    table = offsets
    for level, (n, length) in enumerate(zip(columns, lengths, strict=True)):
        axis = level - levels
        shape = list(table.shape)
        shape[axis] = length - shape[axis]
        table = xp.roll(xp.concat([table, xp.zeros(shape, dtype=table.dtype)], axis=axis), -(n - 1), axis=axis)
    return _forward(table[..., None], lengths, real=not is_complex(table))[..., 0]


def circulant_product(
    spectrum: Array, X: Array, columns: tuple[int, ...], rows: tuple[int, ...], lengths: tuple[int, ...], *, real: bool
) -> Array:
    """Toeplitz times X (..., prod(columns), k) by FFT; an axis is padded when transformed, cropped when inverted."""
    xp = namespace(X)
    k = X.shape[-1]
    grid = xp.reshape(X, (*X.shape[:-2], *columns, k))
    Y = _inverse(_forward(grid, lengths, real=real) * spectrum[..., None], rows, lengths, real=real)
    return xp.reshape(Y, (*Y.shape[: -len(rows) - 1], math.prod(rows), k))


def circulant_correlation(
    G: Array, X: Array, columns: tuple[int, ...], rows: tuple[int, ...], lengths: tuple[int, ...]
) -> Array:
    """Table (..., m_1+n_1-1, ...) of sums of G_i conj(X_j) over all i - j = s and all columns."""
    xp = namespace(X)
    k = X.shape[-1]
    real = not (is_complex(G) or is_complex(X))
    g = _forward(xp.reshape(G, (*G.shape[:-2], *rows, k)), lengths, real=real)
    x = _forward(xp.reshape(X, (*X.shape[:-2], *columns, k)), lengths, real=real)
    product = xp.sum(g * xp.conj(x), axis=-1, keepdims=True)
    table = _inverse(product, lengths, lengths, real=real)[..., 0]
    for level, (m, n) in enumerate(zip(rows, columns, strict=True)):
        axis = level - len(lengths)
        table = _head(xp.roll(table, n - 1, axis=axis), m + n - 1, axis)
    return table


def csr_product(A: Array, values: Array, X: Array) -> Array:
    """Sparse matrices with the pattern of A and entries `values` (..., nnz), times X (..., n, k)."""
    xp = namespace(X)
    if values.ndim == 1:  # one matrix: the batch of X joins its columns
        batch, (n, k) = X.shape[:-2], X.shape[-2:]
        columns = xp.reshape(xp.moveaxis(X, -2, 0), (n, -1))
        Y = type(A)((values, A.indices, A.indptr), shape=A.shape) @ columns
        return xp.moveaxis(xp.reshape(Y, (A.shape[0], *batch, k)), 0, -2)
    heads = np.broadcast_shapes(tuple(values.shape[:-1]), tuple(X.shape[:-2]))
    values = xp.reshape(xp.broadcast_to(values, (*heads, values.shape[-1])), (-1, values.shape[-1]))
    X = xp.reshape(xp.broadcast_to(X, (*heads, *X.shape[-2:])), (-1, *X.shape[-2:]))
    Y = xp.stack([csr_product(A, values[b, :], X[b, ...]) for b in range(X.shape[0])])
    return xp.reshape(Y, (*heads, A.shape[0], X.shape[-1]))


def sampled_product(rows: Array, columns: Array, F: Array, G: Array) -> Array:
    """The entries of F G^T at the given positions, (..., nnz), one feature at a time."""
    xp = namespace(F)
    total = xp.zeros((*F.shape[:-2], rows.shape[0]), dtype=F.dtype)
    for r in range(F.shape[-1]):
        total = total + xp.take(F[..., r], rows, axis=-1) * xp.take(G[..., r], columns, axis=-1)
    return total


def walsh_hadamard(X: Array) -> Array:
    """Products of X (..., n, k), n a power of two, with the Hadamard matrix (-1)^popcount(i & j), without scaling.

    That matrix is the Kronecker product of smaller ones, each a matrix product along its own bits of the index.
    """
    xp, batch = namespace(X), tuple(X.shape[:-2])
    n, k = X.shape[-2:]
    Y, left, right = X, 1, n
    while right > 1:
        size = min(WALSH_RADIX, right)
        right //= size
        Y = xp.reshape(Y, (*batch, left, size, right * k))
        Y = _signs(size, X) @ Y
        left *= size
    return xp.reshape(Y, X.shape)


def _signs(n: int, like: Array) -> Array:
    """The Hadamard matrix of size n, in the home and dtype of an array."""
    xp = namespace(like)
    H = xp.ones((1, 1), dtype=like.dtype)
    while H.shape[0] < n:
        H = xp.concat([xp.concat([H, H], axis=1), xp.concat([H, -H], axis=1)], axis=0)
    return H


def _forward(grid: Array, lengths: tuple[int, ...], *, real: bool) -> Array:
    """FFT over the grid axes (all but the last axis are batch and grid), the last of them first and halved if real."""
    fft = fft_module(namespace(grid))
    transform = fft.rfft if real else fft.fft
    grid = transform(_inexact(grid, real=real), n=lengths[-1], axis=-2)
    for level in reversed(range(len(lengths) - 1)):
        grid = fft.fft(grid, n=lengths[level], axis=level - len(lengths) - 1)
    return grid


def _inverse(grid: Array, rows: tuple[int, ...], lengths: tuple[int, ...], *, real: bool) -> Array:
    fft = fft_module(namespace(grid))
    for level in range(len(lengths) - 1):
        axis = level - len(lengths) - 1
        grid = _head(fft.ifft(grid, n=lengths[level], axis=axis), rows[level], axis)
    transform = fft.irfft if real else fft.ifft
    return _head(transform(grid, n=lengths[-1], axis=-2), rows[-1], -2)


def _inexact(grid: Array, *, real: bool) -> Array:
    """Complex transforms of real data need complex input in the standard."""
    if real or is_complex(grid):
        return grid
    return cast(grid, "complex64" if dtype_name(grid) == "float32" else "complex128")


def _head(a: Array, count: int, axis: int) -> Array:
    """The first `count` entries along an axis."""
    index = [slice(None)] * a.ndim
    index[axis] = slice(0, count)
    return a[tuple(index)]


def _chunks(a: Array, size: int) -> Array:
    """(..., n, k) -> (..., N, size, k), padded with zeros (a decay of zero at the end changes nothing before it)."""
    xp = namespace(a)
    n, k = a.shape[-2:]
    count = -(-n // size)
    if count * size > n:
        a = xp.concat([a, xp.zeros((*a.shape[:-2], count * size - n, k), dtype=a.dtype)], axis=-2)
    return xp.reshape(a, (*a.shape[:-2], count, size, k))


def _delayed(states: Array) -> Array:
    """States entering each chunk from those leaving it: shifted by one, the first is zero. (..., N, k)."""
    xp = namespace(states)
    return xp.concat([xp.zeros_like(states[..., :1, :]), states[..., :-1, :]], axis=-2)


def _transposed(a: Array) -> Array:
    return namespace(a).matrix_transpose(a)
