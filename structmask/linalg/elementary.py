"""The plain structures: a dense array, a diagonal, a sparse matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work


@dataclass(frozen=True, eq=False, repr=False)
class Dense(StructuredMatrix):
    """An array as a structured matrix: the one structure that is what it looks like.

    Parameters
    ----------
    a : array (..., m, n)
        The entries.

    Notes
    -----
    A product costs 2 m n operations a column.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Dense
    >>> Dense(np.eye(2)) @ np.array([1.0, 2.0])
    array([1., 2.])
    """

    a: Array

    def __post_init__(self) -> None:
        a = arrays.as_array(self.a, "Dense(a)")
        if a.ndim < 2:
            msg = (
                f"Dense needs an array (..., m, n), got shape {tuple(a.shape)}; use Diagonal for a vector "
                "of diagonal entries"
            )
            raise ValueError(msg)
        object.__setattr__(self, "a", a)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.a.shape)

    def _matmat(self, X: Array) -> Array:
        return self.a @ X

    def transpose(self) -> Dense:
        return Dense(arrays.namespace(self.a).matrix_transpose(self.a))

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        gradient = G @ xp.matrix_transpose(xp.conj(X) if arrays.is_complex(X) else X)
        return {"a": unbroadcast(gradient, self.shape, complex_=arrays.is_complex(self.a))}

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(self.a)
        flat = xp.reshape(self.a, (*self.shape[:-2], self.shape[-2] * self.shape[-1]))
        return gather(flat, i * self.shape[-1] + j)


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(StructuredMatrix):
    """A square matrix that scales each row.

    Parameters
    ----------
    d : array (..., n)
        The diagonal.

    Notes
    -----
    A product costs n operations a column.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Diagonal
    >>> Diagonal([1.0, 2.0]) @ np.ones(2)
    array([1., 2.])
    """

    d: Array

    def __post_init__(self) -> None:
        d = arrays.as_array(self.d, "Diagonal(d)")
        if d.ndim < 1:
            msg = "Diagonal needs an array (..., n) of diagonal entries, got a scalar"
            raise ValueError(msg)
        object.__setattr__(self, "d", d)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.d.shape, self.d.shape[-1])

    def _matmat(self, X: Array) -> Array:
        return self.d[..., None] * X

    def transpose(self) -> Diagonal:
        return self

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        gradient = xp.sum(G * (xp.conj(X) if arrays.is_complex(X) else X), axis=-1)
        return {"d": unbroadcast(gradient, tuple(self.d.shape), complex_=arrays.is_complex(self.d))}

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(self.d)
        values = gather(self.d, i + 0 * j)
        return xp.where(i == j, values, xp.zeros_like(values))

    def _work(self, columns: int) -> Work:
        return Work(bytes=3.0 * self.dtype.itemsize * math.prod(self.shape[:-1]) * columns, calls=1)


@dataclass(frozen=True, eq=False, repr=False)
class Sparse(StructuredMatrix):
    """A scipy.sparse (or cupyx.scipy.sparse) matrix as a structured matrix.

    Parameters
    ----------
    csr : sparse array or matrix (m, n)
        Any sparse format; held as CSR with duplicates summed. The gradient of the field `csr`, and its entry in
        `parameters`, is the array (nnz,) of its stored entries. The given matrix is never modified.

    Notes
    -----
    A product costs 2 nnz operations a column.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> from structmask import Sparse
    >>> Sparse(scipy.sparse.eye_array(2)) @ np.array([1.0, 2.0])
    array([1., 2.])
    """

    csr: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "csr", as_csr(self.csr, "Sparse(csr)"))

    @property
    def shape(self) -> tuple[int, ...]:
        m, n = self.csr.shape
        return (int(m), int(n))

    def _matmat(self, X: Array) -> Array:
        data, X = arrays.as_same_kind(self.csr.data, X)
        return kernels.csr_product(self.csr, data, X)

    def transpose(self) -> Sparse:
        csr = self.csr.T.tocsr()
        csr.has_canonical_format = True  # as this one is: nobody has to look
        return Sparse(csr)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return {"csr": sparse_gradient(self.csr, self._rows, G, X)}

    @cached_property
    def _rows(self) -> Array:
        """Row of each stored entry."""
        xp = arrays.namespace(self.csr.data)
        counts = self.csr.indptr[1:] - self.csr.indptr[:-1]
        if xp is np:
            return np.repeat(np.arange(self.shape[0]), counts)
        return xp.asarray(np.repeat(np.arange(self.shape[0]), arrays.to_numpy(counts)))

    @cached_property
    def _keys(self) -> Array:
        """Row-major positions of the stored entries: sorted, so that an entry is found by bisection."""
        return self._rows * self.shape[1] + self.csr.indices

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(self.csr.data)
        wanted = i * self.shape[1] + j
        if not self.csr.data.shape[0]:
            return xp.zeros(wanted.shape, dtype=self.csr.data.dtype)
        place = xp.searchsorted(self._keys, xp.reshape(wanted, (-1,)))
        place = xp.reshape(xp.minimum(place, xp.asarray(self._keys.shape[0] - 1)), wanted.shape)
        values = self.csr.data[place]
        return xp.where(self._keys[place] == wanted, values, xp.zeros_like(values))

    @property
    def _entry_bytes(self) -> float:
        return 200.0

    def _work(self, columns: int) -> Work:
        return Work(scan=2.0 * self.csr.data.shape[0] * columns, calls=1)


def as_csr(matrix: Any, what: str) -> Array:
    """A sparse matrix as canonical CSR of a supported dtype; the given one is never changed."""
    if not arrays.is_sparse(matrix):
        msg = (
            f"{what} needs a scipy.sparse or cupyx.scipy.sparse matrix, got {type(matrix).__name__}; use "
            "Dense for an array"
        )
        raise TypeError(msg)
    if arrays.home(matrix) == "numpy":
        if matrix.ndim != 2:
            msg = f"{what} needs a two-dimensional sparse matrix, got shape {matrix.shape}"
            raise ValueError(msg)
        given, matrix = matrix, scipy.sparse.csr_array(matrix)
        if matrix is given:
            matrix = scipy.sparse.csr_array((given.data, given.indices, given.indptr), shape=given.shape)
    else:
        matrix = matrix.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return arrays.as_inexact(matrix, what)


def sparse_gradient(csr: Array, rows: Array, G: Array, X: Array) -> Array:
    """Gradient of Re <G, A @ X> for the stored entries of a sparse A: G X^H sampled at its pattern."""
    xp = arrays.namespace(X)
    conjugate = xp.conj(X) if arrays.is_complex(X) else X
    G, conjugate = arrays.as_same_kind(G, conjugate)
    gradient = kernels.sampled_product(csr, rows, G, conjugate)
    return unbroadcast(gradient, (csr.data.shape[0],), complex_=arrays.is_complex(csr))


def gather(a: Array, index: Array) -> Array:
    """a[..., index] for an index array of any shape, in the standard."""
    xp = arrays.namespace(a)
    taken = xp.take(a, xp.reshape(index, (-1,)), axis=-1)
    return xp.reshape(taken, (*a.shape[:-1], *index.shape))


class GatherForm(NamedTuple):
    """A mask as M_ij = table[columns[j] - rows[i]], for tables (heads, N).

    Inside an aligned `run` of columns their positions ascend by one, so that a row of M is read contiguously. Where the
    table has zeros, `filled` (heads, N + 1) counts the entries before each place that are not; else it is empty.
    """

    table: Array
    rows: Array
    columns: Array
    run: int
    filled: Array


def filled_before(table: Array) -> Array:
    """The `filled` of a `GatherForm`, for a table on the host."""
    other = table != 0
    if other.all():
        return np.empty((1, 0), np.int64)
    return np.concatenate([np.zeros((*table.shape[:-1], 1), np.int64), np.cumsum(other, axis=-1)], axis=-1)
