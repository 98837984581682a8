"""The ways to multiply by mask * (F G^T) without forming it.

Every function takes a mask (..., m, n), features F (..., m, r) and G (..., n, r) and an operand X (..., n, k), all of
one precision and home, and returns the product Y (..., m, k) and its row sums (mask * (F G^T)) 1 (..., m). None holds
an array of size n x r x k or m x n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg import chunk_basis, state_scan
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import Bordered
from structmask.linalg.elementary import Dense, Diagonal, Sparse
from structmask.linalg.low_rank import LowRank
from structmask.linalg.planning import Work, acting_backend
from structmask.linalg.stationary import Stationary
from structmask.linalg.toeplitz import Toeplitz

_SMALL = 1 << 13  # entries of a mask that is formed once: less work than to find another way

Result: TypeAlias = tuple[Array, Array]
Form: TypeAlias = Callable[[StructuredMatrix, Array, Array, Array], Result]


@dataclass(frozen=True)
class Sizes:
    """Heads, rows, columns, features and operand columns of one product."""

    heads: int
    m: int
    n: int
    r: int
    k: int

    @classmethod
    def of(cls, mask: StructuredMatrix, F: Array, G: Array, X: Array) -> Sizes:
        batch = np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, X)))
        return cls(math.prod(batch), int(F.shape[-2]), int(G.shape[-2]), int(F.shape[-1]), int(X.shape[-1]))


# --- dense: rows of F G^T by matrix products, times entries of the mask -----------------------------------------------


def dense(mask: StructuredMatrix, F: Array, G: Array, X: Array) -> Result:
    """Blocks of rows, accurate row by row; O(m n (r + k)) operations, O(block) memory."""
    if mask.has_entries and math.prod(mask.shape) <= _SMALL:
        A = (F @ G.mT) * _formed(mask, X)
        return A @ X, A @ _ones(X, int(A.shape[-1]))
    if _has_tiles(mask, F, G, X):
        return _tiles(mask, F, G, X)
    if mask.has_entries:
        return dense_rows(mask, F, G, X, arrays.namespace(X).arange(F.shape[-2]))
    return _dense_columns(mask, F, G, X)


def _ones(like: Array, n: int) -> Array:
    """A column: a product with it is quicker than a sum over rows."""
    return arrays.namespace(like).ones(n, dtype=like.dtype)


def _formed(mask: StructuredMatrix, like: Array) -> Array:
    """All entries of a small mask in the precision of an operand, remembered."""
    home, memory = arrays.home(like), mask.__dict__.setdefault("_formed", {})
    key = home, arrays.device_of(home), arrays.precision(like)
    if key not in memory:
        index = arrays.namespace(like).arange(max(mask.shape[-2:]))
        memory[key] = mask._block(index[: mask.shape[-2]], index[: mask.shape[-1]], like)
    return memory[key]


def _has_tiles(mask: StructuredMatrix, *operands: Array) -> bool:
    """Whether the mask is an array or gathered from a table, and kernels take it."""
    if isinstance(mask, Toeplitz):
        return kernels.numba_runs(mask.offsets, *operands)
    gathered = isinstance(mask.mask, Toeplitz) if isinstance(mask, Bordered) else isinstance(mask, Dense)
    return gathered and kernels.numba_runs(*operands, *(x for x in mask._leaves() if not isinstance(x, float)))


def _tiles(mask: Any, F: Array, G: Array, X: Array, rows: Array | None = None) -> Result:
    """Tiles in cache, the mask read as they go; all its rows, or those at given indices."""
    result: Result
    if isinstance(mask, Dense):
        result = kernels.dense_array(mask.a, F, G, X)
        return result
    if isinstance(mask, Bordered):
        G, X = mask.rotated(G), mask.rotated(X)
    form = mask.gather_form if rows is None else mask.gather_form._replace(rows=mask.gather_form.rows[rows])
    result = kernels.dense_toeplitz(form, mask.shape[:-2], F, G, X)
    return result


def dense_rows(mask: StructuredMatrix, F: Array, G: Array, X: Array, rows: Array) -> Result:
    """The rows of the product at given indices, F holding the features of these rows; one block after the other."""
    if not isinstance(mask, Dense) and _has_tiles(mask, F, G, X):
        return _tiles(mask, F, G, X, rows)
    xp, sizes = arrays.namespace(X), Sizes.of(mask, F, G, X)
    scratch = max(1.0, mask._entry_bytes / 50) * max(1, sizes.heads * sizes.n)
    columns, step = xp.arange(sizes.n), max(1, int(arrays.block_entries(X) / scratch))
    V, transposed = with_ones(X), xp.matrix_transpose(G)
    blocks = arrays.blocks(int(rows.shape[0]), step)
    parts = [
        _long_product(_product(F[..., a:b, :] @ transposed, _mask_rows(mask, rows[a:b], columns, X)), V)
        for a, b in blocks
    ]
    Y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)
    return Y[..., :-1], Y[..., -1]


def _long_product(A: Array, V: Array) -> Array:
    """A @ V with sums of bounded length added up: a GPU adds the terms of a batched product one after the other."""
    n, step = int(V.shape[-2]), 1024
    if arrays.home(V) != "cupy" or n <= step:
        return A @ V
    first, *others = (A[..., a:b] @ V[..., a:b, :] for a, b in arrays.blocks(n, step))
    for other in others:
        first += other
    return first


def with_ones(X: Array) -> Array:
    """[X, 1]: the product with the last column gives row sums."""
    xp = arrays.namespace(X)
    return xp.concat([X, xp.ones_like(X[..., :1])], axis=-1)


def _product(A: Array, mask: Array) -> Array:
    """A * mask, in the memory of A where its shape and dtype allow."""
    if (
        A.ndim < mask.ndim
        or arrays.dtype_name(A) != arrays.dtype_name(mask)
        or any(own < other for own, other in zip(A.shape[::-1], mask.shape[::-1], strict=False))
    ):
        return A * mask
    A *= mask
    return A


def _mask_rows(mask: StructuredMatrix, rows: Array, columns: Array, like: Array) -> Array:
    if mask.has_entries:
        return mask._block(rows, columns, like)
    return arrays.namespace(like).matrix_transpose(mask.transpose()._columns(rows, like))


def _dense_columns(mask: StructuredMatrix, F: Array, G: Array, X: Array) -> Result:
    """The same by blocks of columns, which a mask without fast entries gives by multiplying the identity."""
    xp, sizes = arrays.namespace(X), Sizes.of(mask, F, G, X)
    step = max(1, arrays.block_entries(X) // max(1, sizes.heads * sizes.m))
    V = with_ones(X)
    Y = xp.zeros_like(V[..., :1, :])
    for a, b in arrays.blocks(sizes.n, step):
        block = mask._columns(xp.arange(a, b), X)
        Y = Y + _product(F @ xp.matrix_transpose(G[..., a:b, :]), block) @ V[..., a:b, :]
    return Y[..., :-1], Y[..., -1]


# --- stream: the central lemma, a few features at a time --------------------------------------------------------------


def stream(mask: StructuredMatrix, F: Array, G: Array, X: Array) -> Result:
    """sum_r diag(F_r) M diag(G_r) X: as many products with the mask as features, O(n k) memory."""
    xp, sizes = arrays.namespace(X), Sizes.of(mask, F, G, X)
    step = max(1, arrays.block_entries(X) // max(1, sizes.heads * sizes.n * sizes.k))
    Y = None
    for a, b in arrays.blocks(sizes.r, step):
        f, g = features(F, a, b), features(G, a, b)
        P = mask._matmat(lifted(g, X))
        P = xp.reshape(P, (*P.shape[:-1], f.shape[-1], sizes.k))
        part = xp.sum(f[..., :, None] * P, axis=-2)
        Y = part if Y is None else Y + part
    return Y, stream_mass(mask, F, G)


def stream_mass(mask: StructuredMatrix, F: Array, G: Array) -> Array:
    """Row sums of mask * (F G^T): one column a feature."""
    data, r = G.data if arrays.is_sparse(G) else G, F.shape[-1]
    xp, step = arrays.namespace(data), max(1, arrays.block_entries(data) // max(1, math.prod(G.shape[:-1])))
    mass = None
    for a, b in arrays.blocks(int(r), step):
        part = xp.sum(features(F, a, b) * mask._matmat(features(G, a, b)), axis=-1)
        mass = part if mass is None else mass + part
    return mass


def lifted(F: Array, X: Array) -> Array:
    """Columns F_r x for all features r and columns x, those of a feature side by side."""
    xp = arrays.namespace(X)
    product = F[..., :, :, None] * X[..., :, None, :]
    return xp.reshape(product, (*product.shape[:-2], product.shape[-2] * product.shape[-1]))


def features(F: Array, a: int, b: int) -> Array:
    """A block of feature columns; of sparse features only this block is ever dense."""
    return F[:, a:b].toarray() if arrays.is_sparse(F) else F[..., a:b]


def fused(mask: Toeplitz, F: Array, G: Array, X: Array) -> Result:
    """The same in one pass: features are multiplied in the first and contracted in the last stage of each transform."""
    kernel = mask._circulant.kernel
    return kernel.hadamard(F, G, X), arrays.namespace(X).sum(F * kernel.product(G), axis=-1)


# --- what the mask's own structure allows -----------------------------------------------------------------------------


def scan(mask: Any, F: Array, G: Array, X: Array) -> Result:
    """Matrix products inside chunks, states r x k between them; local, hence accurate row by row.

    A mask with a recurrence of its own (of a tree, say) has a method `_scan` for it.
    """
    if hasattr(mask, "_scan"):
        Y = mask._scan(*arrays.as_same_kind(F, G, with_ones(X)))
        return Y[..., :-1], Y[..., -1]
    if isinstance(mask, Stationary):
        compiled = kernels.numba_runs(F, G, X) and mask.dtype.kind != "c"
        return chunk_basis.hadamard(mask, F, G, X) if compiled else state_scan.hadamard(mask, F, G, X)
    decay, F, G, X = arrays.as_same_kind(mask.decays(X), F, G, X)
    return kernels.causal_hadamard(F, G, X, decay, upper=mask.upper)


def sparse(mask: Sparse, F: Array, G: Array, X: Array) -> Result:
    """F G^T sampled at the nonzeros of the mask, then one sparse product a head; O(nnz (r + k))."""
    A = mask.csr
    F, G, data, X = arrays.as_same_kind(F, G, A.data, X)
    values = kernels.sampled_product(A, mask._rows, F, G) * data
    V = with_ones(X)
    Y = kernels.csr_product(A, values, V)
    return Y[..., :-1], Y[..., -1]


def low_rank(mask: LowRank, F: Array, G: Array, X: Array) -> Result:
    """A mask L R^T: sum_s diag(L_s) F (G^T diag(R_s) X); O((m + n) r k) operations a rank."""
    if kernels.numba_runs(F, G, X, mask.left, mask.right):
        return kernels.low_rank_hadamard(F, G, X, mask.left, mask.right)
    xp = arrays.namespace(X)
    V = with_ones(X)
    batch = np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, V)))
    Y = xp.zeros((*batch, F.shape[-2], V.shape[-1]), dtype=V.dtype)
    for s in range(mask.rank):
        part = mask.left[..., :, s : s + 1] * (F @ (xp.matrix_transpose(G) @ (mask.right[..., :, s : s + 1] * V)))
        Y = Y + part
    return Y[..., :-1], Y[..., -1]


def diagonal(mask: Diagonal, F: Array, G: Array, X: Array) -> Result:
    """A diagonal mask keeps the diagonal of F G^T only."""
    mass = mask.d * arrays.namespace(X).sum(F * G, axis=-1)
    return mass[..., None] * X, mass


# --- costs ------------------------------------------------------------------------------------------------------------


def dense_work(mask: StructuredMatrix, s: Sizes) -> Work:
    """Every entry of F G^T and of the mask."""
    area = float(s.heads * s.m * s.n)
    if mask.has_entries and math.prod(mask.shape) <= _SMALL:  # a few products of arrays
        return Work(gemm=2 * area * (s.r + s.k), bytes=12 * area, calls=0.4)
    if not mask.has_entries:
        return Work(gemm=2 * area * (s.r + s.k)) + mask._work(s.n) * max(
            1, s.heads / max(1, math.prod(mask.shape[:-2]))
        )
    if _has_tiles(mask):  # tiles read the mask as they go, and leave out those where it is zero
        fill = getattr(mask, "fill", 1.0)
        filled = area if fill == 1 else area * min(1.0, fill + 64 / s.n)
        return Work(gemm=2 * filled * (s.r + s.k + 30), calls=1)
    terms = len(getattr(mask, "terms", ()))
    return Work(gemm=2 * area * (s.r + s.k), bytes=(mask._entry_bytes + 8) * area, calls=1 + 2 * terms)


def stream_work(mask: StructuredMatrix, s: Sizes) -> Work:
    """A column of the mask's product a feature and column."""
    repeated = max(1.0, s.heads / max(1, math.prod(mask.shape[:-2])))
    passes = Work(bytes=24.0 * s.heads * (s.m + s.n) * s.r * s.k)
    return mask._work(s.r * (s.k + 1)) * repeated + passes + Work(calls=2)


def fused_work(mask: Toeplitz, s: Sizes) -> Work:
    """A transform for every feature and column, without passes over memory while it fits the cache."""
    N = float(math.prod(mask._circulant.kernel.lengths))
    beyond = 1 + max(0.0, math.log2(N) - 14) / 3.5
    flops = 5 * N * math.log2(N) * mask._circulant.pruned
    return Work(fused=s.heads * flops * s.r * s.k * beyond, bytes=80.0 * s.heads * s.n * (s.r + s.k), calls=6)


def scan_work(mask: Any, s: Sizes) -> Work:
    """Chunks of 64 rows; those of a state-space mask are chosen by cost; a mask's own recurrence knows its own."""
    if hasattr(mask, "_scan_work"):
        work: Work = mask._scan_work(s)
        return work
    if isinstance(mask, Stationary):
        if acting_backend(mask._home) != "numba" or mask.dtype.kind == "c":
            return state_scan.hadamard_work(mask, s.heads, s.r, s.k)
        return chunk_basis.cheapest(mask, "float32", s.heads, s.r, s.k)[1]
    return Work(gemm=2.0 * s.heads * s.n * (64 * (s.r + s.k + 75) + 2 * s.r * s.k), calls=1)


def sparse_work(mask: Sparse, s: Sizes) -> Work:
    """One inner product a stored entry."""
    count = mask.csr.data.shape[0]
    return Work(scan=2.0 * s.heads * count * (s.r + s.k + 1), calls=1)


def low_rank_work(mask: LowRank, s: Sizes) -> Work:
    """Two products with features a rank; by tiles their rows are read once, whatever the rank."""
    rows, flops = float(s.heads * (s.m + s.n)), 2.0 * s.heads * (s.m + s.n) * s.r * s.k * mask.rank
    if acting_backend(mask._home) == "numba" and mask.dtype.kind != "c":
        return Work(gemm=0.6 * flops, bytes=4 * rows * (s.r + s.k) + rows * s.r * mask.rank, calls=0.5)
    return Work(gemm=flops, bytes=rows * (10 * s.k + 2 * s.r) * mask.rank, calls=1 + 0.05 * mask.rank)


def diagonal_work(_: Diagonal, s: Sizes) -> Work:
    """One inner product a row."""
    return Work(bytes=8.0 * s.heads * s.n * (s.r + s.k), calls=1)
