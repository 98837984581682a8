"""A function of the distance as a short sum of exponentials, where it is one: cos, exp, their products and sums.

    f(d) = sum_k c_k exp(-z_k d)

Then the mask is a sum of decay masks, one complex rate for a pair of conjugate z_k, and two sweeps each are all it
takes, however f oscillates. From 2 m values at equal distances h, the z_k are found by the invariance of their span to
a shift (ESPRIT), at the largest h whose sum meets f between the values, too; then f is met on stretches twice as long,
again and again, where Gauss and Newton's method knows the phases well enough from the stretch before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends.tree_kernels import tree_product
from structmask.graphs.tree import Floats, Forest
from structmask.graphs.windows import Windows, evaluate, scattered
from structmask.linalg.planning import Work

_HALF = 8  # m
MOST = 4  # exponentials
_OCTAVES = 26  # of h
_POINTS = 128  # where a stretch is met
_NOISE = 1e-12  # of values, relative to the largest
_STRAY = 1e-2, 1e-4, 1e-8  # errors on a longer stretch, before and after steps, with which f does not go on like that
_LARGEST = 8.0  # sum of |c| over the largest |f|: what terms may cancel


@dataclass(frozen=True)
class Exponentials:
    """sum_k c_k exp(-z_k d): real z_k, and of conjugate pairs the one above the real axis."""

    c: Any
    z: Any

    @property
    def _weights(self) -> Any:
        """c_k, doubled where a conjugate is left out."""
        return np.where(self.z.imag > 0, 2, 1) * self.c

    def __call__(self, d: Floats) -> Floats:
        """Values at distances."""
        return np.real(np.exp(-np.multiply.outer(d, self.z)) @ self._weights)

    def product(self, forest: Forest, X: Floats) -> Floats:
        """The mask of all nodes times X (n, k), real."""
        sweep, lengths, Y = forest.sweep("numpy"), forest.lengths[forest.order], np.zeros(X.shape)
        for weight, z in zip(self._weights, self.z, strict=True):
            e = np.exp(-(z if z.imag else z.real) * lengths)
            e[: forest.roots] = 0
            Y += np.real((weight if z.imag else weight.real) * tree_product(sweep, e, X, shrinks=True))
        return Y

    def work(self, n: int, columns: int) -> Work:
        """What a product costs: a complex sweep is four real ones."""
        sweeps = float(np.where(self.z.imag > 0, 4, 1).sum())
        return Work(scan=6.0 * sweeps * n * columns, bytes=32.0 * sweeps * n * columns, calls=float(self.z.size))


def exponentials(windows: Windows) -> Exponentials | None:
    """The sum that meets all samples of f to a tenth of the tolerance, and to what rounding of distances does."""
    f, reach = windows.function, windows.reach
    start = _local(f, reach)
    found = None if start is None else _extended(f, *start, reach)
    return None if found is None or not _meets(found, windows) else found


def _local(f: Callable[[Any], Any], reach: float) -> tuple[Any, float] | None:
    """Rates of a sum that meets f on the longest stretch from 0 that a few values can tell, and its length."""
    between = (np.arange(_POINTS) + 0.5) / _POINTS
    for octave in range(_OCTAVES):
        h = reach / (2 * _HALF - 1) / 2.0**octave
        values, length = evaluate(f, h * np.arange(2 * _HALF)), h * (2 * _HALF - 1)
        w = _shifts(values)
        if w is None:
            continue
        z = -np.log(w) / h
        points = length * between
        c, error = _coefficients(z, points, evaluate(f, points))
        if error <= 1e3 * _NOISE * abs(values).max() and np.isfinite(c).all():
            return z, length
    return None


def _shifts(values: Floats) -> Any:
    """w_k with values_j = sum_k c_k w_k^j; None if there are too many, or one is zero."""
    if not np.isfinite(values).all():
        return None
    hankel = values[np.add.outer(np.arange(_HALF + 1), np.arange(_HALF))]
    U, size, _ = np.linalg.svd(hankel, full_matrices=False)
    rank = int((size > _NOISE * size[0]).sum())
    if not 0 < rank <= MOST:
        return None
    w = np.linalg.eigvals(np.linalg.lstsq(U[:-1, :rank], U[1:, :rank], rcond=None)[0]).astype(complex)
    return w if (abs(w) > 1e-8).all() else None


def _coefficients(z: Any, d: Floats, values: Floats) -> tuple[Any, float]:
    """Least squares for c, and the largest error."""
    with np.errstate(over="ignore", invalid="ignore"):
        E = np.exp(-np.multiply.outer(d, z))
    if not np.isfinite(E).all():
        return np.full(z.shape, np.nan), np.inf
    c = np.linalg.lstsq(E, values.astype(complex), rcond=None)[0]
    return c, float(abs(E @ c - values).max(initial=0.0))


def _extended(f: Callable[[Any], Any], z: Any, length: float, reach: float) -> Exponentials | None:
    """The sum on all distances, from rates that are known on a stretch; None if it does not go on like that."""
    scatter = scattered(_POINTS)
    d = length * scatter
    while True:
        length, before = min(2 * length, reach), length
        d = np.append(d, before + (length - before) * scatter)  # terms that have died out are met where they live
        values = evaluate(f, d)
        for most in _STRAY:
            c, error = _coefficients(z, d, values)
            if not error <= most * abs(values).max():
                return None
            if most > _STRAY[-1]:
                E = np.exp(-np.multiply.outer(d, z))
                slopes = np.concatenate([E, -c * d[:, None] * E], axis=1)
                z = z + np.linalg.lstsq(slopes, values - E @ c, rcond=None)[0][z.size :]
        if length >= reach:
            return _folded(z, c, reach)


def _folded(z: Any, c: Any, reach: float) -> Exponentials | None:
    """Conjugate pairs by one of them, rates that are real or imaginary up to rounding as such; None if terms grow."""
    tiny = 1e-11 / reach
    real, imaginary = z.real, z.imag
    if (real < -tiny).any():
        return None
    z = np.where(abs(real) < tiny, 0.0, real) + 1j * np.where(abs(imaginary) < tiny, 0.0, imaginary)
    kept = z.imag >= 0
    if np.count_nonzero(z.imag > 0) != np.count_nonzero(z.imag < 0):
        return None
    return Exponentials(c[kept], z[kept])


def _meets(found: Exponentials, windows: Windows) -> bool:
    """Whether it is f on all samples, and its terms do not cancel much."""
    return bool(abs(found._weights).sum() <= _LARGEST * windows.largest) and windows.are_met(found(windows.samples[0]))
