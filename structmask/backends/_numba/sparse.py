"""Products with sparse matrices, one task a block of rows: row sums are sequential, so results never change."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import WIDTH, load, times_add, total_of, zero

SERIAL_WORK = 1_000_000  # multiplications below which one thread is faster than waking others


def csr_product(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, X: np.ndarray, rows: int) -> np.ndarray:
    """Sparse (rows, n) in CSR form times X (B, n, k); data (D, nnz), D in {1, B}: one set of entries, or one a head."""
    Y = np.zeros((X.shape[0], rows, X.shape[2]), X.dtype)
    serial = indices.size * X.shape[0] * X.shape[2] < SERIAL_WORK
    run = _csr_serial if serial else _csr_parallel
    run(indptr, indices, data, X, Y, _balanced(indptr, 1 if serial else 4 * get_num_threads()))
    return Y


def sampled_product(indptr: np.ndarray, indices: np.ndarray, F: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Entries (B, nnz) of F G^T at the positions of a CSR pattern; F (B, m, r), G (B, n, r)."""
    if np.iscomplexobj(F):
        sides = np.concatenate([F.real, F.imag], axis=-1), np.concatenate([G.real, -G.imag], axis=-1)
        turned = np.concatenate([G.imag, G.real], axis=-1)
        entries = np.empty((F.shape[0], indices.size), F.dtype)
        entries.real = sampled_product(indptr, indices, *sides)
        entries.imag = sampled_product(indptr, indices, sides[0], turned)
        return entries
    values = np.empty((F.shape[0], indices.size), F.dtype)
    serial = indices.size * F.shape[0] * F.shape[2] < SERIAL_WORK
    run = _sample_serial if serial else _sample_parallel
    run(indptr, indices, F, G, values, _balanced(indptr, 1 if serial else 4 * get_num_threads()))
    return values


@njit(nogil=True, cache=True)
def _dot(F, f, G, g, r):
    """The inner product of r numbers of F and of G from some positions on."""
    whole, one, other = r // (2 * WIDTH) * 2 * WIDTH, zero(F), zero(F)
    for c in range(0, whole, 2 * WIDTH):
        one = times_add(load(F, f + c), load(G, g + c), one)
        other = times_add(load(F, f + c + WIDTH), load(G, g + c + WIDTH), other)
    total = total_of(one) + total_of(other)
    for c in range(whole, r):
        total += F.flat[f + c] * G.flat[g + c]
    return total


def _balanced(indptr: np.ndarray, parts: int) -> np.ndarray:
    """Row boundaries of parts with about equal numbers of stored entries."""
    targets = np.linspace(0, indptr[-1], parts + 1)
    bounds = np.searchsorted(indptr, targets).astype(np.int64)
    bounds[0], bounds[-1] = 0, indptr.size - 1
    return bounds


def _csr(indptr, indices, data, X, Y, bounds):
    parts = bounds.size - 1
    for task in prange(X.shape[0] * parts):
        b, part = task // parts, task % parts
        for i in range(bounds[part], bounds[part + 1]):
            for position in range(indptr[i], indptr[i + 1]):
                j, a = indices[position], data[b % data.shape[0], position]
                for c in range(X.shape[2]):
                    Y[b, i, c] += a * X[b, j, c]


_csr_serial, _csr_parallel = serial_and_parallel(_csr)


def _sample(indptr, indices, F, G, values, bounds):
    parts, r = bounds.size - 1, F.shape[2]
    for task in prange(F.shape[0] * parts):
        b, part = task // parts, task % parts
        for i in range(bounds[part], bounds[part + 1]):
            for position in range(indptr[i], indptr[i + 1]):
                f, g = (b * F.shape[1] + i) * r, (b * G.shape[1] + indices[position]) * r
                values[b, position] = _dot(F, f, G, g, r)


_sample_serial, _sample_parallel = serial_and_parallel(_sample)
