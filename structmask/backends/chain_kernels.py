"""Walks on parts of their states: one entry, to numba or to the standard form."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from structmask.backends.arrays import Array
from structmask.backends.config import get_backend


def restricted(A: Array, leak: Array, is_kept: Array) -> tuple[Array, Array]:
    """The steps among the states of a mask (csr_array), and what leaves them: `leak` (n,) and their steps elsewhere."""
    if get_backend() == "numpy":
        f = np.flatnonzero(is_kept)
        rows = A[f]
        inside = rows[:, f]
        inside.sort_indices()
        return inside, leak[f] + rows @ (~is_kept).astype(float)
    from structmask.backends._numba.restriction import restricted as restrict

    indptr, indices, data, away = restrict(A.indptr, A.indices, A.data, leak, is_kept)
    inside = scipy.sparse.csr_array((data, indices, indptr), shape=(away.size, away.size))
    inside.has_sorted_indices = bool(A.has_sorted_indices)  # the order of the states is kept
    return inside, away
