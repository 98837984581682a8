"""Circulant embedding: a Toeplitz table as a circulant, diagonal in the Fourier basis.

On each axis the side is at least m + n - 1, so that no difference i - j wraps onto another; sides are rounded up to
fast lengths. Columns go through in blocks, so that scratch stays small beside the operand.
"""

from __future__ import annotations

import math
from functools import cached_property

import scipy.fft

from structmask.backends import _standard, arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.planning import Work
from structmask.linalg.rounding import Rounding

_SAFETY = 4.0  # largest over typical rounding error of a transform, with room to spare


class Circulant:
    """The embedding of one table (*batch, m_1 + n_1 - 1, ...); immutable, its spectra are computed when first used."""

    def __init__(self, offsets: Array, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        self.offsets, self.rows, self.columns = offsets, rows, columns
        self.levels = len(rows)
        self.batch = tuple(offsets.shape[: -self.levels])
        self.real = not arrays.is_complex(offsets)
        sides = zip(rows, columns, strict=True)
        self.lengths = tuple(int(scipy.fft.next_fast_len(m + n - 1, real=True)) for m, n in sides)

    @cached_property
    def spectrum(self) -> Array:
        """Eigenvalues, computed in double precision; half of them for a real table."""
        exact = _standard.circulant_spectrum(arrays.cast_precision(self.offsets, "float64"), self.columns, self.lengths)
        return arrays.cast_precision(exact, arrays.precision(self.offsets))

    @property
    def has_kernel(self) -> bool:
        """Whether the many-column kernel takes this table: real, on the host."""
        return self.real and kernels.numba_runs(self.offsets)

    @cached_property
    def kernel(self) -> kernels.Convolution:
        """The many-column kernel with its own spectrum."""
        return kernels.Convolution(self.offsets, self.rows, self.columns)

    def product(self, X: Array) -> Array:
        """The Toeplitz matrix times X (..., n, k)."""
        if kernels.numba_runs(self.offsets, complex_=True) and kernels.numba_runs(X, complex_=True):
            return self._by_kernel(X)
        if self.real and arrays.is_complex(X):  # a real table acts on real and imaginary parts alike
            xp, k = arrays.namespace(X), X.shape[-1]
            parts = self.product(xp.concat([xp.real(X), xp.imag(X)], axis=-1))
            return parts[..., :k] + 1j * parts[..., k:]
        xp, step = arrays.namespace(X), self._block(X)
        with kernels.transform_threads(X):
            blocks = [self._product(X[..., a:b]) for a, b in arrays.blocks(X.shape[-1], step)]
        return blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=-1)

    def _by_kernel(self, X: Array) -> Array:
        """Real and imaginary parts of a table, and of columns, are real tables and columns."""
        if not self.real:
            real, imaginary = (part._by_kernel(X) for part in self._parts)
            return real + 1j * imaginary
        return (
            kernels.as_complex(self._by_kernel(kernels.as_real(X))) if arrays.is_complex(X) else self.kernel.product(X)
        )

    @cached_property
    def _parts(self) -> tuple[Circulant, Circulant]:
        """The embeddings of the real and of the imaginary part."""
        xp = arrays.namespace(self.offsets)
        real, imaginary = (Circulant(part(self.offsets), self.rows, self.columns) for part in (xp.real, xp.imag))
        return real, imaginary

    def _product(self, X: Array) -> Array:
        return _standard.circulant_product(
            self.spectrum, X, self.columns, self.rows, self.lengths, real=self.real and not arrays.is_complex(X)
        )

    def correlation(self, G: Array, X: Array) -> Array:
        """Sums of G_i conj(X_j) over all pairs i - j = s and all columns: the gradient of Re <G, M X> for the table."""
        if self.has_kernel and kernels.numba_runs(self.offsets, G, X):
            return self.kernel.correlation(G, X)
        total, step = None, self._block(X)
        G, X = arrays.as_same_kind(G, X)
        with kernels.transform_threads(X):
            for a, b in arrays.blocks(X.shape[-1], step):
                part = _standard.circulant_correlation(G[..., a:b], X[..., a:b], self.columns, self.rows, self.lengths)
                total = part if total is None else total + part
        return total

    def _block(self, X: Array) -> int:
        """Columns at a time."""
        heads = max(math.prod(self.batch), math.prod(X.shape[:-2]))
        size: int = max(1, heads) * math.prod(self.lengths)
        return max(1, arrays.block_entries(X) // size)

    def work(self, columns: int) -> Work:
        """What a product costs."""
        N = math.prod(self.lengths)
        heads = math.prod(self.batch) * (1 if self.real else 2)
        flops = 5.0 * heads * N * math.log2(max(2, N)) * columns * self.pruned
        return (
            Work(fused=flops, calls=1)
            if self.has_kernel
            else Work(fft=flops, bytes=16.0 * heads * N * columns, calls=3)
        )

    @property
    def pruned(self) -> float:
        """Share of the transforms of one axis that are left when zeros are never transformed."""
        halves: int = 2**self.levels
        return 2 * (halves - 1) / (self.levels * halves)

    @cached_property
    def norm(self) -> float:
        """Largest 2-norm of a table of the batch."""
        xp = arrays.namespace(self.offsets)
        squares = xp.sum(xp.abs(self.offsets) ** 2, axis=tuple(range(-self.levels, 0)))
        return math.sqrt(float(xp.max(squares)))

    def rounding(self, unit: float) -> Rounding:
        """Error of an entry: that of the forward transform, times the spectrum, and that of the inverse one."""
        N = math.prod(self.lengths)
        level = _SAFETY * unit * math.sqrt(max(1.0, math.log2(N)))
        return Rounding(level, level * self.norm / math.sqrt(N))
