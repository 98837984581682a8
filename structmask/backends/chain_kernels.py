"""Walks on parts of their states: one entry, to numba or to the standard form."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from structmask.backends.arrays import Array
from structmask.backends.config import get_backend


def restricted(A: Array, is_kept: Array, goal: Array) -> tuple[Array, Array, Array]:
    """The steps among the states of a mask (csr_array), their rates to all others, and their rates into a goal (n,)."""
    if get_backend() == "numpy":
        f = np.flatnonzero(is_kept)
        rows = A[f]
        inside = rows[:, f]
        inside.sort_indices()
        return inside, rows @ (~is_kept).astype(float), rows @ goal
    from structmask.backends._numba.restriction import restricted as restrict

    indptr, indices, data, leak, into = restrict(A.indptr, A.indices, A.data, is_kept, goal)
    inside = scipy.sparse.csr_array((data, indices, indptr), shape=(leak.size, leak.size))
    inside.has_sorted_indices = bool(A.has_sorted_indices)  # the order of the states is kept
    return inside, leak, into
