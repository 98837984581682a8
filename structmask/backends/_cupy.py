"""The kernels on a GPU: CUDA sources in `_cuda`, compiled when first used, launched on CuPy's current stream.

Each takes and gives back device arrays, in the shapes of its standard form; nothing is transferred, and the host waits
for nothing. No kernel has atomics or talks between blocks, so that results do not depend on how blocks are scheduled.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from structmask.backends import _standard_walks as standard
from structmask.backends._standard_walks import Plan, Steps
from structmask.backends.arrays import Array, csr, device_of, is_complex, namespace_called, precision

_REAL = {"float32": "float", "float64": "double"}
_THREADS = 256
_SPAN = 8  # rows that a thread of a scan has
_EDGES = 8  # entries that a block of `sampled_product` has
_MOST_BLOCKS = 65535  # of a grid, in its second and third direction


def linear_scan(X: Array, decay: Array, *, upper: bool) -> Array:
    """Y_i = X_i + decay_i Y_{i-1}, or transposed; X (..., n, k) and real decays (..., n), batches broadcast."""
    batch = _batch((X, 2), (decay, 1))
    x = _flat(X, batch, 2)
    Y = _scan(_as_real(x), _shared(decay, batch, 1).astype(np.float64), upper=upper)
    return _as_like(Y, x).reshape(*batch, *X.shape[-2:])


def _scan(x: Array, decay: Array, *, upper: bool) -> Array:
    """The scan of real x (batch, n, k) with decays (heads, n); tiles are scanned in the same way, one row each."""
    cupy, (batch, n, k) = namespace_called("cupy"), x.shape
    Y = cupy.empty_like(x)
    if not x.size:
        return Y
    width, runs = _block(k)
    tiles = -(-n // (runs * _SPAN))
    grid, block = (tiles, -(-k // width), min(batch, _MOST_BLOCKS)), (width, runs)
    sizes = (np.int32(batch), np.int32(decay.shape[0]), np.int64(n), np.int32(k), np.int32(upper))
    entering = cupy.empty((batch, tiles if tiles > 1 else 0, k), dtype=np.float64)
    if tiles > 1:
        factors, totals = cupy.empty((decay.shape[0], tiles), dtype=np.float64), cupy.empty_like(entering)
        _kernel("linear_scan", "scan_tiles", x)(grid, block, (x, decay, factors, totals, *sizes))
        entering = _scan(totals, factors, upper=False)
    _kernel("linear_scan", "scan_rows", x)(grid, block, (x, decay, entering, Y, *sizes))
    return Y


def csr_product(A: Array, values: Array, X: Array) -> Array:
    """Sparse matrices (..., m, n) with the pattern of A and real entries (..., nnz), times X (..., n, k)."""
    batch = _batch((values, 1), (X, 2))
    v, x = _shared(values, batch, 1), _shared(X, batch, 2)
    real, (m, n) = _as_real(x), A.shape
    k = real.shape[-1]
    Y = namespace_called("cupy").empty((math.prod(batch), m, k), dtype=real.dtype)
    if Y.size:
        width, rows = _block(k)
        grid = (-(-m // rows), -(-k // width), min(Y.shape[0], _MOST_BLOCKS))
        sizes = map(np.int32, (Y.shape[0], v.shape[0], x.shape[0], m, n, k, v.shape[1]))
        _kernel("csr", "csr_product", real)(grid, (width, rows), (A.indptr, A.indices, v, real, Y, *sizes))
    return _as_like(Y, x).reshape(*batch, m, X.shape[-1])


def sampled_product(A: Array, rows: Array, F: Array, G: Array) -> Array:
    """The entries (..., nnz) of F G^T, real, at the stored positions of a sparse matrix, `rows` being their rows."""
    batch = _batch((F, 2), (G, 2))
    f, g = _flat(F, batch, 2), _flat(G, batch, 2)
    S = namespace_called("cupy").empty((f.shape[0], A.nnz), dtype=f.dtype)
    if S.size:
        grid = (-(-A.nnz // _EDGES), 1, min(f.shape[0], _MOST_BLOCKS))
        sizes = map(np.int32, (*f.shape[:2], g.shape[1], f.shape[2], A.nnz))
        arguments = (rows.astype(np.int32), A.indices, f, g, S, *sizes)
        _kernel("csr", "sampled_product", f)(grid, (_THREADS // _EDGES, _EDGES), arguments)
    return S.reshape(*batch, A.nnz)


def random_walks(steps: Steps, starts: Array, plan: Plan, first: int) -> Array:
    """Nodes (len(starts) * walks, length) of walks from each start, -1 where a walk has ended."""
    cupy, count, walks = namespace_called("cupy"), int(starts.shape[0]) * plan.walks, np.int32(plan.walks)
    paths = cupy.empty((count, plan.length), dtype=np.int32)
    if not count:
        return paths
    drawn = np.uint64(first), np.uint32(plan.stop), np.uint32(plan.draw), np.uint64(plan.key)
    options = walks, np.int32(plan.length), np.int32(steps.threshold.size > 0), *drawn
    kernel = _compiled("walks", "float64", device_of("cupy")).get_function
    if plan.repelling:
        left = cupy.empty(count, dtype=np.int32)
        threads = min(_THREADS, 1 << max(0, plan.walks - 1).bit_length())
        kernel("walk_repelled")((int(starts.shape[0]),), (threads,), (*steps, starts, paths, left, *options))
    else:
        arguments = (*steps, starts, paths, np.int64(count), *options)
        kernel("walk_apart")((-(-count // _THREADS),), (_THREADS,), arguments)
    return paths


def walk_features(steps: Steps, gain: Array, modulation: Array, plan: Plan) -> tuple[Array, Array, Array]:
    """CSR arrays of the features of walks, everything on the device; the host waits for the number of entries."""
    cupy = namespace_called("cupy")
    gain, modulation = cupy.asarray(gain), cupy.asarray(modulation)
    return standard.walk_features(steps, gain, modulation, plan, random_walks, _segment_sums)


def _segment_sums(values: Array, begins: Array) -> Array:
    """Sums of the values between places, each by one thread and in order."""
    cupy = namespace_called("cupy")
    ends = cupy.concatenate([begins, cupy.full(1, values.size)]).astype(np.int32)
    A = csr(values, cupy.zeros(values.size, dtype=np.int32), ends, (begins.size, 1))
    return csr_product(A, values, cupy.ones((1, 1)))[:, 0]


class ChebyshevSteps:
    """Sums of Chebyshev polynomials of B = scale A - shift for one real sparse matrix A (n, n)."""

    def __init__(self, A: Array, scale: float, shift: float) -> None:
        self.A, self.scale, self.shift = A, scale, shift

    def sums(self, X: Array, c: Array) -> Array:
        """sum_k c[f, k] T_k(B) X as (functions, n, q), for real X (n, q) and c (functions, K + 1)."""
        cupy, (n, q), (functions, terms) = namespace_called("cupy"), X.shape, c.shape
        T, c = X.copy(), cupy.ascontiguousarray(c)  # the term before the last is written over
        old, sums = cupy.empty_like(T), c[:, :1, None] * T
        if not sums.size:
            return sums
        width, rows = _block(q)
        grid, kernel = (-(-n // rows), -(-q // width)), _kernel("csr", "chebyshev_step", T)
        for term in range(1, terms):
            twice = 2 if term > 1 else 1
            sizes = map(np.int32, (functions, terms, term, n, q))
            factors = map(T.dtype.type, (twice * self.scale, -twice * self.shift, term > 1))
            kernel(grid, (width, rows), (self.A.indptr, self.A.indices, self.A.data, T, old, sums, c, *sizes, *factors))
            T, old = old, T
        return sums


def _kernel(source: str, name: str, x: Array) -> Any:
    """A kernel for real numbers of the precision of x, on the current device."""
    return _compiled(source, precision(x), device_of("cupy")).get_function(name)


@lru_cache(maxsize=64)
def _compiled(source: str, width: str, device: int) -> Any:  # noqa: ARG001  modules belong to a device
    return namespace_called("cupy").RawModule(code=code_of(source), options=options(width))


def options(width: str) -> tuple[str, ...]:
    """What the sources leave open: the type of numbers, and the sizes that launches share with them."""
    sizes = {"THREADS": _THREADS, "SPAN": _SPAN, "EDGES": _EDGES, "LANES": _THREADS // _EDGES}
    return f"-DREAL={_REAL[width]}", *(f"-D{name}={size}" for name, size in sizes.items())


def code_of(source: str) -> str:
    """The text of a CUDA source."""
    return files("structmask.backends").joinpath("_cuda", f"{source}.cu").read_text(encoding="utf-8")


def _block(columns: int) -> tuple[int, int]:
    """Threads of a block: columns, a power of two up to a warp, and rows."""
    width = min(32, 1 << max(0, columns - 1).bit_length())
    return width, _THREADS // width


def _batch(*operands: tuple[Array, int]) -> tuple[int, ...]:
    """The common batch of arrays with so many core dimensions."""
    return np.broadcast_shapes(*(a.shape[: a.ndim - core] for a, core in operands))


def _flat(a: Array, batch: tuple[int, ...], core: int) -> Array:
    """An array with its batch broadcast and flattened into one leading axis, C-contiguous."""
    cupy, ends = namespace_called("cupy"), a.shape[a.ndim - core :]
    return cupy.ascontiguousarray(cupy.broadcast_to(a, (*batch, *ends)).reshape(math.prod(batch), *ends))


def _shared(a: Array, batch: tuple[int, ...], core: int) -> Array:
    """As `_flat`, but one leading entry only where the array has no batch of its own."""
    is_shared = math.prod(a.shape[: a.ndim - core]) == 1
    return _flat(a.reshape(a.shape[a.ndim - core :]), (1,), core) if is_shared else _flat(a, batch, core)


def _as_real(x: Array) -> Array:
    """Complex (..., k) as real (..., 2k): real and imaginary parts side by side."""
    return x.view(x.real.dtype) if is_complex(x) else x


def _as_like(y: Array, x: Array) -> Array:
    """The inverse of `_as_real`."""
    return y.view(x.dtype) if is_complex(x) else y
