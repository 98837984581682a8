"""What a function of the distance looks like on the windows of a dyadic grid: negligible, smooth, or rough.

Windows belong to the function, not to the tree: each is tested once and serves all merges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.graphs.tree import Floats, Ints

_GOLDEN = 0.6180339887498949
_UNIFORM, _OCTAVE = 1 << 15, 64  # samples on [0, 1], and in each octave towards 0
_ROUNDING = 9e-16  # relative, of a distance
_MOST_CANDIDATES = 200_000


def evaluate(function: Callable[[Any], Any], distances: Any) -> Floats:
    """Values of a function of the distance on an array, in double precision.

    Raises
    ------
    TypeError
        If the function is not vectorised, or its values are not real numbers.
    """
    with np.errstate(all="ignore"):
        found = np.asarray(function(distances))
    if found.shape != np.shape(distances) or found.dtype.kind not in "biuf":
        msg = (
            f"the function must take an array of distances {np.shape(distances)} and return as many real numbers, got "
            f"shape {found.shape}, dtype {found.dtype}; for complex values add two masks, f.real and 1j * f.imag"
        )
        raise TypeError(msg)
    return found.astype(np.float64, copy=False)


def scattered(count: int) -> Floats:
    """So many points in [0, 1), one in each of as many equal parts, off every grid."""
    i = np.arange(count)
    scatter: Floats = (i + np.modf(i * _GOLDEN)[0]) / count
    return scatter


@dataclass(frozen=True, eq=False)
class Windows:
    """Tests of the windows [s h, (s + 2) h], h = furthest / 2^level, for level = 0 ... deepest.

    A window is smooth if interpolation in p Chebyshev points meets all samples in it to a tenth of `tolerance` times
    the larger of max|f| in the window and max|f| / n: many small tails add up. It is negligible if |f| is below
    `tolerance` max|f| / n. What the rounding of distances does to f is not counted.
    """

    function: Callable[[Any], Any]
    furthest: float
    reach: float
    tolerance: float
    size: int
    deepest: int

    @cached_property
    def p(self) -> int:
        """Number of points of the interpolation."""
        return max(6, int(np.ceil(-1.5 * np.log10(self.tolerance))) + 2)

    @cached_property
    def samples(self) -> tuple[Floats, Floats]:
        """Points up to the largest distance, off every dyadic grid, and values there."""
        uniform, octave = scattered(_UNIFORM), 1 + scattered(_OCTAVE)
        fine = (0.5 ** np.arange(1, self.deepest + 3)[:, None] * octave).ravel()
        points = 2 * self.furthest * np.unique(np.concatenate([[0.0, 1.0], uniform, fine]))
        points = np.append(points[points < self.reach], self.reach)
        values = evaluate(self.function, points)
        if not np.isfinite(values).all():
            where = points[np.argmin(np.isfinite(values))]
            msg = f"the function of the distance is not finite at {where:g}; distances reach up to {self.reach:g}"
            raise ValueError(msg)
        return points, values

    @cached_property
    def largest(self) -> float:
        """The largest |f| among the samples."""
        return max(float(np.abs(self.samples[1]).max()), 1e-300)

    @cached_property
    def rounding(self) -> Floats:
        """What the rounding of distances may do to the samples."""
        points, values = self.samples
        return 4 * np.abs(evaluate(self.function, points * (1 + _ROUNDING)) - values)

    def are_met(self, found: Floats) -> bool:
        """Whether other values at the points of the samples are as good as those."""
        allowed = 0.1 * self.tolerance * self.largest + self.rounding
        return bool((np.abs(found - self.samples[1]) <= allowed).all())

    @cached_property
    def offset(self) -> Ints:
        """Window (level, s) is number offset[level] + s."""
        return (2 << np.arange(self.deepest + 2)) - 2

    @cached_property
    def nodes(self) -> tuple[Floats, Floats]:
        """Chebyshev points, and the matrix from values there to coefficients."""
        k = np.arange(self.p)
        matrix = 2 / self.p * np.cos(np.pi * np.outer(k, k + 0.5) / self.p)
        matrix[0] /= 2
        return np.cos(np.pi * (k + 0.5) / self.p), matrix

    @cached_property
    def state(self) -> Any:
        """ROUGH, SMOOTH or NEGLIGIBLE for every window; parts of a window are no worse than it."""
        from structmask.backends._numba.panel_plan import ROUGH, SMOOTH

        state = np.full(self.offset[-1], ROUGH, np.int8)
        for level in range(self.deepest + 1):
            here = state[self.offset[level] : self.offset[level + 1]]
            if level:
                above = state[self.offset[level - 1] : self.offset[level]]
                here[:] = np.append(np.repeat(above, 2), ROUGH)[: here.size]
            needed = self._needed(level)
            here[needed:] = SMOOTH
            candidates = np.flatnonzero(here[:needed] == ROUGH)
            if 0 < candidates.size < _MOST_CANDIDATES:
                here[candidates] = self._tested(candidates, self.furthest / 2.0**level)
        return state

    def _needed(self, level: int) -> int:
        """How many windows of a level begin within the largest distance."""
        count = int(self.offset[level + 1] - self.offset[level])
        return min(count, int(self.reach * 2.0**level / self.furthest) + 1)

    def _tested(self, candidates: Ints, h: float) -> Any:
        from structmask.backends._numba.panel_plan import NEGLIGIBLE, ROUGH, SMOOTH
        from structmask.backends._numba.panels import fit_errors

        points, matrix = self.nodes
        x = np.minimum((candidates[:, None] + 1 + points) * h, 2 * self.furthest)
        values = evaluate(self.function, x)
        error, size = fit_errors(candidates, h, values @ matrix.T, *self.samples)
        floor = np.abs(evaluate(self.function, x * (1 + _ROUNDING)) - values).max(axis=1)
        size = np.maximum(size, np.abs(values).max(axis=1))
        smooth = error - 4 * floor <= 0.1 * self.tolerance * np.maximum(size, self.largest / self.size)
        negligible = size <= self.tolerance * self.largest / self.size
        return np.where(negligible, NEGLIGIBLE, np.where(smooth, SMOOTH, ROUGH))

    def rough_share(self, level: int) -> float:
        """The share of rough windows of a level."""
        here = self.state[self.offset[level] : self.offset[level + 1]][: self._needed(level)]
        return float(np.mean(here == 0))

    def kernels(self, windows: Ints) -> Floats:
        """f(x + y) on windows (level, s), as matrices of Chebyshev coefficients in x and y."""
        points, matrix = self.nodes
        h = self.furthest / 2.0 ** windows[:, 0]
        centre = (windows[:, 1] + 1) * h
        sums = points[:, None] + points
        found = np.empty((len(windows), self.p, self.p))
        for a in range(0, len(windows), 512):
            x = centre[a : a + 512, None, None] + h[a : a + 512, None, None] / 2 * sums
            found[a : a + 512] = matrix @ evaluate(self.function, np.maximum(x, 0.0)) @ matrix.T
        return found

    def shifts(self) -> Floats:
        """T_q((x - 1) / 2) and T_q((x + 1) / 2) as sums of T_r(x): from a half panel to the whole."""
        points, matrix = self.nodes
        halves = [np.cos(np.outer(np.arccos((points + s) / 2), np.arange(self.p))) for s in (-1, 1)]
        return np.stack([np.ascontiguousarray((matrix @ half).T) for half in halves])
