"""Walsh-Hadamard transforms in place: butterflies inside chunks that fit the cache, then four rows at a time across."""

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel

_CHUNK = 8192  # numbers that stay in cache while all their own butterflies are done
_SERIAL_SIZE = 300_000  # numbers one thread does in less than the time it takes to share them


@njit(nogil=True, cache=True)
def _inside(x, begin, end, h):
    """All butterflies at distances h, 2 h, ... inside one chunk."""
    while 2 * h <= end - begin:
        for block in range(begin, end, 2 * h):
            for j in range(block, block + h):
                a, b = x[j], x[j + h]
                x[j], x[j + h] = a + b, a - b
        h *= 2


@njit(nogil=True, cache=True)
def _across_two(x, h, begin, end):
    """Butterflies at distance h, by their numbers."""
    q = begin
    while q < end:
        first, count = q // h * 2 * h + q % h, min(h - q % h, end - q)
        for j in range(first, first + count):
            a, b = x[j], x[j + h]
            x[j], x[j + h] = a + b, a - b
        q += count


@njit(nogil=True, cache=True)
def _across_four(x, h, begin, end):
    """Butterflies at distances h and 2 h together, by the numbers of the quadruples."""
    q = begin
    while q < end:
        first, count = q // h * 4 * h + q % h, min(h - q % h, end - q)
        for j in range(first, first + count):
            a, b, c, d = x[j], x[j + h], x[j + 2 * h], x[j + 3 * h]
            p, q_, r, s = a + b, a - b, c + d, c - d
            x[j], x[j + h], x[j + 2 * h], x[j + 3 * h] = p + r, q_ + s, p - r, q_ - s
        q += count


def _transform(x, k, length, chunk, workers):
    """Transforms of x, stretches of `length` numbers each, whose rows have k."""
    chunks = x.size // chunk
    for task in prange(chunks):
        _inside(x, task * chunk, (task + 1) * chunk, k)
    h = chunk
    while h < length:
        two = 2 * h == length
        count = x.size // (2 if two else 4)
        for w in prange(workers):
            begin, end = count * w // workers, count * (w + 1) // workers
            if two:
                _across_two(x, h, begin, end)
            else:
                _across_four(x, h, begin, end)
        h *= 2 if two else 4


_transform_serial, _transform_parallel = serial_and_parallel(_transform)


def walsh_hadamard(X: np.ndarray) -> np.ndarray:
    """Products with the Hadamard matrix (-1)^popcount(i & j), without scaling.

    Parameters
    ----------
    X : (batch, n, k) array
        Operand, C-contiguous, real or complex; n is a power of two. It is overwritten.

    Returns
    -------
    (batch, n, k) array
        X itself.
    """
    _, n, k = X.shape
    if X.size == 0:
        return X
    chunk = k
    while 2 * chunk <= min(_CHUNK, n * k):
        chunk *= 2
    serial = X.size < _SERIAL_SIZE
    run = _transform_serial if serial else _transform_parallel
    run(X.reshape(-1), k, n * k, chunk, 1 if serial else get_num_threads())
    return X
