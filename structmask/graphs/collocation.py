"""Stiff processes in continuous time: implicit steps of high order, certified by their residual.

On a step of length h the polynomial u of degree s that starts at p and has u' = u Q at Radau's points c_1 ... c_s = 1
leaves a residual that is known, for it has s zeros. With theta in [0, 1] the time and a the leading coefficient of u,

    u' - u Q = -a Q N_0(theta),     N_0 = prod_i (theta - c_i),     N_k = integral N_{k-1} from 0

Theorem. |p exp(hQ) - u(1)| <= |a (hQ)^(k+1)| integral |N_k| in the 1-norm, for k = 0 ... s - 1: exp(tQ) does not
increase 1-norms, and N_1 ... N_{s-1} vanish at both ends. Bounds of steps add up, and steps double as long as the
smallest allows, whatever the largest rate is. Functions f on the states are the same with Q on the left, in the norm
max |f|; and the integral of u is a polynomial with the residual -a N_0, whose bounds are h |a (hQ)^k| integral |N_k|.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.polynomial import Polynomial
from scipy.sparse.linalg import splu
from scipy.special import roots_jacobi

from structmask.backends.arrays import Array
from structmask.graphs.elimination import fills_little
from structmask.linalg.convergence import ConvergenceWarning

_STAGES = 5
_STEPS = 40  # for each doubling of the time, before something else is tried
_EACH = 12  # steps that a doubling is expected to take, which share the tolerance
_ORDER = 8.0  # what half a step divides its bound by at least, unless that is rounding errors
_STALLED = 0.9  # of the bound before, where it consists of rounding errors: these do not grow with steps
_LEAST, _FLOOR = 2e-11, 1e-13  # tolerances, in all and of a step, that rounding errors leave room for
_EASY, _PAUSE = 0.2, 5  # share of its bound from which a step twice as long is tried, and steps to wait after a miss


@dataclass(frozen=True)
class Scheme:
    """Radau's method of s stages as sums over resolvents p (1 - h pole Q)^-1, one of each pair of conjugate poles.

    Attributes
    ----------
    poles : array (K,)
    values, leading : array (K,)
        u(1) = Re sum_k values_k p (1 - h poles_k Q)^-1, and a = start p + Re sum_k leading_k p (1 - h poles_k Q)^-1.
    start : float
    integrals : array (s,)
        Of |N_k| over [0, 1].
    """

    poles: Array
    values: Array
    leading: Array
    start: float
    integrals: Array


def radau(stages: int) -> Scheme:
    """The method of so many stages: from the eigenvalues of its matrix B, the integrals of Lagrange's polynomials."""
    inner, _ = roots_jacobi(stages - 1, 1, 0)
    c, powers = np.append((inner + 1) / 2, 1.0), np.arange(stages)
    B = (c[:, None] ** (powers + 1) / (powers + 1)) @ np.linalg.inv(c[:, None] ** powers)
    poles, T = np.linalg.eig(B)
    kept = poles.imag >= 0
    share = (np.where(poles.imag > 0, 2.0, 1.0) * np.linalg.solve(T, np.ones(stages)))[kept]
    nodes = np.append(0.0, c)
    divided = np.array([1 / np.prod(np.delete(x - nodes, i)) for i, x in enumerate(nodes)])  # a is a divided difference
    return Scheme(poles[kept], share * T[-1, kept], share * (divided[1:] @ T[:, kept]), divided[0], _integrals(c))


def _integrals(c: Array) -> Array:
    """Of |N_k|, k = 0 ... s - 1: between its zeros an antiderivative tells."""
    N, found = Polynomial.fromroots(c), []
    for _ in c:
        zeros = N.roots()
        inside = np.sort(zeros.real[(np.abs(zeros.imag) < 1e-6) & (zeros.real > 0) & (zeros.real < 1)])
        N = N.integ()
        found.append(np.abs(np.diff(N(np.concatenate([[0.0], inside, [1.0]])))).sum())
    return np.array(found)


@dataclass(frozen=True)
class Step:
    """What a step of length h leads to.

    Attributes
    ----------
    changes : list of arrays (n, k)
        All x (hQ)^j, j = 0, 1, ..., at its end.
    bound : float
        Of the error of x, the largest of a column.
    integral : array (n, k)
        Of x over the step.
    integral_bound : float
    """

    changes: list[Array]
    bound: float
    integral: Array
    integral_bound: float


class Pace:
    """Which steps are taken, and how long the next ones are, for results of some scale."""

    def __init__(self, scale: float) -> None:
        self.least, self.floor = _LEAST * scale, _FLOOR * scale
        self.wait, self.before, self.refused = 0, math.inf, math.inf

    def judged(self, bound: float, allowed: float) -> tuple[bool, float]:
        """Whether a step with such a bound is taken, and the ratio of the next step's length to this one's.

        A bound that half the step did not make far better consists of rounding errors: then it is as good as any.
        """
        if bound > self.refused / _ORDER:
            self.floor = max(self.floor, min(2 * bound, self.least))
        allowed, self.wait = max(allowed, self.floor), self.wait - 1
        if bound > allowed:
            self.wait, self.refused = _PAUSE, bound
            return False, 0.5
        is_easy = bound <= _EASY * allowed or bound >= _STALLED * self.before
        self.before, self.refused = bound, math.inf
        return True, 2.0 if is_easy and self.wait < 0 else 1.0


class Integrator:
    """p exp(tQ) for distributions p in columns, or exp(tQ) f, for rates A (csr_array without a diagonal)."""

    def __init__(self, A: Any, stages: int = _STAGES, *, functions: bool = False) -> None:
        out = np.asarray(A.sum(axis=1)).reshape(-1)
        self.scheme, self.fastest, self.functions = radau(stages), float(out.max(initial=0.0)), functions
        Q = scipy.sparse.csc_array(A - scipy.sparse.diags_array(out))
        self.matrix, self.product = Q if functions else Q.T.tocsc(), _differences(A, functions=functions)
        self._length, self._resolvents = 0.0, list[Callable[[Array], Array]]()

    def run(self, x: Array, time: float, tol: float, *, integral: bool = False) -> tuple[Array, float]:
        """What becomes of x (n, k), or its integral, after some time, and a bound of the error in the norm.

        Where rounding errors do not let the steps grow, the bound is that of what is left to happen.
        """
        h, left, error, scale = 0.25 / self.fastest, time, 0.0, self.size(x) * (time if integral else 1.0)
        changes, total, tol = self._changes(x, h), np.zeros_like(x), max(tol, _LEAST * scale)
        pace, doublings = Pace(scale), 8 + math.log2(max(2.0, time * self.fastest))
        for _ in range(math.ceil(_STEPS * doublings)):
            rest = self._rest(changes, left / h) * (left / 2 if integral else 1.0)
            if left <= 0 or rest <= tol - error:
                break
            allowed = (tol - error) / (_EACH * (4 + math.log2(max(1.0, left / h))))
            step = self.step(changes, h)
            bound = step.integral_bound + (left - h) * step.bound if integral else step.bound
            is_taken, ratio = pace.judged(bound, allowed)
            if is_taken:
                changes, total, left, error = step.changes, total + step.integral, left - h, error + bound
            if left > 0:
                ratio = min(ratio, left / h)
                h, changes = h * ratio, [y * ratio**j for j, y in enumerate(changes)]
        left = max(left, 0.0)
        rest = self._rest(changes, left / h) * (left / 2 if integral else 1.0)
        return total + left * changes[0] if integral else changes[0], error + rest

    def step(self, changes: list[Array], h: float) -> Step:
        """All x (hQ)^j, j = 0, 1, ..., after a step, from those before it, and the integral.

        Nothing is multiplied by large rates: a resolvent y has h pole y Q = y - x.
        """
        if h != self._length:
            self._length, self._resolvents = h, [self._resolvent(h, pole) for pole in self.scheme.poles]
        scheme, total = self.scheme, np.zeros_like(changes[0])
        following, a = [np.zeros_like(x) for x in changes], [scheme.start * x for x in changes]
        for resolvent, pole, value, leading in zip(
            self._resolvents, scheme.poles, scheme.values, scheme.leading, strict=True
        ):
            y = resolvent(changes[0].astype(complex))
            total += h * (value * pole * y).real
            for j, before in enumerate(changes):
                following[j] += (value * y).real
                a[j] += (leading * y).real
                y = (y - before) / pole
        bound = min(self.size(x) * integral for x, integral in zip(a[1:], scheme.integrals, strict=True))
        of_integral = h * min(self.size(x) * integral for x, integral in zip(a[:-1], scheme.integrals, strict=True))
        return Step(following, bound, total, of_integral)

    def size(self, x: Array) -> float:
        """The largest norm of a column, in which exp(tQ) is a contraction."""
        return float((np.abs(x).max(axis=0) if self.functions else np.abs(x).sum(axis=0)).max())

    def _rest(self, changes: list[Array], steps: float) -> float:
        """At most so much is left to happen."""
        return steps * self.size(changes[1])

    def _changes(self, x: Array, h: float) -> list[Array]:
        """All x (hQ)^j, j = 0 ... s."""
        found = [x]
        for _ in self.scheme.integrals:
            found.append(h * self.product(found[-1]))
        return found

    def _resolvent(self, h: float, pole: complex) -> Callable[[Array], Array]:
        """(1 - h pole Q)^-1 with one refinement, for the sum of one and a rate has lost the digits of the one."""
        z = h * pole
        solve = splu(scipy.sparse.csc_array(scipy.sparse.eye_array(self.matrix.shape[0]) - z * self.matrix)).solve

        def refined(x: Array) -> Array:
            y: Array = solve(x)
            return y + solve(x - y + z * self.product(y))

        return refined


def _differences(A: Any, *, functions: bool) -> Callable[[Array], Array]:
    """Products with Q as sums of A_ij (f_j - f_i), or of flows p_i A_ij that leave i and enter j: nothing gets lost."""
    n, steps = A.shape[0], A.nnz
    end = scipy.sparse.csr_array((np.ones(steps), A.indices, np.arange(steps + 1)), shape=(steps, n))
    start = scipy.sparse.csr_array((np.ones(steps), np.arange(steps), A.indptr), shape=(n, steps))
    along, rates = scipy.sparse.csr_array(end - start.T), A.data[:, None]
    if functions:
        return lambda f: start @ (rates * (along @ f))
    leaving, back = start.T.tocsr(), along.T.tocsr()
    return lambda p: back @ (rates * (leaving @ p))


def integrated(
    A: Any, x: Array, time: float, tol: float, *, functions: bool = False, integral: bool = False, anyway: bool = False
) -> Array | None:
    """What `Integrator` makes of x (n, k), within `tol` in its norm; None where factors fill in, unless `anyway`."""
    if not (anyway or fills_little(A)):
        return None
    found, bound = Integrator(A, functions=functions).run(x, time, tol, integral=integral)
    if bound > tol:
        msg = (
            f"the result is within {bound:.1e} {'of the largest value' if functions else 'in the 1-norm'}, above the "
            f"{tol:.1e} asked for: the process is too stiff for double precision; raise tol, or see stationary()"
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=5)
    return found
