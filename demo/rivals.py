"""What structmask is measured against, written without it: the dense computation and the literal algorithm."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

import structmask as sm

Array = np.ndarray[Any, Any]

_ROWS = 256  # rows of the dense matrix that exist at a time


@dataclass(frozen=True)
class Case:
    """One attention problem: features and values (heads, L, ...), the mask, and the mask's plain table of offsets."""

    mask: sm.StructuredMatrix
    table: Array  # (heads, 2 n_1 - 1, ..., 2 n_d - 1), as structmask.Toeplitz takes it
    F: Array
    G: Array
    V: Array
    decay: Array | None = None  # of a causal mask, one for each head

    @property
    def tokens(self) -> int:
        """Length L."""
        return int(self.F.shape[-2])

    @property
    def grid(self) -> tuple[int, ...]:
        """Sides of the grid of positions."""
        return tuple((side + 1) // 2 for side in self.table.shape[1:])

    def astype(self, dtype: Any) -> Case:
        """The same problem for `dense` in another precision."""
        return replace(self, **{name: getattr(self, name).astype(dtype) for name in ("F", "G", "V", "table")})

    def mask_rows(self, h: int, rows: Array) -> Array:
        """Rows of a head's mask, written out."""
        points = np.unravel_index(rows, self.grid)
        windows = sliding_window_view(np.flip(self.table[h]).astype(self.F.dtype), self.grid)
        mask = windows[tuple(n - 1 - i for n, i in zip(self.grid, points, strict=True))]
        return mask.reshape(rows.size, -1)

    def masked(self, h: int, X: Array) -> Array:
        """A head's mask times X (L, columns), as the literal algorithm computes it."""
        if self.decay is not None:
            return _prefix_sums(X, self.decay[h])
        return _convolved(X, self.table[h], self.grid)

    @property
    def padded(self) -> float:
        """How many numbers a column of the literal algorithm holds at once beyond itself."""
        if self.decay is not None:
            return 0.0
        return 2 * float(np.prod([fft.next_fast_len(side, real=True) for side in self.table.shape[1:]]))


def structured(case: Case) -> Array:
    """The library's answer."""
    return sm.masked_attention(case.F, case.G, case.V, mask=case.mask, features=None)


def dense(case: Case, rows: Array) -> Array:
    """Some rows by the definition: blocks of M * (F G^T), each multiplied by [V, 1]."""
    parts = [_dense_block(case, rows[a : a + _ROWS]) for a in range(0, rows.size, _ROWS)]
    return np.concatenate(parts, axis=1)


def _dense_block(case: Case, rows: Array) -> Array:
    out = np.empty((case.F.shape[0], rows.size, case.V.shape[-1]), dtype=case.V.dtype)
    for h in range(case.F.shape[0]):
        A = (case.F[h, rows] @ case.G[h].T) * case.mask_rows(h, rows)
        out[h] = _normalised(A @ case.V[h], A.sum(axis=1))
    return out


def literal(case: Case) -> Array:
    """Algorithm 1 of the paper as it stands, one head after the other: it forms an array of size L x m x (e + 1)."""
    return np.stack([_literal_head(case, h) for h in range(case.F.shape[0])])


def literal_bytes(case: Case) -> float:
    """Memory that `literal` needs: the array, and, where it is transformed, its padded transform and the way back."""
    columns = case.G.shape[-1] * (case.V.shape[-1] + 1)
    return 4.0 * columns * (case.tokens + case.padded)


def _literal_head(case: Case, h: int) -> Array:
    F, G, V = case.F[h], case.G[h], case.V[h]
    V = np.concatenate([V, np.ones_like(V[:, :1])], axis=1)
    outer = (G[:, :, None] * V[:, None, :]).reshape(case.tokens, -1)
    product = case.masked(h, outer)
    Y = np.einsum("lr,lre->le", F, product.reshape(case.tokens, F.shape[1], -1))
    return _normalised(Y[:, :-1], Y[:, -1])


def _prefix_sums(X: Array, decay: Array) -> Array:
    """Decayed sums down the rows, in place."""
    factor = X.dtype.type(decay)
    step = np.empty_like(X[0])
    for i in range(1, X.shape[0]):
        np.multiply(X[i - 1], factor, out=step)
        X[i] += step
    return X


def _convolved(X: Array, table: Array, grid: tuple[int, ...]) -> Array:
    """The Toeplitz product by circulant embedding and real transforms."""
    axes, workers = tuple(range(len(grid))), os.cpu_count()
    sides = [fft.next_fast_len(side, real=True) for side in table.shape]
    spectrum = fft.rfftn(table, sides, axes=axes)[..., None]
    transform = fft.rfftn(X.reshape(*grid, -1), sides, axes=axes, workers=workers)
    transform *= spectrum
    result = fft.irfftn(transform, sides, axes=axes, workers=workers, overwrite_x=True)
    return result[tuple(slice(n - 1, 2 * n - 1) for n in grid)]


def _normalised(Y: Array, mass: Array) -> Array:
    empty = mass == 0
    return np.where(empty[:, None], 0, Y / np.where(empty, 1, mass)[:, None]).astype(Y.dtype)
