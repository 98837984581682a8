"""The linear recurrence ``Y[i] = X[i] + decay[i] Y[i-1]`` and its transpose, columns side by side."""

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends._numba.threads import parallel

_SERIAL_SIZE = 1_000_000  # numbers one thread does in less than the time it takes to share them
_FEWEST_COLUMNS = 16


@njit(nogil=True, cache=True)
def _scan_columns(X, decay, upper, begin, end, Y):
    n = X.shape[0]
    for s in range(n):
        i = n - 1 - s if upper else s
        if s == 0:
            for j in range(begin, end):
                Y[i, j] = X[i, j]
            continue
        before = i + 1 if upper else i - 1
        factor = decay[before] if upper else decay[i]
        for j in range(begin, end):
            Y[i, j] = X[i, j] + factor * Y[before, j]


@njit(nogil=True, cache=True)
def _run_tasks(X, decay, upper, pieces, begin, end, Y):
    """Tasks are (batch, piece of the columns)."""
    k = X.shape[2]
    for task in range(begin, end):
        b, piece = task // pieces, task % pieces
        first, last = k * piece // pieces, k * (piece + 1) // pieces
        _scan_columns(X[b], decay[b if decay.shape[0] > 1 else 0], upper, first, last, Y[b])


@parallel
def _run_parallel(X, decay, upper, pieces, workers, Y):
    tasks = X.shape[0] * pieces
    for w in prange(workers):
        _run_tasks(X, decay, upper, pieces, tasks * w // workers, tasks * (w + 1) // workers, Y)


def linear_scan(X: np.ndarray, decay: np.ndarray, upper: bool) -> np.ndarray:
    """Linear recurrence along the rows.

    ``Y[i] = X[i] + decay[i] * Y[i-1]``, or with ``upper`` its transpose ``Y[j] = X[j] + decay[j+1] * Y[j+1]``: the
    product of X with the causal mask of these decays. The cost is O(n k) operations a batch.

    Parameters
    ----------
    X : (batch, n, k) array
        Operand, C-contiguous, real or complex.
    decay : (1 or batch, n) array
        Real if X is, taken in double precision; ``decay[:, 0]`` is not used.
    upper : bool
        Whether the recurrence is transposed.

    Returns
    -------
    (batch, n, k) array
    """
    decay = np.ascontiguousarray(decay, np.complex128 if np.iscomplexobj(X) else np.float64)
    batch, _, k = X.shape
    Y = np.empty_like(X)
    if X.size == 0:
        return Y
    threads = get_num_threads()
    pieces = 1 if batch >= 2 * threads else max(1, min(threads, k // _FEWEST_COLUMNS))
    workers = min(threads, batch * pieces)
    if workers == 1 or X.size < _SERIAL_SIZE:
        _run_tasks(X, decay, upper, 1, 0, batch, Y)
        return Y
    _run_parallel(X, decay, upper, pieces, workers, Y)
    return Y
