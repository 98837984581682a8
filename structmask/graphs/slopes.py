"""The derivative of a function of the distance that is known by its samples: Chebyshev series on cells of the axis."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.tree import Floats
from structmask.linalg.convergence import ConvergenceWarning

_POINTS = 24  # of interpolation in a cell
_CELLS, _HALVINGS = 8, 30  # at first, and how often one is halved
_MOST_CELLS = 1 << 17
_CHECKS, _FEWEST = 1 << 12, 16  # points of a cell where its series must meet f: half as many in half a cell
_GOLDEN = 0.6180339887498949
_TAIL = 1e-14  # of the last coefficients, relative to the largest value in the cell
_ROUNDING = 9e-16  # relative, of a distance
_LOST = 1e-3  # share of the axis without a derivative that is worth a warning


@dataclass(frozen=True, eq=False)
class Slope:
    """f' as series sum_q coefficients[q, c] T_q on the cells edges[c] ... edges[c + 1]; constant beyond the ends.

    Where f jumps or has a kink no cell resolves it, and 0 stands for the derivative. A series of p terms on a cell of
    width h turns an error e of f into one of at most 2 p^2 e / h; coefficients within rounding of zero are left out.
    """

    edges: Floats
    coefficients: Floats

    @classmethod
    def of(cls, function: Callable[[Any], Any], reach: float) -> Slope:
        """The derivative up to a distance, from values of f on arrays."""
        left: Floats = np.linspace(0.0, reach, _CELLS, endpoint=False)
        parts: list[tuple[Floats, Floats, Floats]] = []  # left ends, widths, coefficients
        cells, largest = 0, 0.0
        for halving in range(_HALVINGS + 1):
            width = reach / _CELLS / 2.0**halving
            found, error, size, jitter = _fitted(function, left, width, max(_FEWEST, _CHECKS >> halving))
            largest = max(largest, float(np.max(size, where=np.isfinite(size), initial=0.0)))
            smooth = error <= _TAIL * size + 4 * jitter + 4e-16 * largest
            last = halving == _HALVINGS or cells + 2 * np.sum(~smooth) > _MOST_CELLS
            done = smooth | last
            series = np.where(smooth, _shortened(found, jitter + 2e-15 * size), 0.0)
            parts.append((left[done], np.full(int(done.sum()), width), series[:, done]))
            cells += int(done.sum())
            if last:
                _warn_of_lost(width * int(np.sum(~smooth)) / reach)
            left = (left[~done][:, None] + [0.0, width / 2]).ravel()
            if not left.size:
                break
        lefts, widths, coefficients = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        order = np.argsort(lefts)
        slopes = np.polynomial.chebyshev.chebder(coefficients, axis=0) * (2 / widths)
        return cls(np.append(lefts[order], reach), slopes[:, order])

    @property
    def tables(self) -> tuple[Floats, Floats]:
        """What values are made from."""
        return self.edges, self.coefficients

    def __call__(self, distances: Array) -> Array:
        xp, home = arrays.namespace(distances), arrays.home(distances)
        edges, coefficients = arrays.placed(self, "tables", home)
        d = xp.reshape(distances, (-1,))
        d = xp.clip(d, 0.0, float(self.edges[-1]))
        cell = xp.clip(xp.searchsorted(edges, d, side="right") - 1, 0, edges.shape[0] - 2)
        begin, end = xp.take(edges, cell), xp.take(edges, cell + 1)
        x = (2 * d - begin - end) / (end - begin)
        b, c = xp.zeros_like(x), xp.zeros_like(x)
        for q in range(coefficients.shape[0] - 1, 0, -1):  # Clenshaw's recurrence
            b, c = xp.take(coefficients[q, :], cell) + 2 * x * b - c, b
        return xp.reshape(xp.take(coefficients[0, :], cell) + x * b - c, distances.shape)


def _fitted(
    function: Callable[[Any], Any], left: Floats, width: float, count: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Chebyshev coefficients (points, cells); for every cell the error, the largest |f|, what rounding of d does to f.

    The error is that at `count` further samples, the left end among them, or the last coefficients if they are larger.
    """
    k = np.arange(_POINTS)
    nodes = np.cos(np.pi * (k + 0.5) / _POINTS)
    matrix = 2 / _POINTS * np.cos(np.pi * np.outer(k, k + 0.5) / _POINTS)
    matrix[0] /= 2
    checks = 2 * np.modf(np.arange(count) * _GOLDEN)[0] - 1
    at_nodes, at_checks = (left + (1 + x[:, None]) * (width / 2) for x in (nodes, checks))
    values, more = function(at_nodes), function(at_checks)
    with np.errstate(invalid="ignore"):
        found = matrix @ values
        misfit = np.abs(np.cos(np.outer(np.arccos(checks), k)) @ found - more).max(axis=0)
        jitter = np.abs(function(at_nodes * (1 + _ROUNDING)) - values).max(axis=0)
    error = np.maximum(misfit, np.abs(found[-3:]).max(axis=0))
    return found, error, np.maximum(np.abs(values).max(axis=0), np.abs(more).max(axis=0)), jitter


def _shortened(coefficients: Floats, noise: Floats) -> Floats:
    """Without the coefficients behind the last that is more than noise."""
    behind = np.maximum.accumulate(np.abs(coefficients)[::-1], axis=0)[::-1] <= noise
    return np.where(behind, 0.0, coefficients)


def _warn_of_lost(share: float) -> None:
    if share > _LOST:
        msg = (
            f"the function of the distance is too rough to be differentiated from samples on {share:.0%} of the axis, "
            "where 0 stands for its derivative; pass derivative="
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=2)
