"""What Markov processes are given: transition matrices, generators, distributions and sets of states, checked.

The entries off the diagonal are the data. A row of a transition matrix is divided by its sum, so that 1 - P_ii *is* the
sum of the others; the diagonal of a generator is minus the sum of its row. Nothing is then lost where a state is left
with a probability far below rounding of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.config import BackendError
from structmask.graphs.adjacency import as_adjacency

_TOLERANCE = {"float64": 1e-8, "float32": 1e-4}  # how far a sum of probabilities may be from one


def as_transition(matrix: Any, /) -> Any:
    """A row-stochastic matrix (n, n) as csr_array without stored zeros, rows divided by their sums.

    Raises
    ------
    ValueError
        If an entry is negative or a row does not sum to one; the message names the row.
    """
    P = _square(matrix, "a transition matrix")
    _refuse_negative(P.data, P, "a transition matrix needs probabilities >= 0")
    sums = row_sums(P)
    wrong = np.abs(sums - 1) > _TOLERANCE[arrays.precision(P)]
    if wrong.any():
        row = int(np.argmax(wrong))
        msg = (
            f"rows of a transition matrix sum to 1, but row {row} sums to {sums[row]:.9g}"
            f"{' (as do others not)' if wrong.sum() > 1 else ''}; divide rows by their sums, or take "
            "MarkovChain.from_graph for a graph's weights"
        )
        raise ValueError(msg)
    return scaled_rows(P, 1 / sums)


def as_generator(matrix: Any, /) -> Any:
    """The rates Q_ij, i != j, of a generator (n, n) as csr_array without stored zeros or diagonal.

    The diagonal may be left out (zero); one that is given must make its row sum to zero.
    """
    Q = _square(matrix, "a generator")
    diagonal, A = Q.diagonal(), off_diagonal(Q)
    _refuse_negative(A.data, A, "a generator needs rates >= 0 off its diagonal")
    out = row_sums(A)
    wrong = (diagonal != 0) & (np.abs(out + diagonal) > _TOLERANCE[arrays.precision(Q)] * (out + np.abs(diagonal)))
    if wrong.any():
        row = int(np.argmax(wrong))
        msg = (
            f"rows of a generator sum to 0, but row {row} sums to {out[row] + diagonal[row]:.9g}; its diagonal entry "
            f"must be minus the other rates' sum, {-out[row]:.9g}: leave the diagonal out, and that is implied"
        )
        raise ValueError(msg)
    return A


def as_distribution(distribution: Any, n: int, home: str, /) -> Array:
    """Probabilities (..., n), each row divided by its sum, in the home of a walk."""
    p = _beside(distribution, home, "a distribution")
    if p.ndim < 1 or p.shape[-1] != n:
        msg = f"a distribution over {n} states has shape (..., {n}), got {tuple(p.shape)}"
        raise ValueError(msg)
    if arrays.is_complex(p):
        msg = f"probabilities are real numbers, got {p.dtype}"
        raise TypeError(msg)
    if 0 in p.shape:
        return p
    xp = arrays.namespace(p)
    if not bool(xp.all(xp.isfinite(p) & (p >= 0))):
        msg = "probabilities are finite and not negative; this distribution has other entries"
        raise ValueError(msg)
    sums = xp.sum(p, axis=-1, keepdims=True, dtype=xp.float64)
    if float(xp.max(xp.abs(sums - 1))) > _TOLERANCE[arrays.precision(p)]:
        worst = float(xp.reshape(sums, (-1,))[int(xp.argmax(xp.abs(sums - 1)))])
        msg = f"a distribution sums to 1, got the sum {worst:.9g}; divide by it"
        raise ValueError(msg)
    return arrays.cast_precision(p / sums, arrays.precision(p))


def as_values(values: Any, n: int, home: str, /) -> Array:
    """A function on states: (n,) or (n, k), in the home of a walk."""
    f = _beside(values, home, "values on states")
    if f.ndim not in (1, 2) or f.shape[0] != n:
        msg = f"values on {n} states have shape ({n},) or ({n}, k), got {tuple(f.shape)}"
        raise ValueError(msg)
    return f


def as_states(states: Any, n: int, /, *, name: str = "targets", may_be_empty: bool = False) -> Array:
    """A set of states as sorted indices, from an index, indices (negative ones count from the end) or a mask (n,)."""
    given = np.atleast_1d(np.asarray(arrays.to_numpy(states)))
    if given.dtype == bool:
        if given.shape != (n,):
            msg = f"a mask of {name} over {n} states has shape ({n},), got {given.shape}"
            raise IndexError(msg)
        found = np.flatnonzero(given)
    else:
        found = np.unique(as_indices(given, n, name))
    if not found.size and not may_be_empty:
        msg = f"{name} is empty: name at least one state"
        raise ValueError(msg)
    return found


def as_indices(states: Any, n: int, name: str) -> Array:
    """Indices of states, as given but not negative."""
    given = np.asarray(arrays.to_numpy(states))
    if given.size == 0:
        return given.astype(np.int64)
    if given.dtype.kind not in "iu":
        msg = f"{name} takes integer indices of states, got dtype {given.dtype}"
        raise IndexError(msg)
    if given.min() < -n or given.max() >= n:
        msg = f"{name} names state {int(given.min() if given.min() < -n else given.max())}, but there are {n} states"
        raise IndexError(msg)
    return np.where(given < 0, given + n, given).astype(np.int64)


def as_host(matrix: Any, /) -> tuple[Any, str]:
    """A matrix on the host, where its structure is read, and the home it comes from; one on a device is copied."""
    home = arrays.home(matrix)
    return (arrays.to_numpy(matrix), home) if home == "cupy" else (matrix, "numpy")


# --- parts ------------------------------------------------------------------------------------------------------------


def row_sums(A: Any) -> Array:
    """Row sums of a sparse matrix in double precision."""
    return np.asarray(A.sum(axis=1, dtype=np.float64)).reshape(-1)


def scaled_rows(A: Any, factors: Array) -> Any:
    """diag(factors) A, in the precision of A."""
    data = A.data * np.repeat(factors, np.diff(A.indptr))
    return scipy.sparse.csr_array((data.astype(A.dtype), A.indices, A.indptr), shape=A.shape)


def off_diagonal(A: Any) -> Any:
    """The entries of a sparse matrix that are not on its diagonal, in double precision, without stored zeros."""
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    keep = (rows != A.indices) & (A.data != 0)
    if keep.all():
        return scipy.sparse.csr_array((A.data.astype(np.float64), A.indices, A.indptr), shape=A.shape)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[keep], minlength=A.shape[0]))]).astype(A.indptr.dtype)
    return scipy.sparse.csr_array((A.data[keep].astype(np.float64), A.indices[keep], indptr), shape=A.shape)


def _square(matrix: Any, what: str) -> Any:
    A = as_adjacency(matrix)
    if A.nnz and A.data.min() <= 0 <= A.data.max() and (A.data == 0).any():
        A = A.copy()
        A.eliminate_zeros()
    if A.shape[0] == 0:
        msg = f"{what} needs at least one state"
        raise ValueError(msg)
    return A


def _refuse_negative(data: Array, A: Any, need: str) -> None:
    if data.size and data.min() < 0:
        place = int(np.argmin(data))
        row = int(np.searchsorted(A.indptr, place, side="right") - 1)
        msg = f"{need}, but row {row} has {data[place]:.6g} in column {int(A.indices[place])}"
        raise ValueError(msg)


def _beside(x: Any, home: str, what: str) -> Array:
    """An operand where the backend in force wants it, which must be where the walk is."""
    found = arrays.as_operand(x, what)
    if (own := arrays.home(found)) != home:
        msg = (
            f"{what} lives in {own}, the walk in {home}: make the walk of a matrix there, or bring the operand, by "
            "structmask.to_numpy(x) or cupy.asarray(x)"
        )
        raise BackendError(msg)
    return found
