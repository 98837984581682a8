"""Toeplitz tables as state spaces within a tolerance, head by head and side by side, with errors that are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.exponential_sum import ExponentialSum
from structmask.linalg.realisation import OFFSETS_PER_STATE, Space, Tail
from structmask.linalg.state_space import StateSpace
from structmask.linalg.stationary import Errors, Stationary
from structmask.linalg.toeplitz import Toeplitz

MEASURES = ("absolute", "mass", "relative")
_BANDS = (0, 64, 128, 256)  # near bands that are tried
_LIMIT = 64  # states and 64ths of near offsets, together, up to which chunks are worth while


def compress(matrix: Toeplitz, *, tol: float, measure: str = "mass") -> StructuredMatrix:
    """A state-space mask within `tol` of a Toeplitz matrix; see `Toeplitz.compress`."""
    tables = _tables_of(matrix, tol, measure)
    n, home = matrix.shape[-1], arrays.home(matrix.offsets)
    past, future = tables[:, n - 1 :], tables[:, n - 1 :: -1]
    sides: list[tuple[np.ndarray, dict[str, Any]]]
    if np.array_equal(past, future):
        sides = [(past, {})]
    else:
        strict = np.where(np.arange(n) == 0, 0, future)
        sides = [(past, {"causal": True}), (strict, {"causal": True, "upper": True})]
        if not strict.any():
            sides = sides[:1]
        elif not past[:, 1:].any():
            sides = [(future, sides[1][1])]
    batch = matrix.shape[:-2]
    parts = [_compressed(f, tol, measure, batch, options) for f, options in sides]
    first, *others = (part._map(lambda x: arrays.move(x, home)) for part in parts)
    total: StructuredMatrix = first
    for other in others:
        total = total + other
    return total


def _tables_of(matrix: Toeplitz, tol: float, measure: str) -> np.ndarray:
    """The tables (heads, 2 n - 1) in double precision, if there is something to compress."""
    if measure not in MEASURES:
        msg = f"unknown measure {measure!r}; choose one of {', '.join(map(repr, MEASURES))}"
        raise ValueError(msg)
    if not 0 < tol < math.inf:
        msg = f"compress needs a positive tol, got {tol!r}"
        raise ValueError(msg)
    if matrix.levels != 1 or matrix.row_grid != matrix.column_grid:
        msg = f"compress takes square Toeplitz matrices of one level, got {matrix!r} with levels={matrix.levels}"
        raise ValueError(msg)
    if arrays.is_complex(matrix.offsets):
        msg = f"compress takes real tables, got {matrix!r}; compress its real and its imaginary part"
        raise TypeError(msg)
    tables = np.asarray(arrays.to_numpy(matrix.offsets), np.float64)
    if not np.isfinite(tables).all():
        msg = "compress needs finite offsets, got nan or inf"
        raise ValueError(msg)
    return tables.reshape(-1, tables.shape[-1])


def _compressed(f: np.ndarray, tol: float, measure: str, batch: tuple[int, ...], options: dict[str, Any]) -> Stationary:
    """One mask for the tables (heads, n) of all heads."""
    sided = 1 if options else 2
    parts = [_Table(head, tol, measure, sided).compressed() for head in f]
    w, r = max(part.width for part in parts), max(part.rank for part in parts)
    a, b, c = np.zeros((len(f), r, r)), np.zeros((len(f), r)), np.zeros((len(f), r))
    for head, part in enumerate(parts):
        p = part.rank
        a[head, :p, :p], c[head, :p] = part.a, part.c
        b[head, :p] = np.linalg.matrix_power(part.a, w - part.width) @ part.b
    n = f.shape[-1]
    mask: Stationary
    if r == 1 and w == 0:
        weights, decays = (x.reshape(*batch, 1) for x in (b * c, a))
        mask = ExponentialSum(weights, decays, n, **options)
    else:
        a, b, c = (x.reshape(*batch, *x.shape[1:]) for x in (a, b, c))
        mask = StateSpace(a, b, c, n, near=f[:, :w].reshape(*batch, -1) if w else None, **options)
    return replace(mask, errors=_measured(mask, f, sided))


def _measured(mask: Stationary, f: np.ndarray, sided: int) -> Errors:
    """Errors at every offset, the worst head's."""
    f = f.reshape(mask.table.shape)
    e, size, count = np.abs(mask.table - f), np.abs(f), _multiplicity(f.shape[-1], sided)
    total, mass = e @ count, size @ count
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(e > 0, e / size, 0)
        by_mass = np.where(total > 0, total / mass, 0)
    return Errors(*(float(np.max(x)) for x in (e, by_mass, relative, total + sided * _rounding(mask))))


def _rounding(mask: Stationary) -> np.ndarray:
    """Bound on the sum over s of what rounding may change of f(s) = c x_s, x_(s+1) = a x_s, in double precision.

    Step t is off by at most gamma |a| |x_t|, which is seen later as |c a^u| times that, for every u.
    """
    r, count = mask.rank, max(1, mask.n - mask.width)
    if r == 0:
        return np.zeros(())
    seen = np.abs(mask.entering(count)).sum(axis=-2)
    reached = np.abs(mask.leaving(count)).sum(axis=-1)
    steps = (np.abs(mask.steps(1)) @ reached[..., None])[..., 0] + reached
    result: np.ndarray = 2 * (r + 2) * np.finfo(float).eps * np.sum(seen * steps, axis=-1)
    return result


def _multiplicity(n: int, sided: int) -> np.ndarray:
    """How often an offset s >= 0 occurs in the table."""
    return np.where(np.arange(n) == 0, 1.0, float(sided))


@dataclass(frozen=True)
class _Table:
    """Values f(0), ..., f(n - 1) of one head, and the error they bear."""

    f: np.ndarray
    tol: float
    measure: str
    sided: int

    @cached_property
    def weight(self) -> Any:
        """|e(s)| weight(s) <= 1 for all s is what is wanted."""
        size = np.abs(self.f)
        if self.measure == "absolute":
            return np.full(len(size), 1 / self.tol)
        if self.measure == "mass":
            count = _multiplicity(len(size), self.sided)
            mean = (size @ count) / count.sum()
            return 2 / (self.tol * (size + (mean or 1.0)))
        with np.errstate(divide="ignore", over="ignore"):
            return np.where(size > 1e-250 * size.max(), 1 / (self.tol * size), np.inf)

    def compressed(self) -> Space:
        """The cheapest state space over all near bands; raises ValueError if there is none."""
        n, best, reasons = len(self.f), None, []
        for band in (0, 1, *_BANDS[1:]) if self.f[0] == 0 else _BANDS:
            cap = int((_LIMIT if best is None else best.cost - 1) - band / OFFSETS_PER_STATE)
            if cap < 1 or (best is not None and band >= n):
                break
            if band >= n or not self.f[band:].any():
                nothing = Space(np.zeros((0, 0)), np.zeros(0), np.zeros(0), min(band, n))
                return nothing if best is None or nothing.cost < best.cost else best
            if not np.isfinite(self.weight[band:]).all():
                reasons.append("no relative accuracy where it is zero, or nearly (measure='mass' takes zeros)")
                continue
            tail = Tail(self.f[band:], self.weight[band:], cap)
            found = tail.realised()
            if found is None:
                reasons.append(tail.reason())
            else:
                best = replace(found, width=band)
        if best is None:
            msg = (
                f"no state space is within tol={self.tol:g} ({self.measure}) of this table of {n} offsets: "
                f"{reasons[-1]}; keep the Toeplitz matrix, or allow a larger tol"
            )
            raise ValueError(msg)
        return best
