"""Continuous time as an average over a number of steps, with the truncation certified.

With q at least every rate of leaving and P = I + Q / q the jumps of a Poisson clock,

    p exp(tQ) = sum_k w_k p P^k,      w_k = exp(-q t) (q t)^k / k!

All terms are non-negative and add up to one: leaving some out costs their weight in total variation. If one more step
changes p P^k by d_k in the 1-norm, later ones change it by no more each, so that the sum may stop early, with p P^K for
all that is left, once d_K E[(N - K)^+] is small. A reversible Q, with measure m, needs the square root of the steps:

    p exp(tQ) = sum_k c_k p T_k(P),   c_k = 2 exp(-z) I_k(z),  z = q t        (c_0 half of it)

where what is left out costs at most sqrt(sum m) |p|_(1/m) sum c_k in the 1-norm (Cauchy and Schwarz). Functions on the
states, exp(tQ) f, are the same from the left, in the norm max |f|; the time spent somewhere until t has the weights

    int_0^t exp(sQ) ds = sum_k P(N > k) / q P^k

What is stiff and not reversible is left to `collocation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse
import scipy.special

from structmask.backends import kernels
from structmask.backends.arrays import Array
from structmask.graphs.collocation import integrated

_STIFF = 500.0  # expected steps from which another polynomial pays
TRIAL = 20_000  # steps after which implicit ones pay, if nothing has come to rest by then
_LONGEST = 1_000_000  # steps from which on implicit ones are taken even if factors fill in
_COUNTABLE, _FOREVER = 1e9, 1e300  # steps up to which each has a weight, and that are as good as infinitely many
_CHECK = 16  # steps between looks at whether anything still changes


def poisson_weights(rate: float, tol: float) -> tuple[int, Array]:
    """First k, and weights w_k, w_k+1, ... of a Poisson number that leave out at most `tol`; they sum to one.

    From the mode outwards by ratios (Fox and Glynn): nothing over- or underflows that counts.
    """
    mode = math.floor(rate)
    digits = math.log(
        1e4 / tol
    )  # P(|N - rate| > x) <= 2 exp(-x^2 / (2 (rate + x / 3))): as good as nothing beyond reach
    reach = math.ceil(digits / 3 + math.sqrt(digits**2 / 9 + 2 * rate * digits)) + 1
    k = np.arange(max(0, mode - reach), mode + reach + 1, dtype=np.float64)
    place = mode - int(k[0])
    up = np.cumprod(rate / k[place + 1 :])
    down = np.cumprod(k[1 : place + 1][::-1] / rate)[::-1] if rate > 0 else np.zeros(0)
    w = np.concatenate([down, [1.0], up])
    w /= w.sum()
    before, after = np.cumsum(w), np.cumsum(w[::-1])[::-1]
    keep = (before > 0.499 * tol) & (after > 0.499 * tol)
    first, last = int(np.argmax(keep)), int(w.size - np.argmax(keep[::-1]))
    return int(k[0]) + first, w[first:last] / w[first:last].sum()


def uniformised(A: Any) -> tuple[Any, float]:
    """P = I + Q / q and q, the largest rate of leaving, for rates A (csr_array without a diagonal)."""
    out = np.asarray(A.sum(axis=1)).reshape(-1)
    q = float(out.max(initial=0.0))
    if q == 0:
        return scipy.sparse.csr_array(scipy.sparse.eye_array(A.shape[0])), 0.0
    return scipy.sparse.csr_array(A / q + scipy.sparse.diags_array(1 - out / q)), q


class Weights(NamedTuple):
    """Those of P^0, P^1, ...: `head` before the first of `tail`."""

    first: int
    head: float
    tail: Array

    @property
    def last(self) -> int:
        """The last power with a weight."""
        return self.first + int(self.tail.size) - 1


class Clock:
    """exp(tQ) by powers of P, for distributions in columns or for functions, contractions in the norms of `size`."""

    def __init__(self, A: Any, *, functions: bool) -> None:
        self.A, self.functions = A, functions
        P, self.rate = uniformised(A)
        self.step = _step(P if functions else scipy.sparse.csr_array(P.T))

    def size(self, x: Array) -> float:
        """The largest norm of a column."""
        return float((np.abs(x).max(axis=0) if self.functions else np.abs(x).sum(axis=0)).max())

    def reversible_size(self, x: Array, measure: Array) -> float:
        """A bound of `size` that polynomials in a reversible P, with values in [-1, 1], do not increase."""
        if self.functions:
            return math.sqrt(float((measure[:, None] * x**2).sum(axis=0).max()) / measure.min())
        return math.sqrt(measure.sum() * float((x**2 / measure[:, None]).sum(axis=0).max()))

    def evolved(self, x: Array, time: float, measure: Array | None, tol: float) -> Array:
        """Within `tol` in the norm, that of x being one."""
        z = self.rate * time
        if z == 0:
            return x
        if _STIFF < z <= _COUNTABLE and measure is not None:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                size = self.reversible_size(x, measure)
            if math.isfinite(size) and np.finfo(float).eps * math.sqrt(z) * size <= tol / 2:
                return _chebyshev(self.step, x, z, tol / size)
        return self._summed(x, time, _steps(z, tol / 4), tol, integral=False)

    def occupied(self, x: Array, time: float, tol: float) -> Array:
        """The integral from 0 to a time, within `tol` in the norm, that of x being one."""
        if self.rate * time == 0:
            return time * x
        first, _, w = _steps(self.rate * time, min(tol / (4 * time), 0.5))
        tail = np.append(np.cumsum(w[::-1])[::-1][1:], 0.0)
        scale = time / (first + tail.sum())
        return self._summed(x, time, Weights(first, scale, scale * tail), tol, integral=True)

    def _summed(self, x: Array, time: float, c: Weights, tol: float, *, integral: bool) -> Array:
        """By powers if they are few or come to rest soon, by implicit steps if not, but for those that fill in."""
        if (found := self._averaged(x, c, tol / 2, TRIAL)) is not None:
            return found
        anyway = c.last > _LONGEST
        found = integrated(self.A, x, time, tol, functions=self.functions, integral=integral, anyway=anyway)
        if found is not None:
            return found
        return cast("Array", self._averaged(x, c, tol / 2))

    def _averaged(self, x: Array, c: Weights, tol: float, limit: float = math.inf) -> Array | None:
        """sum_k c_k P^k x, None if that takes more steps than a limit.

        It stops where all that follow are P^k x as well, up to `tol`.
        """
        later = np.append(np.cumsum(c.tail[::-1])[::-1], 0.0)  # weight of c_k and all that follow
        total, k = np.zeros_like(x), 0
        while k <= limit:
            done = k - c.first
            total += (c.tail[done] if done >= 0 else c.head) * x
            if k == c.last:
                return total
            following = self.step(x)
            if k % _CHECK == 0:
                left = later[done + 1] if done >= 0 else later[0] + c.head * (c.first - k - 1)
                if self.size(following - x) * (c.last - k) * left <= tol:
                    return total + left * x
            x, k = following, k + 1
        return None


def evolved(A: Any, p: Array, time: float, measure: Array | None, tol: float) -> Array:
    """Products p exp(tQ) for distributions p (n, k) in columns, each within `tol` in total variation."""
    result = Clock(A, functions=False).evolved(p, time, measure, 2 * tol)  # total variation is half of the 1-norm
    return _normalised(np.maximum(result, 0))


def expected(A: Any, f: Array, time: float, measure: Array | None, tol: float) -> Array:
    """exp(tQ) f for functions f (n, k), within tol max |f|, column by column."""
    if np.iscomplexobj(f):
        both = expected(A, np.concatenate([f.real, f.imag], axis=1), time, measure, tol / 2)
        return both[:, : f.shape[1]] + 1j * both[:, f.shape[1] :]
    result = evolved_values(A, f, time, tol, functions=True, measure=measure)
    return np.clip(result, f.min(axis=0), f.max(axis=0))


def evolved_values(
    A: Any, x: Array, time: float, tol: float, *, functions: bool, measure: Array | None = None
) -> Array:
    """exp(tQ) f, or p exp(tQ), for any x (n, k), within `tol` of the norm of a column."""
    x, scale = _scaled(x, functions=functions)
    return scale * Clock(A, functions=functions).evolved(x, time, measure, tol)


def occupied(A: Any, x: Array, time: float, tol: float, *, functions: bool) -> Array:
    """The integral of exp(sQ) f, or p exp(sQ), up to a time, for any x (n, k), within `tol` of the norm of a column."""
    x, scale = _scaled(x, functions=functions)
    return scale * Clock(A, functions=functions).occupied(x, time, tol)


def _scaled(x: Array, *, functions: bool) -> tuple[Array, Array]:
    """Columns of norm one in double precision, and their norms."""
    norm = np.abs(x).max(axis=0, initial=0.0) if functions else np.abs(x).sum(axis=0)
    scale = np.where(norm > 0, norm, 1.0).astype(np.float64)
    return np.ascontiguousarray(x / scale, dtype=np.float64), scale


def chebyshev_weights(z: float, tol: float) -> Array:
    """c_0 ... c_K of exp(z (x - 1)) with at most `tol` left out."""
    count = 16 + math.ceil(math.sqrt(2 * (z + 1) * math.log(8 / tol)) + 2 * math.log(8 / tol))
    c = 2 * scipy.special.ive(np.arange(count), z)
    c[0] /= 2
    tail = np.cumsum(c[::-1])[::-1]
    weights: Array = c[: max(2, int(np.count_nonzero(tail > tol / 2)))]
    return weights


def occupation_weights(time: float, q: float, tol: float) -> Array:
    """Coefficients of int_0^t exp(sQ) ds = sum_k P(N > k) / q P^k, up to `tol` in all."""
    if q * time == 0:
        return np.array([time])
    first, w = poisson_weights(q * time, min(tol / (4 * time), 0.5))
    later = np.concatenate([np.ones(first), np.cumsum(w[::-1])[::-1][1:]]) / q
    return later * (time / later.sum()) if later.size else np.array([time])


def _steps(z: float, tol: float) -> Weights:
    """Weights of the numbers of steps; of the largest alone where there are more than anybody takes."""
    if z <= _COUNTABLE:
        first, w = poisson_weights(z, tol)
        return Weights(first, 0.0, w)
    return Weights(math.ceil(min(z, _FOREVER) + 10 * math.sqrt(z)), 0.0, np.ones(1))


def _step(P: Any) -> Callable[[Array], Array]:
    return lambda X: kernels.csr_product(P, P.data, X)


def _chebyshev(step: Callable[[Array], Array], x: Array, z: float, tol: float) -> Array:
    c = chebyshev_weights(z, tol / 2)
    before, current = x, step(x)
    total = c[0] * before + c[1] * current
    for weight in c[2:]:
        before, current = current, 2 * step(current) - before
        total += weight * current
    return total


def _normalised(p: Array) -> Array:
    return p / p.sum(axis=0)
