"""Linear systems A X = B by products with A: closed forms where the structure has one, Krylov methods otherwise.

Whatever method ran, its residual B - A X is computed afterwards, right-hand side by right-hand side. A guess about the
matrix (is it positive definite?) can therefore cost time, never a wrong answer: the next method goes on where the last
one stopped, and what is missed in the end is said by a warning.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg import krylov
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.causal import Causal
from structmask.linalg.convergence import ConvergenceWarning
from structmask.linalg.elementary import Dense, Diagonal
from structmask.linalg.krylov import Block, Method, Watch
from structmask.linalg.spectrum import is_hermitian

_DENSE = 512  # rows up to which a matrix is formed and factored
_ITERATIONS = 20_000
_GAIN = 0.9  # of a residual: what another round of a method has to improve on


def solve(
    a: StructuredMatrix,
    b: Array,
    /,
    *,
    tol: float = 1e-8,
    preconditioner: Any = "auto",
    callback: Callable[[int, float], object] | None = None,
) -> Array:
    """The solution x of A x = b.

    Parameters
    ----------
    a : StructuredMatrix (..., n, n)
        Any square structured matrix. Batch dimensions broadcast with those of b.
    b : array (n,) or (..., n, k)
        One right-hand side, or k of them.
    tol : float
        Relative residual to reach: ||b - A x|| <= tol ||b|| in the 2-norm for every right-hand side.
    preconditioner : {"auto", "jacobi"}, None, StructuredMatrix, LinearOperator or callable
        An approximate inverse of A; a callable takes and returns arrays (..., n, k). "jacobi" divides by the diagonal;
        "auto" does so where entries are cheap and the diagonal varies (and is positive if A is Hermitian).
    callback : callable, optional
        ``callback(iteration, residual)`` after each iteration, with the largest relative residual that the iteration
        knows of. Direct solutions call nothing.

    Returns
    -------
    array
        In the shape of b with the batch dimensions broadcast, and in its precision (complex if either is). Iterations
        run in double precision.

    Raises
    ------
    TypeError
        If `a` is no structured matrix, or for an unknown kind of preconditioner.
    ValueError
        If shapes do not match, b is not finite, or tol is not positive.
    numpy.linalg.LinAlgError
        If the matrix is not square, or a matrix that is solved directly is singular.

    Warns
    -----
    ConvergenceWarning
        If a right-hand side misses `tol`; the best x found is returned.

    Notes
    -----
    `Diagonal` and `Causal` have closed forms; `Dense` and anything up to 512 rows is factored. Otherwise conjugate
    gradients and then MINRES run if A is Hermitian (as far as a random vector tells), and restarted GMRES at last: one
    product an iteration, with all right-hand sides together. A singular system without a solution is not solved in the
    sense of least squares. See Y. Saad, "Iterative Methods for Sparse Linear Systems" (2003).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Toeplitz, solve
    >>> a = Toeplitz(0.5 ** np.abs(np.arange(-999, 1000)))
    >>> x = solve(a, np.ones(1000))
    >>> bool(np.linalg.norm(a @ x - 1) <= 1e-8 * np.sqrt(1000))
    True
    """
    B = _checked(a, b, tol)
    width, columns = arrays.precision(B), B[:, None] if B.ndim == 1 else B
    batch = a._broadcast_batch(columns)
    xp = arrays.namespace(B)
    columns = xp.broadcast_to(columns, (*batch, *columns.shape[-2:]))
    kind = arrays.dtype_of("float64", complex_=arrays.is_complex(B) or a.dtype.kind == "c")
    R = arrays.cast(columns, kind)
    size = krylov.norms(R)
    size = xp.where(size > 0, size, xp.ones_like(size))  # columns of one size: a transform takes several at once
    X = R if 0 in R.shape else size * _solution(a._placed(R), R / size, tol, preconditioner, callback)
    X = arrays.cast_precision(X, width)
    return X[..., 0] if B.ndim == 1 else X


def _solution(
    a: StructuredMatrix, B: Array, tol: float, preconditioner: Any, callback: Callable[[int, float], object] | None
) -> Array:
    X, watch = _closed_form(a, B), Watch(callback, _ITERATIONS)
    if X is None:
        X = _iterated(a, B, tol, _preconditioner(a, B, preconditioner), watch)
    _warn_if_missed(a, X, B, tol, watch.iterations)
    return X


# --- what the structure knows better ----------------------------------------------------------------------------------


def _closed_form(a: StructuredMatrix, B: Array) -> Array | None:
    """The solution where a structure has one of its own, None otherwise."""
    match a:
        case Diagonal():
            return _divided(B, a.d)
        case Causal():
            return _difference(a, B)
    if isinstance(a, Dense) or a.shape[-1] <= _DENSE:
        return _factored(a.to_dense(), B)
    return None


def _divided(B: Array, d: Array) -> Array:
    xp = arrays.namespace(B)
    if bool(xp.any(d == 0)):
        msg = "Singular matrix: the diagonal has a zero"
        raise np.linalg.LinAlgError(msg)
    return B / d[..., None]


def _difference(a: Causal, B: Array) -> Array:
    """y_i = x_i + decay_i y_{i-1} read backwards: x_i = y_i - decay_i y_{i-1}."""
    xp, decay = arrays.namespace(B), a.decays(B)[..., 1:, None]
    if a.upper:
        return xp.concat([B[..., :-1, :] - decay * B[..., 1:, :], B[..., -1:, :]], axis=-2)
    return xp.concat([B[..., :1, :], B[..., 1:, :] - decay * B[..., :-1, :]], axis=-2)


def _factored(A: Array, B: Array) -> Array:
    """LU with partial pivoting; one matrix for a whole batch of right-hand sides is factored once."""
    xp, n = arrays.namespace(B), A.shape[-1]
    A, B = arrays.as_same_kind(A, B)
    if A.ndim == 2 and B.ndim > 2:
        beside = xp.moveaxis(B, -2, 0)
        return xp.moveaxis(xp.reshape(_factored(A, xp.reshape(beside, (n, -1))), beside.shape), 0, -2)
    X = xp.linalg.solve(xp.broadcast_to(A, (*B.shape[:-2], n, n)), B)
    if not bool(xp.all(xp.isfinite(X))):
        msg = "Singular matrix: its factorisation has a zero pivot"
        raise np.linalg.LinAlgError(msg)
    return X


# --- iterations -------------------------------------------------------------------------------------------------------


def _iterated(a: StructuredMatrix, B: Array, tol: float, P: Block, watch: Watch) -> Array:
    """Each method in turn improves on what the last one left, for as long as it makes progress."""
    xp, scale = arrays.namespace(B), krylov.norms(B)
    X, R = xp.zeros_like(B), B
    for method in _methods(a):
        watch.start()
        while True:
            left = krylov.norms(R)
            if not xp.any(left > tol * scale):
                return X
            step = method(a._product, P, R, scale, tol, watch)
            remaining = B - a._product(X + step)
            better = krylov.norms(remaining) < left  # false where a method broke down
            X, R = xp.where(better, X + step, X), xp.where(better, remaining, R)
            open_ = left > tol * scale
            if watch.is_over or not xp.any((krylov.norms(R) < _GAIN * left) & open_):
                break
    return X


def _methods(a: StructuredMatrix) -> tuple[Method, ...]:
    """Conjugate gradients notice soon that a matrix is indefinite; MINRES takes those; GMRES takes every matrix."""
    if is_hermitian(a):
        return krylov.conjugate_gradients, krylov.minimal_residuals, krylov.generalized_minimal_residuals
    return krylov.generalized_minimal_residuals, krylov.long_minimal_residuals


def _preconditioner(a: StructuredMatrix, B: Array, given: Any) -> Block:
    if given is None:
        return lambda R: R
    if isinstance(given, str):
        return _jacobi(a, B, given)
    if isinstance(given, StructuredMatrix):
        _check_shape(a, given.shape[-2:])
        return lambda R: given @ R
    if isinstance(given, LinearOperator):
        _check_shape(a, given.shape)
        return lambda R: _on_host(given, R)
    if callable(given):
        return given  # type: ignore[no-any-return]
    msg = (
        f"preconditioner must be 'auto', 'jacobi', None, a StructuredMatrix, a LinearOperator or a callable, got "
        f"{type(given).__name__}"
    )
    raise TypeError(msg)


def _jacobi(a: StructuredMatrix, B: Array, name: str) -> Block:
    if name not in ("auto", "jacobi"):
        msg = f"unknown preconditioner {name!r}; choose 'auto', 'jacobi', None or an approximate inverse"
        raise ValueError(msg)
    if name == "auto" and not a.has_entries:
        return lambda R: R
    d, xp = a.diagonal(), arrays.namespace(B)
    if name == "jacobi":
        return lambda R: _divided(R, d)
    size = xp.abs(d)
    is_useful = bool(xp.min(size) > 0) and bool(xp.max(size) > 1.1 * xp.min(size))
    real = xp.real(d) if arrays.is_complex(d) else d
    if not is_useful or (bool(xp.any(real <= 0)) and is_hermitian(a)):
        return lambda R: R
    return lambda R: R / d[..., None]


def _on_host(operator: LinearOperator, R: Array) -> Array:
    """A scipy operator on every matrix of a block: its columns side by side."""
    host = np.moveaxis(arrays.to_numpy(R), -2, 0)
    Y = operator.matmat(host.reshape(host.shape[0], -1)).reshape(host.shape)
    return arrays.move(np.ascontiguousarray(np.moveaxis(Y, 0, -2)), arrays.home(R))


# --- arguments and the verdict ----------------------------------------------------------------------------------------


def _checked(a: Any, b: Any, tol: float) -> Array:
    """The right-hand sides, once everything fits."""
    if not isinstance(a, StructuredMatrix):
        msg = f"solve takes a StructuredMatrix, got {type(a).__name__}; wrap it: Dense(x) or Sparse(x)"
        raise TypeError(msg)
    if a.shape[-2] != a.shape[-1]:
        msg = f"solve needs a square matrix, got {a!r}"
        raise np.linalg.LinAlgError(msg)
    if not 0 < tol < math.inf:
        msg = f"tol must be positive and finite, got {tol!r}"
        raise ValueError(msg)
    B, n = arrays.as_operand(b, "the right-hand side"), a.shape[-1]
    if B.ndim == 0 or B.shape[-2 if B.ndim > 1 else 0] != n:
        msg = f"solve with {a!r} needs right-hand sides ({n},) or (..., {n}, k), got shape {tuple(B.shape)}"
        raise ValueError(msg)
    xp = arrays.namespace(B)
    if not bool(xp.all(xp.isfinite(B))):
        msg = "the right-hand side has entries that are not finite"
        raise ValueError(msg)
    return B


def _check_shape(a: StructuredMatrix, shape: Any) -> None:
    if tuple(shape) != a.shape[-2:]:
        msg = f"the preconditioner has shape {tuple(shape)}, but the matrix is {a!r}"
        raise ValueError(msg)


def _warn_if_missed(a: StructuredMatrix, X: Array, B: Array, tol: float, iterations: int) -> None:
    xp, scale = arrays.namespace(B), krylov.norms(B)
    left = krylov.norms(B - a._product(X))
    missed = ~(left <= tol * scale)  # not a number is missed, too
    count = int(xp.sum(arrays.cast(missed, "int64")))
    if count == 0:
        return
    worst = krylov.largest_ratio(left, scale, missed & (scale > 0))
    msg = (
        f"solve: the relative residual is {worst:.1e} after {iterations} iterations, above tol={tol:.1e}, for "
        f"{count} of {math.prod(scale.shape)} right-hand sides; the matrix is singular or ill-conditioned: raise tol, "
        "or pass a preconditioner"
    )
    warnings.warn(msg, ConvergenceWarning, stacklevel=4)
