"""Distributions in continuous time as averages over a number of steps, with the truncation certified.

With q at least every rate of leaving and P = I + Q / q the jumps of a Poisson clock,

    p exp(tQ) = sum_k w_k p P^k,      w_k = exp(-q t) (q t)^k / k!

All terms are non-negative and add up to one: leaving some out costs their weight in total variation. If one more step
changes p P^k by d_k in the 1-norm, later ones change it by no more each, so that the sum may stop early, with p P^K for
all that is left, once d_K E[(N - K)^+] is small. A reversible Q, with measure m, needs the square root of the steps:

    p exp(tQ) = sum_k c_k p T_k(P),   c_k = 2 exp(-z) I_k(z),  z = q t        (c_0 half of it)

where what is left out costs at most sqrt(sum m) |p|_(1/m) sum c_k in the 1-norm (Cauchy and Schwarz). What is stiff and
not reversible is left to `collocation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special

from structmask.backends import kernels
from structmask.backends.arrays import Array
from structmask.graphs.collocation import integrated

_STIFF = 500.0  # expected steps from which another polynomial pays
_TRIAL = 20_000  # steps after which implicit ones pay, if nothing has come to rest by then
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


def evolved(A: Any, p: Array, time: float, measure: Array | None, tol: float) -> Array:
    """Products p exp(tQ) for distributions p (n, k) in columns, each within `tol` in total variation."""
    P, q = uniformised(A)
    z = q * time
    if z == 0:
        return p
    step = _step(P)
    if z > _STIFF and measure is not None:
        size = math.sqrt(measure.sum()) * float(np.sqrt((p**2 / measure[:, None]).sum(axis=0)).max())
        if math.isfinite(size) and np.finfo(float).eps * math.sqrt(z) * size <= tol:
            return _chebyshev(step, p, z, tol / (2 * size))
    if z > _TRIAL and (early := _averaged(step, p, z, tol, _TRIAL)) is not None:
        return early
    if z > _TRIAL and (implicit := integrated(A, p, time, tol)) is not None:
        return implicit
    return _averaged(step, p, z, tol)


def expected(A: Any, f: Array, time: float, tol: float) -> Array:
    """exp(tQ) f for functions f (n, k), within tol max |f|."""
    P, q = uniformised(A)
    first, w = poisson_weights(q * time, tol / 2)
    total = np.zeros(f.shape, np.result_type(f.dtype, np.float64))
    current = f.astype(total.dtype)
    for k in range(first + w.size):
        if k >= first:
            total += w[k - first] * current
        current = P @ current
    return total


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


def _step(P: Any) -> Any:
    T = scipy.sparse.csr_array(P.T)
    return lambda X: kernels.csr_product(T, T.data, X)


def _averaged(step: Any, p: Array, z: float, tol: float, limit: float = math.inf) -> Array | None:
    """The average, None if that takes more steps than a limit."""
    first, w = poisson_weights(z, tol / 2)
    later = np.cumsum(w[::-1])[::-1]  # weight of w_k and all that follow
    total = np.zeros_like(p)
    for k, (current, change) in enumerate(_powers(step, p)):
        done = k - first
        if done >= 0:
            total += w[done] * current
            if done == w.size - 1:
                return _normalised(total)
        if k % _CHECK == 0:
            left = later[max(0, done)] if done >= 0 else 1.0
            beyond = first + w.size - 1 - k  # at most so many steps follow
            if change() * beyond * left <= tol:
                rest = left - (w[done] if done >= 0 else 0.0)
                return _normalised(total + rest * current)
        if k >= limit:
            break
    return None


def _powers(step: Any, p: Array) -> Iterator[tuple[Array, Any]]:
    while True:
        following = step(p)
        yield p, lambda p=p, following=following: float(np.abs(following - p).sum(axis=0).max())
        p = following


def _chebyshev(step: Any, p: Array, z: float, tol: float) -> Array:
    c = chebyshev_weights(z, tol)
    before, current = p, step(p)
    total = c[0] * before + c[1] * current
    for weight in c[2:]:
        before, current = current, 2 * step(current) - before
        total += weight * current
    return _normalised(np.maximum(total, 0))


def _normalised(p: Array) -> Array:
    return p / p.sum(axis=0)
