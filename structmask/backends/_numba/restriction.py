"""A walk on some of its states: the steps among them, in one pass."""

from __future__ import annotations

import numpy as np
from numba import njit


def restricted(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, leak: np.ndarray, is_kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CSR arrays of the steps among the kept states, and what leaves them: `leak` (n,) and their rates elsewhere."""
    count, place = int(np.count_nonzero(is_kept)), np.empty(is_kept.size, np.int32)
    ends, columns, values = np.empty(count + 1, indptr.dtype), np.empty_like(indices), np.empty_like(data)
    away = np.empty(count)
    used = _restrict(indptr, indices, data, leak, is_kept, place, (ends, columns, values, away))
    return ends, columns[:used], values[:used], away


@njit(nogil=True, cache=True)
def _restrict(indptr, indices, data, leak, is_kept, place, found):
    ends, columns, values, away = found
    count, used, row = 0, 0, 0
    for i in range(is_kept.size):
        place[i] = count if is_kept[i] else -1
        count += is_kept[i]
    ends[0] = 0
    for i in range(is_kept.size):
        if not is_kept[i]:
            continue
        out = leak[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if place[j] >= 0:
                columns[used], values[used] = place[j], data[e]
                used += 1
            else:
                out += data[e]
        away[row] = out
        row += 1
        ends[row] = used
    return used
