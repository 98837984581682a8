"""StructuredMatrix: a matrix that *is* its generators, and multiplies without ever being formed.

A subclass is a frozen dataclass whose fields are the generators, named as in the mathematics. It writes four things:
`shape`, `_matmat`, `transpose` and `_pullback`; optionally `_at` (entries at index arrays) and `_work` (what a product
costs). Everything else is inherited. Inside these methods the generators have the operand's precision and home.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.generators import Generated, Gradients, zero_gradients
from structmask.linalg.planning import Plan, Work, make_plan

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

_DENSE_BLOCK = 1 << 22  # entries of a dense block formed at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StructuredMatrix(Generated, ABC):
    """A matrix (*batch, m, n), never formed, with a fast product.

    ``+``, ``-`` and ``*`` are elementwise as in numpy, ``@`` is the product, and batch dimensions broadcast as in
    ``numpy.matmul``. Generators are held by reference and must not be modified afterwards.
    """

    __array_ufunc__ = None  # numpy hands its operators over to ours

    # --- what a subclass writes -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Batch dimensions, rows, columns."""

    @abstractmethod
    def _matmat(self, X: Array) -> Array:
        """The product with X (..., n, k), no dimension of which is zero."""

    @abstractmethod
    def transpose(self) -> StructuredMatrix:
        """The transposed matrix (batch dimensions stay in front)."""

    @abstractmethod
    def _pullback(self, G: Array, X: Array) -> Gradients:
        """Gradient of Re <G, M @ X> for each generator, in its own shape."""

    def _at(self, i: Array, j: Array) -> Array:
        """Entries (*batch, ...) at index arrays that broadcast together."""
        msg = f"{type(self).__name__} has no fast entries"
        raise TypeError(msg)

    @property
    def _entry_bytes(self) -> float:
        """What an entry costs where a block of them is formed, as bytes moved."""
        return 50.0

    def _work(self, columns: int) -> Work:
        """What a product with so many columns costs, the batch included."""
        return Work(gemm=2.0 * math.prod(self.shape) * columns, calls=1)

    # --- shape and dtype --------------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """Number of dimensions, the batch included."""
        return len(self.shape)

    @property
    def has_entries(self) -> bool:
        """Whether `entries` costs only as much as the submatrix it returns."""
        return type(self)._at is not StructuredMatrix._at

    @property
    def error_bound(self) -> float:
        """Certified b with ||(M' - M) X|| <= b ||X||; zero for an exact structure, nan if only an estimate exists."""
        return 0.0

    @property
    def error_estimate(self) -> float:
        """Estimated error where no bound can be certified; the bound otherwise."""
        return self.error_bound

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{type(self).__name__}({size}, {self.dtype})"

    # --- products ---------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, StructuredMatrix):
            return _algebra().multiply(self, other)
        X = arrays.as_operand(other, "the right operand of @")
        return self._product(X)

    def __rmatmul__(self, other: Any) -> Any:
        X = arrays.as_operand(other, "the left operand of @")
        if X.ndim < 2:
            return self.transpose()._product(X)
        xp = arrays.namespace(X)
        return xp.matrix_transpose(self.transpose()._product(xp.matrix_transpose(X)))

    def matvec(self, x: Array, /) -> Array:
        """M @ x for a vector x (n,)."""
        return self @ x

    def rmatvec(self, x: Array, /) -> Array:
        """M.mH @ x for a vector x (m,)."""
        return self.mH @ x

    def _product(self, X: Array) -> Array:
        if X.ndim == 0:
            msg = "matmul: a scalar operand has no dimensions to sum over; use * for a scalar"
            raise ValueError(msg)
        if X.ndim == 1:
            return self._product(X[:, None])[..., 0]
        m, n = self.shape[-2:]
        if X.shape[-2] != n:
            msg = f"matmul: {self!r} needs an operand with {n} rows, got shape {tuple(X.shape)}"
            raise ValueError(msg)
        batch = self._broadcast_batch(X)
        M, xp = self._placed(X), arrays.namespace(X)
        if 0 in (*batch, m, *X.shape):
            name = arrays.dtype_of(arrays.precision(X), complex_=arrays.is_complex(X) or self.dtype.kind == "c")
            return xp.zeros((*batch, m, X.shape[-1]), dtype=getattr(xp, name))
        return M._matmat(X)

    def _broadcast_batch(self, X: Array) -> tuple[int, ...]:
        try:
            return arrays.broadcast_shapes(self.shape[:-2], tuple(X.shape[:-2]))
        except ValueError:
            msg = f"matmul: batch dimensions {self.shape[:-2]} and {tuple(X.shape[:-2])} do not broadcast"
            raise ValueError(msg) from None

    def pullback(self, G: Array, X: Array, /) -> Gradients:
        """Gradient of Re <G, M @ X> with respect to every generator.

        Parameters
        ----------
        G : array (..., m, k)
            Cotangent of the product.
        X : array (..., n, k)
            The operand.

        Returns
        -------
        dict
            From field name to gradient, in the shape of `parameters` (nested for composite matrices), summed over
            broadcast batch dimensions. The operand's own gradient is ``M.mH @ G``.
        """
        G, X = arrays.as_arrays(("G", G), ("X", X))
        if G.ndim == 1 and X.ndim == 1:
            G, X = G[:, None], X[:, None]
        m, n = self.shape[-2:]
        if G.ndim < 2 or X.ndim < 2 or G.shape[-2] != m or X.shape[-2] != n or G.shape[-1] != X.shape[-1]:
            msg = (
                f"pullback of {self!r} needs G (..., {m}, k) and X (..., {n}, k), got {tuple(G.shape)} "
                f"and {tuple(X.shape)}"
            )
            raise ValueError(msg)
        batch = np.broadcast_shapes(self._broadcast_batch(X), tuple(G.shape[:-2]))
        if 0 in (*batch, *G.shape, *X.shape):
            return zero_gradients(self, X)
        if tuple(G.shape[:-2]) != batch:
            G = arrays.namespace(G).broadcast_to(G, (*batch, *G.shape[-2:]))
        return self._placed(X)._pullback(G, X)

    # --- transposes and copies --------------------------------------------------------------------------------------

    @property
    def T(self) -> StructuredMatrix:
        """The transposed matrix."""
        return self.transpose()

    @property
    def mT(self) -> StructuredMatrix:
        """The transposed matrix, as in the array-API standard."""
        return self.transpose()

    @property
    def mH(self) -> StructuredMatrix:
        """The conjugate transpose."""
        return self.transpose().conj()

    # --- entries ----------------------------------------------------------------------------------------------------

    def entries(self, rows: Any, cols: Any, /) -> Array:
        """The submatrix (*batch, len(rows), len(cols)) at index arrays (or slices) of rows and columns.

        Negative indices count from the end; an index out of range raises IndexError.
        """
        M, (m, n) = self._settled(), self.shape[-2:]
        xp = arrays.namespace_called(M._home)
        i, j = _as_index(rows, m, xp), _as_index(cols, n, xp)
        if M.has_entries:
            return arrays.cast(M._at(i[:, None], j[None, :]), self.dtype.name)
        return xp.take(M._columns(j), i, axis=-2)

    def to_dense(self) -> Array:
        """The whole matrix as an array (*batch, m, n): m n entries of memory."""
        return self.entries(slice(None), slice(None))

    def diagonal(self) -> Array:
        """The main diagonal (*batch, min(m, n))."""
        M = self._settled()
        xp = arrays.namespace_called(M._home)
        index = xp.arange(min(self.shape[-2:]))
        if M.has_entries:
            return arrays.cast(M._at(index, index), self.dtype.name)
        step = max(1, _DENSE_BLOCK // max(1, math.prod(self.shape[:-1])))
        blocks = [index[a:b] for a, b in arrays.blocks(index.shape[0], step)]
        parts = [_diagonal(xp, xp.take(M._columns(part), part, axis=-2)) for part in blocks]
        return (
            xp.concat(parts, axis=-1) if parts else xp.zeros((*self.shape[:-2], 0), dtype=getattr(xp, self.dtype.name))
        )

    def _columns(self, j: Array, like: Array | None = None) -> Array:
        """Columns (*batch, m, len(j)) by multiplying columns of the identity."""
        xp = arrays.namespace_called(self._home if like is None else arrays.home(like))
        name = arrays.dtype_of(arrays.precision(self if like is None else like), complex_=self.dtype.kind == "c")
        chosen = xp.arange(self.shape[-1])[:, None] == j[None, :]
        return self._product(xp.asarray(chosen, dtype=getattr(xp, name)))

    def _block(self, i: Array, j: Array, like: Array) -> Array:
        """The submatrix at index arrays in the precision of an operand, with or without fast entries."""
        if not self.has_entries:
            xp = arrays.namespace(like)
            return xp.take(self._columns(j, like), i, axis=-2)
        return arrays.cast_precision(self._at(i[:, None], j[None, :]), arrays.precision(like))

    # --- algebra ----------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> StructuredMatrix:
        return _algebra().add(self, other)

    def __radd__(self, other: Any) -> StructuredMatrix:
        return _algebra().add(self, other)

    def __sub__(self, other: Any) -> StructuredMatrix:
        return _algebra().add(self, -other)

    def __rsub__(self, other: Any) -> StructuredMatrix:
        return _algebra().add(-self, other)

    def __neg__(self) -> StructuredMatrix:
        return _algebra().elementwise(self, -1.0)

    def __mul__(self, other: Any) -> StructuredMatrix:
        return _algebra().elementwise(self, other)

    def __rmul__(self, other: Any) -> StructuredMatrix:
        return _algebra().elementwise(self, other)

    def __truediv__(self, other: Any) -> StructuredMatrix:
        return _algebra().divide(self, other)

    def __pow__(self, other: Any) -> Any:
        msg = "** is ambiguous for matrices; write M * M for the elementwise or M @ M for the matrix power"
        raise TypeError(msg)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        msg = f"{self!r} is not converted to an array silently; call .to_dense() if you want all its entries"
        raise TypeError(msg)

    __iter__ = None

    # --- other libraries, planning ----------------------------------------------------------------------------------

    def aslinearoperator(self) -> LinearOperator:
        """The matrix for scipy.sparse.linalg, with matmat and rmatmat; batches are refused with ValueError."""
        from scipy.sparse.linalg import LinearOperator

        if self.ndim != 2:
            msg = f"scipy's linear operators have no batch dimensions, got {self!r}; take one matrix of the batch"
            raise ValueError(msg)
        adjoint = self.mH
        return LinearOperator(
            self.shape,
            matvec=lambda x: self @ x,
            rmatvec=lambda x: adjoint @ x,
            matmat=lambda X: self @ X,
            rmatmat=lambda X: adjoint @ X,
            dtype=self.dtype,
        )

    def _plan(self, columns: int) -> Plan:
        m, n = self.shape[-2:]
        dense = Work(gemm=2.0 * math.prod(self.shape) * columns, bytes=self.dtype.itemsize * m * n, calls=1)
        works = [("product", self._work(columns)), ("to_dense", dense)]
        plan = make_plan(repr(self), columns, works, home=self._home, precision=arrays.precision(self))
        chosen = sorted(plan.steps, key=lambda step: step.method != "product")  # `@` never forms the matrix
        return dataclasses.replace(plan, steps=tuple(chosen))


class _Algebra(Protocol):
    """What base needs of the algebra's rules."""

    def add(self, a: StructuredMatrix, b: Any, /) -> StructuredMatrix: ...
    def elementwise(self, a: StructuredMatrix, b: Any, /) -> StructuredMatrix: ...
    def multiply(self, a: StructuredMatrix, b: StructuredMatrix, /) -> StructuredMatrix: ...
    def divide(self, a: StructuredMatrix, b: Any, /) -> StructuredMatrix: ...


def _algebra() -> _Algebra:
    """The rules, imported when first used: they know every structure, and every structure knows this class."""
    from structmask.linalg import algebra

    return algebra


def _diagonal(xp: Any, block: Array) -> Array:
    """Diagonal of square blocks (..., p, p), in the standard."""
    p = block.shape[-1]
    return xp.reshape(block, (*block.shape[:-2], p * p))[..., :: p + 1]


def _as_index(index: Any, size: int, xp: Any) -> Array:
    if isinstance(index, slice):
        return xp.arange(*index.indices(size))
    i = np.asarray(arrays.to_numpy(index))
    if i.ndim != 1 or (i.dtype.kind not in "iu" and i.size):
        msg = f"entries takes one-dimensional integer indices or slices, got shape {i.shape}, dtype {i.dtype}"
        raise IndexError(msg)
    if i.size and (i.min() < -size or i.max() >= size):
        msg = f"index {int(i.min()) if i.min() < -size else int(i.max())} is out of range for {size} rows or columns"
        raise IndexError(msg)
    return xp.asarray(np.where(i < 0, i + size, i).astype(np.int64))
