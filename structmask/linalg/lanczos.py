"""Lanczos's method for f(A) X with a certificate, for completely monotone f and A with eigenvalues >= 0.

A V = V T + beta v e_m^T with T tridiagonal (m x m), V e_1 = x / |x|: then f(A) x ~ |x| V f(T) e_1. For a mixture
f(x) = int exp(-s x) dmu(s) of decaying exponentials the error is at most

    |x| beta |e_m^T g(T) e_1|,   g(x) = (f(0) - f(x)) / x,

which is known when the method stops. It needs nothing of V but the recurrence: lost orthogonality does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, eigh_tridiagonal

from structmask.backends.arrays import Array, blocks, cast, dtype_name
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.planning import Work

MOST_STEPS = 400
_BASIS = 1 << 25  # numbers of all vectors of a block


class Monotone(NamedTuple):
    """A completely monotone function f of eigenvalues, and its decline (f(0) - f(x)) / x."""

    f: Callable[[Array], Array]
    decline: Callable[[Array], Array]


def lanczos_function(A: StructuredMatrix, function: Monotone, X: Array, tol: float, limit: int) -> Array | None:
    """f(A) X to an error of tol |x| in every column of X (n, q), on the host; None if `limit` steps do not suffice."""
    n, q = X.shape
    parts = []
    for a, b in blocks(q, max(1, _BASIS // (n * limit))):
        part = _block(A, function, X[:, a:b], tol, limit)
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts, axis=1)


def lanczos_steps(A: StructuredMatrix, function: Monotone, tol: float, limit: int) -> int | None:
    """Steps that a random vector takes: what a product is expected to take. None if they are more than `limit`."""
    x = np.random.default_rng(0).standard_normal((A.shape[-1], 1))
    for m, (_, alpha, beta) in enumerate(_steps(A, cast(x, A.dtype.name), limit), start=1):
        if _is_checked(m) and _coefficients(function, alpha, beta, tol) is not None:
            return m
    return None


def lanczos_work(A: StructuredMatrix, steps: int, columns: int) -> Work:
    """Cost of so many steps with so many columns."""
    vectors = A.dtype.itemsize * A.shape[-1] * columns
    return (A._work(columns) + Work(bytes=14.0 * vectors, calls=4.0)) * steps + Work(scan=20.0 * columns * steps**2)


def _block(A: StructuredMatrix, function: Monotone, X: Array, tol: float, limit: int) -> Array | None:
    basis: list[Array] = []
    for m, (v, alpha, beta) in enumerate(_steps(A, X, limit), start=1):
        basis.append(v)
        if not _is_checked(m):
            continue
        y = _coefficients(function, alpha, beta, tol)
        if y is not None:
            size, Y = np.linalg.norm(X, axis=0), np.zeros_like(X)
            for row, vectors in zip(y, basis, strict=True):
                Y += vectors * cast(row * size, size.dtype.name)
            return Y
    return None


def _steps(A: StructuredMatrix, X: Array, limit: int) -> Iterator[tuple[Array, Array, Array]]:
    """v_m of every column, and the entries alpha_1 ... alpha_m, beta_1 ... beta_m of its tridiagonal matrix."""
    v, before = _normalised(X, np.linalg.norm(X, axis=0)), np.zeros_like(X)
    alphas: list[Array] = []
    betas: list[Array] = []
    for _ in range(limit):
        w = A._product(v)
        if betas:
            w -= before * cast(betas[-1], _real_name(X))
        alpha = np.sum(v.real * w.real + v.imag * w.imag if np.iscomplexobj(w) else v * w, axis=0)
        w -= v * alpha
        beta = np.linalg.norm(w, axis=0)
        alphas.append(alpha.astype(np.float64))
        betas.append(beta.astype(np.float64))
        yield v, np.stack(alphas), np.stack(betas)
        v, before = _normalised(w, beta), v


def _normalised(X: Array, size: Array) -> Array:
    """Columns divided by their sizes; a column of zeros stays."""
    return X * np.divide(1, size, out=np.zeros_like(size), where=size > 0)


def _is_checked(m: int) -> bool:
    """Steps 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: the eigenvalues of T are not free."""
    return m >= 4 and m % (1 << (m.bit_length() - 3)) == 0


def _coefficients(function: Monotone, alpha: Array, beta: Array, tol: float) -> Array | None:
    """f(T) e_1 (m, q) if the certificate is below tol for every column."""
    y = np.empty_like(alpha)
    for column in range(alpha.shape[1]):
        theta, S = _eigenpairs(alpha[:, column], beta[:-1, column])
        theta = np.maximum(theta, 0.0)  # what is below zero is rounding
        error = beta[-1, column] * abs(S[-1] @ (function.decline(theta) * S[0]))
        if not error <= tol:
            return None
        y[:, column] = S @ (function.f(theta) * S[0])
    return y


def _eigenpairs(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of T, by QR steps where the faster representations of LAPACK's stemr do not converge."""
    try:
        return eigh_tridiagonal(alpha, beta)
    except LinAlgError:
        return eigh_tridiagonal(alpha, beta, lapack_driver="stev")


def _real_name(X: Array) -> str:
    return {"complex64": "float32", "complex128": "float64"}.get(dtype_name(X), dtype_name(X))
