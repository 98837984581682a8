"""Arnoldi's orthonormal basis of a Krylov space, and least residuals in it: what GMRES is made of.

    C V_j = V_{j+1} H_j,    V_j = (v_1, ..., v_j) orthonormal, v_1 = r / |r|, H_j (j + 1, j) zero below its subdiagonal

The x = V_j y of least |r - C x| has the y of least | |r| e_1 - H_j y |.

Theorem. Let g_1 = 1 and g^H H_j = 0. The least residual is |r| / |g|: what is left of |r| e_1 is its
projection on g, since the columns of H_j span all that is orthogonal to g. So a step costs one number more.
"""

from __future__ import annotations

from collections.abc import Callable

from structmask.backends import arrays
from structmask.backends.arrays import Array

_UNIT = arrays.unit_roundoff("float64")
_HUGE = 1e100  # an entry of g where the space is invariant


class Arnoldi:
    """A basis that grows by a vector a step, from a residual r (N,); the host reads nothing of it."""

    def __init__(self, r: Array, most: int) -> None:
        xp, shapes = arrays.namespace(r), ((most + 1, *r.shape), (most + 1, most), (most + 1,))
        self.V, self.H, self.g = (xp.zeros(shape, dtype=r.dtype) for shape in shapes)
        self.norm, self.steps = norm(r), 0
        self.V[0, :] = quotient(r, self.norm)
        self.g[0] = 1

    def extend(self, product: Callable[[Array], Array]) -> None:
        """One vector more, orthogonalised twice: the basis stays orthonormal to rounding."""
        j = self.steps
        w = product(self.V[j, :])
        size, V = norm(w), self.V[: j + 1, :]
        h = _products(V, w)
        w = w - h @ V
        again = _products(V, w)
        w, h = w - again @ V, h + again
        xp, following = arrays.namespace(w), norm(w)
        grows = (following > _UNIT * size) & (xp.abs(self.g[j]) < _HUGE)  # else the residual is zero to all digits
        following = xp.where(grows, following, xp.zeros_like(following))
        self.V[j + 1, :] = quotient(w, following)
        self.H[: j + 1, j], self.H[j + 1, j] = h, following
        entry = -quotient(xp.sum(self.g[: j + 1] * h), following)
        self.g[j + 1] = xp.where(following > 0, entry, xp.full_like(entry, _HUGE))
        self.steps = j + 1

    def residual(self) -> Array:
        """Norm of the least residual, on the device."""
        return self.norm / norm(self.g[: self.steps + 1])

    def solution(self) -> Array:
        """The x (N,) of least residual, by QR factors of H."""
        j, xp = self.steps, arrays.namespace(self.V)
        Q, R = xp.linalg.qr(self.H[: j + 1, :j])
        unit = xp.eye(j, dtype=R.dtype)
        size = xp.sum(xp.abs(R * unit), axis=0)
        void = size <= 16 * _UNIT * xp.max(size)  # directions that the matrix sends nowhere
        rhs = xp.where(void, xp.zeros_like(Q[0, :]), self.norm * arrays.conj(Q[0, :]))
        y = xp.linalg.solve(xp.where(void, unit, R), rhs[:, None])[:, 0]
        return y @ self.V[:j, :]


def norm(x: Array) -> Array:
    """2-norm of all entries."""
    xp = arrays.namespace(x)
    return xp.sqrt(xp.sum(xp.real(x) ** 2 + xp.imag(x) ** 2 if arrays.is_complex(x) else x * x))


def quotient(x: Array, size: Array) -> Array:
    """Entries over a number, zero where that is."""
    xp = arrays.namespace(x)
    return x * xp.where(size > 0, 1 / xp.where(size > 0, size, xp.ones_like(size)), xp.zeros_like(size))


def _products(V: Array, w: Array) -> Array:
    """V^H w for the rows of V."""
    return arrays.conj(V @ arrays.conj(w))
