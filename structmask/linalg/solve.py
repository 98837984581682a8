"""Linear systems A X = B by products with A: closed forms where the structure has one, Krylov methods otherwise.

Whatever method ran, its residual B - A X is computed afterwards, right-hand side by right-hand side. A guess about the
matrix (is it positive definite?) can therefore cost time, never a wrong answer: the next method goes on where the last
one stopped, and what is missed in the end is said by a warning.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg import krylov
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.convergence import ConvergenceWarning
from structmask.linalg.direct import Block, Solver, direct_methods
from structmask.linalg.generators import Gradients
from structmask.linalg.krylov import Method, Watch
from structmask.linalg.preconditioners import preconditioner as preconditioner_of
from structmask.linalg.spectrum import is_hermitian

_ITERATIONS = 20_000
_GAIN = 0.9  # of a residual: what another round of a method has to improve on
_FINEST = 1e-15  # tolerance of a part of a composite matrix at the least


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
    preconditioner : str, StructuredMatrix, LinearOperator, callable or None
        An approximate inverse of A for the iterations; a callable takes and returns arrays (..., n, k). By name:
        "strang", "parzen" and "chan" are inverses of circulants near composites of Toeplitz matrices, "circulant" is
        the first of them that is positive; "jacobi" divides by the diagonal; "amg" is algebraic multigrid for a Sparse
        matrix, by pyamg; "none" is None. "auto" solves without iterations where it can, and takes a circulant where
        that tells more than the diagonal does, the diagonal where it varies.
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
    Closed forms: diagonal and decay matrices, hypercubes, circulants, narrow bands, and products, Kronecker products
    and blocks of matrices, part by part. `Dense` and anything up to 512 rows is factored (a Toeplitz matrix by
    Levinson's recurrence). Otherwise conjugate gradients and then MINRES run if A is Hermitian (as far as a random
    vector tells), and restarted GMRES at last: one product an iteration, with all right-hand sides together. A positive
    definite Toeplitz matrix takes a few iterations whatever its size. A singular system without a solution is not
    solved in the sense of least squares. See Y. Saad, "Iterative Methods for Sparse Linear Systems" (2003).

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
    columns = arrays.namespace(B).broadcast_to(columns, (*batch, *columns.shape[-2:]))
    R = arrays.cast(columns, arrays.dtype_of("float64", complex_=arrays.is_complex(B) or a.dtype.kind == "c"))
    watch = Watch(callback, _ITERATIONS)
    X, left = _scaled_solution(a._placed(R), R, tol, preconditioner, watch)
    _warn_if_missed(left, tol, watch.iterations)
    X = arrays.cast_precision(X, width)
    return X[..., 0] if B.ndim == 1 else X


def solve_pullback(
    a: StructuredMatrix, x: Array, g: Array, /, *, tol: float = 1e-8, preconditioner: Any = "auto"
) -> tuple[Gradients, Array]:
    """The gradients of Re <g, x> for the solution x of A x = b: one more system, with the adjoint matrix.

    Parameters
    ----------
    a : StructuredMatrix (..., n, n)
        The matrix.
    x : array (n,) or (..., n, k)
        The solution, as `solve` gave it.
    g : array
        Cotangent of the solution, in its shape.
    tol, preconditioner
        As in `solve`, for the system A^H d_b = g. A preconditioner that is no name is for A^H.

    Returns
    -------
    gradients : dict
        For every generator of the matrix, as `StructuredMatrix.pullback` gives them.
    d_b : array
        For the right-hand side, in the shape of x: sum it over the dimensions along which b was broadcast.

    Raises
    ------
    TypeError, ValueError, numpy.linalg.LinAlgError
        As in `solve`, and ValueError if x and g differ in shape.

    Notes
    -----
    From dx = A^-1 (db - dA x): d_b = A^-H g, and the generators have the gradient of Re <-d_b, A x> with x held fixed.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Diagonal, solve, solve_pullback
    >>> a = Diagonal([2.0, 4.0])
    >>> gradients, d_b = solve_pullback(a, solve(a, np.ones(2)), np.ones(2))
    >>> gradients["d"], d_b  # of 1 / d, and of b / d
    (array([-0.25  , -0.0625]), array([0.5 , 0.25]))
    """
    _checked(a, g, tol)
    x, g = arrays.as_arrays(("x", x), ("g", g))
    if tuple(x.shape) != tuple(g.shape):
        msg = f"solve_pullback needs a cotangent in the shape {tuple(x.shape)} of the solution, got {tuple(g.shape)}"
        raise ValueError(msg)
    d_b = solve(a.mH, g, tol=tol, preconditioner=preconditioner)
    return a.pullback(-d_b, x), d_b


# --- methods in turn --------------------------------------------------------------------------------------------------


def _solution(a: StructuredMatrix, B: Array, tol: float, given: Any, watch: Watch) -> tuple[Array, Array]:
    """X and the norms of its residuals: each method improves on what the last one left, while it makes progress."""
    xp, scale = arrays.namespace(B), krylov.norms(B)
    X, R, left = None, B, scale
    for method in _methods(a, B, scale, tol, given, watch):
        watch.start(arrays.home(B))
        while xp.any(left > tol * scale) and not watch.is_over:
            step = method(R)
            new = step if X is None else X + step
            remaining = B - a._product(new)
            size = krylov.norms(remaining)
            better = size < left  # false where a method broke down
            moved = xp.any((size < _GAIN * left) & (left > tol * scale))
            if not xp.all(better):
                old = xp.zeros_like(B) if X is None else X
                new, remaining, size = (xp.where(better, *pair) for pair in ((new, old), (remaining, R), (size, left)))
            X, R, left = new, remaining, size
            if not moved:
                break
        if not xp.any(left > tol * scale):
            break
    return xp.zeros_like(B) if X is None else X, left


def _methods(a: StructuredMatrix, B: Array, scale: Array, tol: float, given: Any, watch: Watch) -> Iterator[Block]:
    """Functions of a residual that approximate A^-1: direct ones unless a preconditioner is asked for, then Krylov's.

    Conjugate gradients notice soon that a matrix is indefinite; MINRES takes those; GMRES takes every matrix.
    """
    if isinstance(given, str) and given == "auto":
        found, is_enough = direct_methods(a, B, _part_solver(tol))
        yield from found
        if is_enough:
            return
    hermitian = is_hermitian(a)
    P = preconditioner_of(a, given, hermitian=hermitian)
    steps: tuple[Method, ...] = (krylov.generalized_minimal_residuals, krylov.long_minimal_residuals)
    if hermitian:
        steps = krylov.conjugate_gradients, krylov.minimal_residuals, krylov.generalized_minimal_residuals
    for step in steps:
        yield lambda R, step=step: step(a._product, P, R, scale, tol, watch)  # type: ignore[misc]


def _part_solver(tol: float) -> Solver:
    """What solves with the parts of a composite matrix, a digit better than the whole needs."""

    def solver(part: StructuredMatrix, B: Array) -> Array:
        kind = arrays.dtype_of("float64", complex_=arrays.is_complex(B) or part.dtype.kind == "c")
        return _scaled_solution(part, arrays.cast(B, kind), max(tol / 10, _FINEST), "auto", Watch(None, _ITERATIONS))[0]

    return solver


def _scaled_solution(a: StructuredMatrix, B: Array, tol: float, given: Any, watch: Watch) -> tuple[Array, Array]:
    """X and its relative residuals, with columns of norm one inside: a transform takes several columns at once."""
    if 0 in B.shape:
        return B, krylov.norms(B)
    xp, size = arrays.namespace(B), krylov.norms(B)
    size = xp.where(size > 0, size, xp.ones_like(size))
    X, left = _solution(a, B / size, tol, given, watch)
    return size * X, left


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


def _warn_if_missed(left: Array, tol: float, iterations: int) -> None:
    xp = arrays.namespace(left)
    missed = ~(left <= tol)  # not a number is missed, too
    count = int(xp.sum(arrays.cast(missed, "int64")))
    if count == 0:
        return
    count_all, worst = math.prod(left.shape), float(xp.max(left))
    msg = (
        f"solve: the relative residual is {worst:.1e} after {iterations} iterations, above tol={tol:.1e}, for {count} "
        f"of {count_all} right-hand sides; the matrix is singular or ill-conditioned: raise tol, or pass a "
        "preconditioner"
    )
    warnings.warn(msg, ConvergenceWarning, stacklevel=3)
