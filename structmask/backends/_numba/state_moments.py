"""Moments of keys and values in chunks: what states are driven by, in the directions that a chunk shows them."""

from typing import NamedTuple

import numpy as np
from numba import njit

from .gemm import (
    ROWS,
    lanes_of,
    multiply_transposed,
    pack_panels,
    padded_rank,
    rounded,
    scale_row,
    scratch,
)


class Sizes(NamedTuple):
    """Chunk, directions, states, reach in chunks, nearest tile; whether a side is there; lengths of the layout."""

    C: int
    p: int
    r: int
    reach: int
    nearest: int
    below: bool
    above: bool
    chunks: int
    features: int
    panels: int
    total: int


class Scratch(NamedTuple):
    """Packed operands of one chunk: rows of F or G, panels of G^T, G and X, tiles of S and Y, moments of a panel."""

    F: np.ndarray
    G: np.ndarray
    A: np.ndarray
    transposed: np.ndarray
    keys: np.ndarray
    X: np.ndarray
    S: np.ndarray
    Y: np.ndarray
    sums: np.ndarray
    mass: np.ndarray


@njit(nogil=True, cache=True)
def new_scratch(F, X, C, p):
    V = lanes_of(F)
    rank, columns, keys = padded_rank(F.shape[2], V), rounded(X.shape[2], 2 * V), rounded(F.shape[2], 2 * V)
    tall = rounded(C, ROWS)
    return Scratch(
        scratch(tall * rank, F),
        scratch(tall * rank, F),
        scratch(tall * rank, F),
        scratch(C * rank, F),
        scratch(C * keys, F),
        scratch(C * columns, F),
        scratch(ROWS * C, F),
        scratch(tall * columns, F),
        scratch(tall * V, F),
        scratch(rounded(p, ROWS) * keys, F),
    )


@njit(nogil=True, cache=True, forceinline=True)
def scaled_rows(source, first, count, factors, direction, packed, width):
    """Rows ``first ...`` of source, row i times ``factors[i, direction]``."""
    columns = source.shape[1]
    for i in range(count):
        scale_row(source, (first + i) * columns, packed, i * width, columns, factors[i, direction])


@njit(nogil=True, cache=True, forceinline=True)
def chunk_moments(G, X, right, first, C, p, moments, place, across, down, beyond, work):
    """The p moments of the chunk of C rows from ``first`` on, m x k matrices by panels of columns.

    Row f of a panel q of direction d goes to ``place + d * across + f * down + q * beyond``.
    """
    count, rank = min(C, G.shape[0] - first), work.A.size // rounded(C, ROWS)
    pack_panels(X, first, count, work.X, C)
    for d in range(p):
        scaled_rows(G, first, count, right, d, work.A, rank)
        for f in range(0, G.shape[1], ROWS):
            start = place + d * across + f * down
            multiply_transposed(work.A, f, rank, work.X, C, moments, start, down, beyond, X.shape[1], count)


@njit(nogil=True, cache=True, forceinline=True)
def chunk_masses(G, right, first, C, p, moments, place, across, work):
    """The same of row sums: p moments of m numbers."""
    W, count, tall, wide = 2 * lanes_of(G), min(C, G.shape[0] - first), right.shape[1], work.keys.size // C
    pack_panels(G, first, count, work.keys, C)
    for d in range(0, p, ROWS):
        multiply_transposed(right, d, tall, work.keys, C, work.mass, d * wide, wide, W, G.shape[1], count)
    for d in range(p):
        scale_row(work.mass, d * wide, moments, place + d * across, wide, 1)
