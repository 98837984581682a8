"""Krylov methods for A X = B with many right-hand sides and batches at once; each returns an approximation of X.

    x_j in span {r, A r, A^2 r, ...}: least energy norm of the error (conjugate gradients), least residual (the others)

A and P (approximately its inverse) are functions of blocks (..., n, k). A column stops when its residual is below its
share `tol` of `scale`, or when it meets a number that a positive definite matrix or preconditioner could not give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.arnoldi import Arnoldi

Block: TypeAlias = Callable[[Array], Array]
Method: TypeAlias = Callable[[Block, Block, Array, Array, float, "Watch"], Array]

_PATIENCE = 500  # iterations without progress after which a method gives up
_PROGRESS = 0.99  # of the smallest residual so far
_GROWTH = 1e8  # of a residual: no correct digit of the solution would be left
_STRIDE = 16  # iterations of a device between looks of the host, which would have to wait for it
_RESTARTS = (50, 1000)  # vectors that GMRES keeps at first, and when that gets nowhere
_SCRATCH = 1 << 25  # numbers that they may take, if ten fit


class Watch:
    """Counts iterations, tells a callback, and notices when nothing moves any more.

    On a device it looks at every 16th iteration only: columns that have converged meanwhile stay as they are.
    """

    def __init__(self, callback: Callable[[int, float], object] | None, limit: int) -> None:
        self.callback, self.limit, self.iterations = callback, limit, 0
        self.start()

    def start(self, home: str = "numpy") -> None:
        """A new method begins in a home: its progress counts from here."""
        self._best, self._since = math.inf, self.iterations
        self._stride = 1 if home == "numpy" else _STRIDE

    @property
    def looks(self) -> bool:
        """Whether the host waits for the numbers of this iteration."""
        return (self.iterations - self._since) % self._stride == 0

    def step(self, size: Array, scale: Array, active: Array) -> None:
        """An iteration has been done: its residuals beside their scale, and the columns that go on."""
        self.iterations += 1
        if self.looks:
            self.note(largest_ratio(size, scale, active))

    def note(self, residual: float) -> None:
        """A residual is known."""
        if self.callback is not None:
            self.callback(self.iterations, residual)
        if residual < _PROGRESS * self._best:
            self._best, self._since = residual, self.iterations

    @property
    def is_over(self) -> bool:
        """Whether to give up."""
        return self.iterations >= self.limit or self.iterations - self._since >= _PATIENCE


def norms(R: Array) -> Array:
    """2-norms (..., 1, k) of columns."""
    return arrays.namespace(R).sqrt(_inner(R, R))


def largest_ratio(p: Array, q: Array, where: Array) -> float:
    """Largest p / q over a mask; zero where it is empty."""
    xp = arrays.namespace(p)
    return float(xp.max(_ratio(p, q, where)))


def conjugate_gradients(A: Block, P: Block, R: Array, scale: Array, tol: float, watch: Watch) -> Array:
    """Hestenes and Stiefel's method, for Hermitian positive definite A and P. Five blocks of memory."""
    xp = arrays.namespace(R)
    X, D, rho = xp.zeros_like(R), None, None
    active = norms(R) > tol * scale
    while not (watch.is_over or (watch.looks and not xp.any(active))):
        Z = P(R)
        rho, before = _inner(R, Z), rho
        active = active & (rho > 0)
        D = Z if D is None else Z + _ratio(rho, before, active) * D
        Q = A(D)
        curvature = _inner(D, Q)
        active = active & (curvature > 0)
        if watch.looks and not xp.any(active):
            break
        step = _ratio(rho, curvature, active)
        X, R = X + step * D, R - step * Q
        size = norms(R)
        watch.step(size, scale, active)
        active = active & (size > tol * scale) & (size < _GROWTH * scale)
    return X


def minimal_residuals(A: Block, P: Block, R: Array, scale: Array, tol: float, watch: Watch) -> Array:
    """Paige and Saunders's method (MINRES), for Hermitian A and positive definite P. Ten blocks of memory.

    Lanczos's recurrence makes z_1, z_2, ... from Z = P V, orthonormal in the inner product of P^-1, in which A P is a
    tridiagonal matrix; Givens rotations (c, s) make that triangular, and D are the directions that they give. The
    residual itself is updated through Q = A D.
    """
    xp = arrays.namespace(R)
    X = V_0 = D = D_0 = Q = Q_0 = xp.zeros_like(R)
    V, Z = R, P(R)
    gamma = _root(_inner(Z, V))
    one = xp.ones_like(gamma)
    eta, gamma_0, c, c_0, s, s_0 = gamma, one, one, one, 0 * one, 0 * one
    active = (norms(R) > tol * scale) & (gamma > 0)
    while not (watch.is_over or (watch.looks and not xp.any(active))):
        Z = _ratio(one, gamma, active) * Z
        Y = A(Z)
        delta = _inner(Z, Y)
        V, V_0 = Y - _ratio(delta, gamma, active) * V - _ratio(gamma, gamma_0, active) * V_0, V
        P_V = P(V)
        following = _root(_inner(P_V, V))
        first, second, third = c * delta - c_0 * s * gamma, s * delta + c_0 * c * gamma, s_0 * gamma
        length = xp.sqrt(first**2 + following**2)
        active = active & (length > 0)
        inverse = _ratio(one, length, active)
        c, c_0, s, s_0 = first * inverse, c, following * inverse, s
        D, D_0 = inverse * (Z - third * D_0 - second * D), D
        Q, Q_0 = inverse * (Y - third * Q_0 - second * Q), Q
        X, R, eta = X + c * eta * D, R - c * eta * Q, -s * eta
        size = norms(R)
        watch.step(size, scale, active)
        active = active & (size > tol * scale) & (following > 0)
        Z, gamma, gamma_0 = P_V, following, gamma
    return X


def generalized_minimal_residuals(
    A: Block, P: Block, R: Array, scale: Array, tol: float, watch: Watch, *, restart: int = _RESTARTS[0]
) -> Array:
    """Saad and Schultz's method (GMRES) on the block as one vector, preconditioned from the right. For any A.

    The columns that have not converged, normalised, are one right-hand side: the method is then the global one, with
    the Frobenius inner product.
    """
    xp, shape, N = arrays.namespace(R), tuple(R.shape), math.prod(R.shape)
    size = norms(R)
    active = size > tol * scale
    count = int(xp.sum(arrays.cast(active, "int64")))
    if count == 0:
        return xp.zeros_like(R)
    worst, restart = largest_ratio(size, scale, active), min(N, restart, max(10, _SCRATCH // N))
    b = xp.reshape(_ratio(xp.ones_like(size), size, active) * R, (N,))  # of norm count^1/2
    reach = 0.5 * tol / max(worst, tol)  # of the whole block, so that every column gets there

    def product(y: Array) -> Array:
        return xp.reshape(A(P(xp.reshape(y, shape))), (N,))

    def grown(space: Arnoldi) -> float:
        """The residual of a space that is as large as it has to be."""
        left = math.inf
        while space.steps < restart and left > reach:
            space.extend(product)
            watch.iterations += 1
            if watch.looks or space.steps == restart:
                left = float(space.residual())
                watch.note(left / math.sqrt(count) * worst)
        return left

    y, r = xp.zeros_like(b), b
    for _ in range(max(1, min(_PATIENCE, watch.limit - watch.iterations) // restart)):
        space = Arnoldi(r, restart)
        left = grown(space)
        y = y + space.solution()
        if left <= reach:
            break
        r = b - product(y)
    return P(xp.reshape(y, shape)) * size


def long_minimal_residuals(A: Block, P: Block, R: Array, scale: Array, tol: float, watch: Watch) -> Array:
    """GMRES with as many vectors as memory allows, up to a thousand."""
    return generalized_minimal_residuals(A, P, R, scale, tol, watch, restart=_RESTARTS[1])


def _inner(U: Array, V: Array) -> Array:
    """Re <u, v> (..., 1, k) of columns."""
    xp = arrays.namespace(U)
    U = xp.conj(U) if arrays.is_complex(U) else U
    # Numpy's einsum does without a block for the product.
    total = np.einsum("...ij,...ij->...j", U, V)[..., None, :] if xp is np else xp.sum(U * V, axis=-2, keepdims=True)
    return xp.real(total) if arrays.is_complex(total) else total


def _ratio(p: Array, q: Array, where: Array) -> Array:
    """Quotients p / q where a mask says so, zero elsewhere."""
    xp = arrays.namespace(q)
    if xp is np and xp.all(where):  # as most often
        return p / q
    return xp.where(where, p, xp.zeros_like(p)) / xp.where(where, q, xp.ones_like(q))


def _root(square: Array) -> Array:
    """Square root, zero for what should not be negative."""
    xp = arrays.namespace(square)
    return xp.sqrt(xp.where(square > 0, square, xp.zeros_like(square)))
