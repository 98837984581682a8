"""State spaces from samples of a sequence: the realisation theorem of Ho and Kalman on a balanced Hankel matrix.

The Hankel matrix f(x_i + x_j) of a sequence c a^s b has rank r, whatever the sample x; of another sequence its singular
values say how many states are needed. Its leading part is split into what is seen and what is reached, the matrix of
f(x_i + x_j + D) in between is a^D, and c is fitted. None of this is trusted: the error is measured at every offset.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

OFFSETS_PER_STATE = 64  # near offsets that cost as much as a state
_SAMPLE = 320  # rows of the Hankel matrix
_FITTED = 1000  # offsets at which c is fitted
_SHIFTS = (1, 8, 64, 512, 4096)
_RANKS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30, 35, 40, 46, 52, 58, 64)
_AMPLIFICATION = 30.0  # sum_k |c_k| |x_k(s)| over the largest |f|: digits that rounding may cost
_HOPELESS = 30.0  # times the error allowed that no reweighting makes up for
_GROWTH = 20.0  # logarithm of the growth of the states over a table


@dataclass(frozen=True)
class Space:
    """f(s) = c a^(s - width) b from an offset on."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    width: int = 0

    @property
    def rank(self) -> int:
        return len(self.b)

    @property
    def cost(self) -> float:
        return self.rank + self.width / OFFSETS_PER_STATE


class Tail:
    """A table beyond the near band, with at most `cap` states."""

    def __init__(self, f: np.ndarray, weight: np.ndarray, cap: int) -> None:
        self.scale = np.abs(f).max()
        self.g, self.weight, self.n = f / self.scale, weight * self.scale, len(f)
        self.x = _grid((self.n + 1) // 2, _SAMPLE)
        self.balance = np.sqrt(np.minimum(self.weight[2 * self.x], 1e8 * self.weight.min()))
        values, vectors = scipy.linalg.eigh(self.hankel(0))  # symmetric: U = V up to signs
        order = np.argsort(-np.abs(values))
        self.sv, self.V = np.abs(values[order]), vectors[:, order]
        self.U = self.V * np.sign(values[order])
        self.cap = min(cap, int((self.sv > 1e-15 * self.sv[0]).sum()))
        self.s = _grid(self.n, _FITTED)
        self.closest = math.inf
        self.shifted: dict[int, np.ndarray] = {}

    def hankel(self, shift: int) -> Any:
        """g(x_i + x_j + shift), balanced; clipped at the end of the table."""
        index = np.minimum(self.x[:, None] + self.x + shift, self.n - 1)
        return self.g[index] * self.balance[:, None] * self.balance

    @cached_property
    def least(self) -> int:
        """No fewer states can do: the Hankel matrix of an error that is small everywhere has a small norm.

        By the theorem of Eckart, Young and Mirsky a matrix of rank r is at least sigma_(r+1) away.
        """
        allowed = self.balance[:, None] * self.balance / self.weight[self.x[:, None] + self.x]
        return int((self.sv > np.linalg.norm(allowed) * (1 + 1e-9)).sum())

    def reason(self) -> str:
        """Why there is nothing."""
        if self.least > self.cap:
            return f"by the singular values of its Hankel matrix it needs at least {self.least} states, more than pay"
        missed = f", the closest misses it {self.closest:.1f}-fold" if math.isfinite(self.closest) else ""
        return f"none was found with at most {self.cap} states{missed}"

    def realised(self) -> Space | None:
        """The fewest states found, fitted and then measured at every offset."""
        found = self.search()
        return None if found is None else self.refined(found)

    def search(self) -> Space | None:
        """The smallest order that fits on the sample."""
        shifts, tried = [D for D in _SHIFTS if max(1, self.n // 64) >= D], self.least - 1
        for r in sorted({min(max(k, self.least, 1), self.cap) for k in _RANKS}) if self.least <= self.cap else ():
            for D in shifts:
                if (space := self.attempt(r, D)) is not None:
                    return self.shortened(space, D, tried)
            tried = r
        return None

    def shortened(self, space: Space, shift: int, tried: int) -> Space:
        """Fewer states by the same shift, down to an order that failed before."""
        for r in range(space.rank - 1, max(tried, 0), -1):
            shorter = self.attempt(r, shift)
            if shorter is None:
                break
            space = shorter
        return space

    def attempt(self, r: int, shift: int) -> Space | None:
        """States of order r from one shift, if they fit on the sample."""
        a = self.transition(r, shift)
        if a is None:
            return None
        b = self.V[0, :r] * np.sqrt(self.sv[:r]) / self.balance[0]
        X, g, weight = _states(a, b, self.s).T, self.g[self.s], self.weight[self.s]
        few = slice(None, None, max(1, len(g) // (8 * r + 200)))
        if not np.isfinite(X).all() or _fitted(X[few], g[few], weight[few], 1)[1] > _HOPELESS:
            return None
        c, error = _fitted(X, g, weight, 5)
        if np.abs(X).max(axis=0) @ np.abs(c) > _AMPLIFICATION:
            return None
        self.closest = min(self.closest, error)
        return Space(a, b, c * self.scale) if error <= 1 else None

    def transition(self, r: int, shift: int) -> np.ndarray | None:
        """A with O a^shift Q the shifted Hankel matrix, O and Q the two balanced factors of the unshifted one."""
        if shift not in self.shifted:
            self.shifted[shift] = self.hankel(shift)
        rows = self.x + self.x[-1] + shift <= self.n - 1
        if rows.sum() < r:
            return None
        root = np.sqrt(self.sv[:r])
        seen, moved = self.U[rows, :r] * root, self.shifted[shift][rows] @ (self.V[:, :r] / root)
        power = np.linalg.lstsq(seen, moved, rcond=1e-15)[0]
        return _root(power, shift, self.n)

    def refined(self, found: Space) -> Space | None:
        """Measured at every offset; offsets that miss join the sample."""
        c, s = found.c / self.scale, self.s
        Z = _states(found.a, found.b, np.arange(self.n)).T
        for _ in range(4):
            error = np.abs(Z @ c - self.g) * self.weight
            if error.max() <= 1:
                return replace(found, c=c * self.scale)
            stretch = max(1, self.n // 400)
            worst = [k + int(np.argmax(error[k : k + stretch])) for k in range(0, self.n, stretch)]
            s = np.union1d(s, worst)
            c, _ = _fitted(Z[s], self.g[s], self.weight[s], 10)
        self.closest = min(self.closest, float(error.max()))
        return None


def _grid(n: int, size: int) -> np.ndarray:
    """About `size` of the offsets 0, ..., n - 1: every small one, then ever fewer, and a uniform grid."""
    if n <= size:
        return np.arange(n)
    logarithmic = np.geomspace(1, n, size // 2) - 1
    return np.unique(np.concatenate([logarithmic, np.linspace(0, n - 1, size // 2)]).astype(int))


def _states(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """a^s b as columns, by the binary digits of s."""
    X, power = np.repeat(b[:, None], len(s), axis=1), a
    with np.errstate(over="ignore", invalid="ignore"):  # growth is refused by whoever looks at the states
        for digit in range(int(s.max(initial=0)).bit_length()):
            if digit:
                power = power @ power
            taken = (s >> digit) & 1 == 1
            X[:, taken] = power @ X[:, taken]
    return X


def _root(power: np.ndarray, shift: int, n: int) -> np.ndarray | None:
    """The real root of a^shift, if there is one whose powers up to n stay in bounds."""
    values = np.linalg.eigvals(power)
    largest = np.abs(values).max(initial=0)
    if n / shift * math.log(max(largest, 1e-300)) > _GROWTH:
        return None
    if shift == 1:
        return power
    if np.abs(values).min() < 1e-14 or np.any((values.imag == 0) & (values.real <= 0)):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an inaccurate root shows in the error
            root: np.ndarray = scipy.linalg.expm(np.real(scipy.linalg.logm(power)) / shift)
    except (ValueError, np.linalg.LinAlgError):
        return None
    return root


def _fitted(X: np.ndarray, g: np.ndarray, weight: np.ndarray, sweeps: int) -> tuple[np.ndarray, float]:
    """C with the smallest largest error of X c, by least squares with weights that follow the error (Lawson's)."""
    best, importance = (np.zeros(X.shape[1]), math.inf), np.ones(len(g))
    for _ in range(sweeps):
        w = weight * np.sqrt(importance)
        A = X * w[:, None]
        size = np.sqrt((A * A).sum(axis=0))
        size[size == 0] = 1
        c = np.linalg.lstsq(A / size, g * w, rcond=1e-14)[0] / size
        error = np.abs(X @ c - g) * weight
        largest = float(error.max())
        if largest < best[1]:
            best = c, largest
        if best[1] <= 1 or largest > _HOPELESS:
            break
        importance = importance * (error / largest + 0.02)
        importance *= len(g) / importance.sum()
    return best
