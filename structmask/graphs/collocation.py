"""Distributions of stiff processes in continuous time: implicit steps of high order, certified by their residual.

On a step of length h the polynomial u of degree s that starts at p and has u' = u Q at Radau's points c_1 ... c_s = 1
leaves a residual that is known, for it has s zeros. With theta in [0, 1] the time and a the leading coefficient of u,

    u' - u Q = -a Q N_0(theta),     N_0 = prod_i (theta - c_i),     N_k = integral N_{k-1} from 0

Theorem. |p exp(hQ) - u(1)| <= |a (hQ)^(k+1)| integral |N_k| in the 1-norm, for k = 0 ... s - 1: exp(tQ) does not
increase 1-norms, and N_1 ... N_{s-1} vanish at both ends. Bounds of steps add up, and steps double as long as the
smallest allows, whatever the largest rate is.
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
_STEPS = 12  # for each doubling of the time, before something else is tried
_EACH = 6  # steps that a doubling is expected to take, which share the tolerance
_STALLED = 0.9  # of the bound before, where it consists of rounding errors: these do not grow with steps
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


class Integrator:
    """p exp(tQ) for rates A (csr_array without a diagonal) by steps of changing length."""

    def __init__(self, A: Any, stages: int = _STAGES) -> None:
        out = np.asarray(A.sum(axis=1)).reshape(-1)
        self.scheme, self.fastest = radau(stages), float(out.max(initial=0.0))
        self.transposed = scipy.sparse.csc_array((A - scipy.sparse.diags_array(out)).T)
        self._length, self._resolvents = 0.0, list[Callable[[Array], Array]]()

    def run(self, p: Array, time: float, tol: float) -> tuple[Array, float]:
        """The distributions p (n, k) in columns after some time, and a bound of their errors in the 1-norm.

        Where rounding errors do not let the steps grow, the bound is that of what is left to happen.
        """
        h, left, error, wait, before = 0.25 / self.fastest, time, 0.0, 0, math.inf
        changes, doublings = self._changes(p, h), 8 + math.log2(max(2.0, time * self.fastest))
        for _ in range(math.ceil(_STEPS * doublings)):
            rest = left * self._size(changes[1]) / h  # at most so much is left to happen
            if rest <= tol - error:
                return changes[0], error + rest
            allowed = (tol - error) / (_EACH * (4 + math.log2(max(1.0, left / h))))
            following, bound = self.step(changes, h)
            ratio, wait = 1.0, wait - 1
            if bound > allowed:
                ratio, wait = 0.5, _PAUSE
            else:
                changes, left, error = following, left - h, error + bound
                if wait < 0 and (bound <= _EASY * allowed or bound >= _STALLED * before):
                    ratio = 2.0
                before = bound
            if left <= 0:
                return changes[0], error
            ratio = min(ratio, left / h)
            h, changes = h * ratio, [x * ratio**j for j, x in enumerate(changes)]
        return changes[0], error + left * self._size(changes[1]) / h

    def step(self, changes: list[Array], h: float) -> tuple[list[Array], float]:
        """All p (hQ)^j, j = 0, 1, ..., after a step, from those before it; and the largest bound of a column.

        Nothing is multiplied by large rates: a resolvent y has h pole y Q = y - p.
        """
        if h != self._length:
            self._length, self._resolvents = h, [self._resolvent(h, pole) for pole in self.scheme.poles]
        scheme = self.scheme
        following, a = [np.zeros_like(x) for x in changes], [scheme.start * x for x in changes]
        for resolvent, pole, value, leading in zip(
            self._resolvents, scheme.poles, scheme.values, scheme.leading, strict=True
        ):
            y = resolvent(changes[0].astype(complex))
            for j, before in enumerate(changes):
                following[j] += (value * y).real
                a[j] += (leading * y).real
                y = (y - before) / pole
        bound = min(self._size(x) * integral for x, integral in zip(a[1:], scheme.integrals, strict=True))
        return [x / following[0].sum(axis=0) for x in following], bound

    def _changes(self, p: Array, h: float) -> list[Array]:
        """All p (hQ)^j, j = 0 ... s."""
        found = [p]
        for _ in self.scheme.integrals:
            found.append(h * (self.transposed @ found[-1]))
        return found

    def _resolvent(self, h: float, pole: complex) -> Callable[[Array], Array]:
        one = scipy.sparse.eye_array(self.transposed.shape[0], format="csc")
        return splu(scipy.sparse.csc_array(one - h * pole * self.transposed)).solve

    @staticmethod
    def _size(x: Array) -> float:
        return float(np.abs(x).sum(axis=0).max())


def integrated(A: Any, p: Array, time: float, tol: float) -> Array | None:
    """Products p exp(tQ) for distributions p (n, k), within `tol` in total variation; None where factors fill in."""
    if not fills_little(A):
        return None
    found, bound = Integrator(A).run(p, time, 2 * tol)  # the total variation is half of the 1-norm
    if bound > 2 * tol:
        msg = (
            f"the distribution is within {bound / 2:.1e} in total variation, above tol={tol:.1e}: the process is too "
            "stiff for double precision; raise tol, or see stationary()"
        )
        warnings.warn(msg, ConvergenceWarning, stacklevel=5)
    found = np.maximum(found, 0)
    return found / found.sum(axis=0)
