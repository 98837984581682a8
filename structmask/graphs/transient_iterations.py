"""Iterations for the systems of `transient`, cheapest first, by structure or by the name of a preconditioner.

    name            reversible: conjugate gradients             otherwise: stabilised biconjugate gradients
    jacobi          the diagonal                                the same
    elimination     random elimination, symmetric               elimination on the pattern of the steps alone
    amg             smoothed aggregation, by pyamg              the same, with GMRES
    auto            jacobi, aggregates, random elimination      jacobi; elimination: complete, or incomplete

Each returns X with the largest residual, weighted, that it knows of, or None where it cannot start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.graphs.elimination import incomplete_factor
from structmask.linalg import krylov
from structmask.linalg.elementary import Sparse
from structmask.linalg.preconditioners import Block
from structmask.linalg.preconditioners import preconditioner as preconditioner_of

if TYPE_CHECKING:
    from structmask.graphs.transient import TransientSystem


class Asked(NamedTuple):
    """M X = B, or M^T X = B, for B (n, k), until |B - M X| weights (n, k) are at most `tol`."""

    B: Array
    weights: Array
    tol: float
    transposed: bool


Found: TypeAlias = tuple[Array, float] | None
Way: TypeAlias = "Callable[[TransientSystem, Asked], Found]"

NAMES = ("auto", "jacobi", "elimination", "amg")
_LAPLACIAN = {"auto": "jacobi", "jacobi": "jacobi", "elimination": "cholesky"}
_ROUNDS = 30
_TRIAL, _STEPS = 25, 1000  # steps with the diagonal as preconditioner at first, and of any way in all
_RESTARTS = 4
_STALLED = 0.9  # of a residual: what a round has to improve on
_PROMISING = 1e-3  # residual after the first round with which to go on


def as_preconditioner(name: Any, /) -> str:
    """The name of a preconditioner, checked."""
    if name not in NAMES:
        msg = f"preconditioner must be one of {', '.join(map(repr, NAMES))}, got {name!r}"
        raise ValueError(msg)
    return str(name)


def ways(name: str, home: str, *, is_reversible: bool) -> tuple[Way, ...]:
    """What to try in turn."""
    if name == "amg" or home != "numpy" or get_backend() == "numpy":
        return (by_blocks,)
    if is_reversible:
        return (by_gradients, by_complete) if name == "auto" else (by_gradients,)
    both = {"jacobi": (by_diagonal,), "elimination": (by_incomplete,)}
    return both.get(name, (by_diagonal, by_complete, by_incomplete))


def by_complete(system: TransientSystem, asked: Asked) -> Found:
    """A complete factor after all, where it does not fill in."""
    factor = system.complete
    return None if factor is None else (factor.solve(asked.B, transposed=asked.transposed), 0.0)


def by_gradients(system: TransientSystem, asked: Asked) -> Found:
    """S x = m b with S = diag(m) M; for the transpose S z = b, x = m z."""
    B, weights, tol, transposed = asked
    m: Any = system.measure[:, None]  # type: ignore[index]
    laplacian = system.laplacian
    if system.preconditioner != "auto":
        laplacian.keep(_LAPLACIAN[system.preconditioner])
    given, scaled = (B, weights) if transposed else (m * B, weights / m)
    X, worst = laplacian.solve(given, scaled, tol)
    return (m * X if transposed else X), worst


def by_diagonal(system: TransientSystem, asked: Asked) -> Found:
    """With the diagonal as preconditioner, as long as that is promising or all that is asked for."""
    B, weights, tol, transposed = asked
    nothing = np.zeros(system.size + 1, np.int64), np.empty(0, np.int32), np.empty(0), np.empty(0)
    factor, X, matrix = (*nothing, system.diagonal), np.zeros_like(B), _matrix(system, transposed=transposed)
    size = _stabilized(matrix, factor, B, X, weights, tol, _TRIAL)
    if tol < size and (size <= _PROMISING or system.preconditioner == "jacobi"):
        size = _stabilized(matrix, factor, B, X, weights, tol, _STEPS)
    return X, size


def by_incomplete(system: TransientSystem, asked: Asked) -> Found:
    """With an incomplete elimination as preconditioner, everything in its order."""
    B, weights, tol, transposed = asked
    factor, X = incomplete_factor(system.A, system.leak), np.zeros_like(B)
    lower, upper = (factor.upper, factor.lower) if transposed else (factor.lower, factor.upper)
    parts, o = (factor.indptr, factor.pattern, lower, upper, factor.pivots), factor.order
    Y, matrix = np.zeros_like(B), _matrix(system, transposed=transposed)[o][:, o]
    size = _stabilized(matrix, parts, B[o], Y, weights[o], tol, _STEPS)
    X[o] = Y
    return X, size


def by_blocks(system: TransientSystem, asked: Asked) -> Found:
    """Methods on blocks, started anew until every row is right or nothing moves: of the reference, a device, multigrid.

    With the diagonal or multigrid's cycles; conjugate gradients where the matrix is made symmetric for these.
    """
    B, weights, tol, transposed = asked
    xp, home = arrays.namespace(B), arrays.home(B)
    method, A, P, scale = _block_method(system, home, transposed=transposed)
    R, X, reach, worst = B, xp.zeros_like(B), tol, np.inf
    norm = krylov.norms(scale * B)
    norm = xp.where(norm > 0, norm, xp.ones_like(norm))
    for _ in range(_ROUNDS):
        before, watch = float(xp.max(krylov.norms(R))), krylov.Watch(None, _STEPS)
        watch.start(home)
        X = X + method(A, P, scale * R, norm, reach, watch)
        R = B - system.product(X, transposed=transposed)
        worst = float(xp.max(xp.abs(R) * weights))
        if worst <= tol or reach < tol / 100:
            break
        if float(xp.max(krylov.norms(R))) > _STALLED * before:  # its own criterion, a norm, is met
            reach /= 10
    return X, worst


def _block_method(system: TransientSystem, home: str, *, transposed: bool) -> tuple[Any, Block, Block, Array]:
    """A method, the matrix diag(scale) M as a product, its approximate inverse, and the scale (n, 1)."""
    m = None if transposed else system.measure
    xp = arrays.namespace_called(home)
    scale = (xp.ones(system.size) if m is None else arrays.placed(system, "measure", home))[:, None]
    method = krylov.generalized_minimal_residuals if m is None else krylov.conjugate_gradients

    def product(X: Array) -> Array:
        return scale * system.product(X, transposed=transposed)

    if system.preconditioner != "amg":
        d = scale * arrays.placed(system, "diagonal", home)[:, None]
        return method, product, (lambda R: R / d), scale
    matrix = scipy.sparse.csr_array(scipy.sparse.diags_array(scale[:, 0]) @ _matrix(system, transposed=transposed))
    return method, product, preconditioner_of(Sparse(matrix), "amg", hermitian=m is not None), scale


def _matrix(system: TransientSystem, *, transposed: bool) -> Any:
    M = scipy.sparse.csr_array(scipy.sparse.diags_array(system.diagonal) - system.A)
    return M.T.tocsr() if transposed else M


def _stabilized(matrix: Any, factor: Any, B: Array, X: Array, weights: Array, tol: float, limit: int) -> float:
    """Improve the columns of X; the largest residual, row by row."""
    from structmask.backends._numba.stabilized import stabilized

    parts, worst = (matrix.indptr, matrix.indices, matrix.data), 0.0
    for c in range(B.shape[1]):
        b, x, weight = (np.ascontiguousarray(part[:, c]) for part in (B, X, weights))
        for _ in range(_RESTARTS):  # the recurrence drifts: the true residual is where the next round starts
            steps, _ = stabilized(parts, factor, b, x, weight, tol, limit)
            if steps in (0, limit):
                break
        _, size = stabilized(parts, factor, b, x, weight, tol, 0)
        X[:, c], worst = x, max(worst, size)
    return worst
