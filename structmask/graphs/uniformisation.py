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

What is stiff and not reversible is left to `collocation`, on the host. Powers and polynomials run where x is; the host
looks at every 16th step whether anything still changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse
import scipy.special

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.backends.config import BackendError
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
    """exp(tQ) by powers of P, for distributions in columns or for functions, contractions in the norms of `size`.

    P is made on the host, and copied once to a device on which it is used.
    """

    def __init__(self, A: Any, *, functions: bool) -> None:
        self.A, self.functions = A, functions
        P, self.rate = uniformised(A)
        self.P = P if functions else scipy.sparse.csr_array(P.T)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def step(self, x: Array) -> Array:
        """P x, or p P in columns."""
        P = arrays.placed(self, "P", arrays.home(x))
        return kernels.csr_product(P, P.data, x)

    def norms(self, x: Array) -> Array:
        """Those of the columns."""
        xp = arrays.namespace(x)
        return xp.max(xp.abs(x), axis=0) if self.functions else xp.sum(xp.abs(x), axis=0)

    def size(self, x: Array) -> float:
        """The largest norm of a column, for which the host waits."""
        return float(arrays.namespace(x).max(self.norms(x)))

    def reversible_size(self, x: Array, measure: Array) -> float:
        """A bound of `size` that polynomials in a reversible P, with values in [-1, 1], do not increase."""
        xp, m = arrays.namespace(x), measure[:, None]
        squares = float(xp.max(xp.sum(m * x**2 if self.functions else x**2 / m, axis=0)))
        return math.sqrt(squares / float(xp.min(m)) if self.functions else squares * float(xp.sum(m)))

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
        if arrays.home(x) == "numpy":
            x = np.ascontiguousarray(x)
            found = integrated(self.A, x, time, tol, functions=self.functions, integral=integral, anyway=anyway)
            if found is not None:
                return found
        elif anyway:
            msg = (
                f"{self.rate * time:.1e} jumps are expected, and nothing comes to rest in {TRIAL} of them: that takes "
                "implicit steps, which run on the host; take a process and an operand there, by structmask.to_numpy"
            )
            raise BackendError(msg)
        return cast("Array", self._averaged(x, c, tol / 2))

    def _averaged(self, x: Array, c: Weights, tol: float, limit: float = math.inf) -> Array | None:
        """sum_k c_k P^k x, None if that takes more steps than a limit.

        It stops where all that follow are P^k x as well, up to `tol`.
        """
        later = np.append(np.cumsum(c.tail[::-1])[::-1], 0.0)  # weight of c_k and all that follow
        total, k = arrays.namespace(x).zeros_like(x), 0
        while k <= limit:
            done = k - c.first
            total += float(c.tail[done] if done >= 0 else c.head) * x
            if k == c.last:
                return total
            following = self.step(x)
            if k % _CHECK == 0:
                left = float(later[done + 1] if done >= 0 else later[0] + c.head * (c.first - k - 1))
                if self.size(following - x) * (c.last - k) * left <= tol:
                    return total + left * x
            x, k = following, k + 1
        return None


def evolved(clock: Clock, p: Array, time: float, measure: Array | None, tol: float) -> Array:
    """Products p exp(tQ) for distributions p (n, k) in columns, each within `tol` in total variation."""
    xp, result = arrays.namespace(p), clock.evolved(p, time, measure, 2 * tol)  # total variation is half of the 1-norm
    return _normalised(xp.maximum(result, xp.zeros_like(result)))


def expected(clock: Clock, f: Array, time: float, measure: Array | None, tol: float) -> Array:
    """exp(tQ) f for functions f (n, k), within tol max |f|, column by column."""
    xp = arrays.namespace(f)
    if arrays.is_complex(f):
        both = expected(clock, xp.concat([xp.real(f), xp.imag(f)], axis=1), time, measure, tol / 2)
        return both[:, : f.shape[1]] + 1j * both[:, f.shape[1] :]
    result = evolved_values(clock, f, time, tol, measure=measure)
    return xp.minimum(xp.maximum(result, xp.min(f, axis=0)), xp.max(f, axis=0))


def evolved_values(clock: Clock, x: Array, time: float, tol: float, *, measure: Array | None = None) -> Array:
    """exp(tQ) f, or p exp(tQ), for any x (n, k), within `tol` of the norm of a column."""
    x, scale = _scaled(clock, x)
    return scale * clock.evolved(x, time, measure, tol)


def occupied(clock: Clock, x: Array, time: float, tol: float) -> Array:
    """The integral of exp(sQ) f, or p exp(sQ), up to a time, for any x (n, k), within `tol` of the norm of a column."""
    x, scale = _scaled(clock, x)
    return scale * clock.occupied(x, time, tol)


def _scaled(clock: Clock, x: Array) -> tuple[Array, Array]:
    """Columns of norm one in double precision, and their norms."""
    x = arrays.cast_precision(x, "float64")
    xp, norm = arrays.namespace(x), clock.norms(x)
    scale = xp.where(norm > 0, norm, xp.ones_like(norm))
    return x / scale, scale


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


def _chebyshev(step: Callable[[Array], Array], x: Array, z: float, tol: float) -> Array:
    c = chebyshev_weights(z, tol / 2)
    before, current = x, step(x)
    total = float(c[0]) * before + float(c[1]) * current
    for weight in map(float, c[2:]):
        before, current = current, 2 * step(current) - before
        total += weight * current
    return total


def _normalised(p: Array) -> Array:
    return p / arrays.namespace(p).sum(p, axis=0)
