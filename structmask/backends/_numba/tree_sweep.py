"""Sweeps of eight real columns over a forest that read X and write Y as they go: one way up, one way down.

X and Y have rows in the caller's order, S and factors go by position (see `tree`). Rows come in as they are needed, and
go out with their last change: no pass only moves rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from structmask.backends._numba.lanes import LANES, row, set_row
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._numba.vectors import (
    LINE,
    axpy,
    converted,
    load,
    prefetch,
    scaled,
    settle,
    store,
    stream,
    zero,
)

_TILE = 32  # rows
_AHEAD = 48  # rows that are asked for before they are needed: more than in `lanes`, for a row is little work here
_NEAR = 1 << 23  # bytes of a result that stay in cache until they are read
_U = np.uint64  # numba tests signed indices for being negative


@njit(nogil=True, cache=True)
def _ask(order, i, ahead, V, begin, k):
    """Bring the row of a position ahead, which may begin and end anywhere in a line."""
    if k > LANES or order[ahead] - order[i] != ahead - i:  # else rows follow each other, as the processor knows
        prefetch(V, begin + order[ahead] * k)
        prefetch(V, begin + order[ahead] * k + LANES - 1)


@njit(nogil=True, cache=True)
def _rise(order, first, up, E, X, begin, k, S):
    """S[i] = what is at position i and the decayed sum of all below it.

    Rows of a tile are brought together, then all their children are added one by one: how many a node has is nothing
    that the processor would have to guess. The row that was stored last stays at hand: on a path it is the next one.
    """
    n = E.size
    here, last = zero(S), -1
    for tile in range((n - 1) // _TILE * _TILE, -1, -_TILE):
        end = min(n, tile + _TILE)
        for i in range(end - 1, tile - 1, -1):
            _ask(order, i, max(i - _AHEAD, 0), X, begin, k)
            set_row(S, i, converted(load(X, begin + order[_U(i)] * k), S))
        for j in range(first[_U(end)] - 1, first[_U(tile)] - 1, -1):
            parent = up[_U(j)]
            here = axpy(E[_U(j)], here if j == last else row(S, j), row(S, parent))
            set_row(S, parent, here)
            last = parent


@njit(nogil=True, cache=True)
def _fall(order, up, roots, E, S, Y, begin, k, streams):
    """S[i] = E[i] S[up] + (1 - E[i]^2) S[i], which is the row of Y."""
    last = E.size - 1
    for i in range(roots):
        store(Y, begin + order[i] * k, converted(row(S, i), Y))
    here = row(S, 0)
    for i in range(roots, E.size):
        if not streams:
            _ask(order, i, min(i + _AHEAD, last), Y, begin, k)
        e, parent = E[_U(i)], up[_U(i)]
        here = axpy(e, here if parent == i - 1 else row(S, parent), scaled(1 - e * e, row(S, i)))
        set_row(S, i, here)
        if streams:
            stream(Y, begin + order[_U(i)] * k, converted(here, Y))
        else:
            store(Y, begin + order[_U(i)] * k, converted(here, Y))
    if streams:
        settle()


def _product(order, first, up, roots, E, X, places, S, Y):
    """Places are (head, first of eight columns), as many at a time as there is scratch; Y begins with a line."""
    streams = LANES * Y.itemsize == LINE and Y.shape[2] % LANES == 0 and Y.nbytes > _NEAR
    n, k = X.shape[1], X.shape[2]
    for start in range(0, places.shape[0], S.shape[0]):
        for t in prange(min(S.shape[0], places.shape[0] - start)):
            head = places[start + t, 0]
            e, begin = E[head if E.shape[0] > 1 else 0], head * n * k + places[start + t, 1]
            _rise(order, first, up, e, X, begin, k, S[t])
            _fall(order, up, roots, e, S[t], Y, begin, k, streams)


product_serial, product_parallel = serial_and_parallel(_product)
