"""Preconditioners by name: approximate inverses that make the eigenvalues of P A cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import LinearOperator

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.circulant_preconditioner import WINDOWS, circulant_inverse
from structmask.linalg.direct import divided
from structmask.linalg.toeplitz import Toeplitz

Block: TypeAlias = Callable[[Array], Array]

NAMES = ("auto", "circulant", *WINDOWS, "jacobi", "amg", "none")
_VARIED = 1.1  # ratio of diagonal entries from which dividing by them pays


def preconditioner(a: StructuredMatrix, given: Any, *, hermitian: bool) -> Block:
    """The function of blocks (..., n, k) that a preconditioner given to `solve` means."""
    if given is None or (isinstance(given, str) and given == "none"):
        return lambda R: R
    if isinstance(given, str):
        return _named(a, given, hermitian=hermitian)
    if isinstance(given, StructuredMatrix):
        _check_shape(a, given.shape[-2:])
        return lambda R: given @ R
    if isinstance(given, LinearOperator):
        _check_shape(a, given.shape)
        return lambda R: _on_host(given, R)
    if callable(given):
        return given  # type: ignore[no-any-return]
    msg = (
        f"preconditioner must be {', '.join(map(repr, NAMES))}, None, a StructuredMatrix, a LinearOperator or a "
        f"callable, got {type(given).__name__}"
    )
    raise TypeError(msg)


def _named(a: StructuredMatrix, name: str, *, hermitian: bool) -> Block:
    if name == "auto":
        return _automatic(a, hermitian=hermitian)
    if name == "jacobi":
        d = a.diagonal()
        return lambda R: divided(R, d)
    if name == "amg":
        return _multigrid(a, hermitian=hermitian)
    if name not in NAMES:
        msg = f"unknown preconditioner {name!r}; choose {', '.join(map(repr, NAMES))}, None or an approximate inverse"
        raise ValueError(msg)
    found = circulant_inverse(a, WINDOWS if name == "circulant" else (name,), hermitian=hermitian)
    if found is None:
        msg = (
            f"{a!r} has no circulant near it: {name!r} takes Toeplitz, Band and similar matrices and their sums, "
            "products and Kronecker products, also with diagonal and low-rank matrices; choose 'auto'"
        )
        raise ValueError(msg)
    return found[0]


def _automatic(a: StructuredMatrix, *, hermitian: bool) -> Block:
    """A circulant unless the diagonal varies more than the spectrum of it, the diagonal where there is no circulant."""
    d = a.diagonal() if a.has_entries and not isinstance(a, Toeplitz) else None
    found = circulant_inverse(a, WINDOWS, hermitian=hermitian)
    if found is not None and (d is None or _spread(d) <= found[1]):
        return found[0]
    return (lambda R: R) if d is None else _jacobi(d, hermitian=hermitian)


def _spread(d: Array) -> float:
    """Difference of the largest and the smallest real part."""
    xp = arrays.namespace(d)
    real = xp.real(d) if arrays.is_complex(d) else d
    return float(xp.max(real)) - float(xp.min(real))


def _jacobi(d: Array, *, hermitian: bool) -> Block:
    """Division by a diagonal that varies; not by one that is not positive if the matrix is Hermitian."""
    xp = arrays.namespace(d)
    size = xp.abs(d)
    is_useful = bool(xp.min(size) > 0) and bool(xp.max(size) > _VARIED * xp.min(size))
    real = xp.real(d) if arrays.is_complex(d) else d
    if not is_useful or (hermitian and bool(xp.any(real <= 0))):
        return lambda R: R
    return lambda R: R / d[..., None]


def _multigrid(a: StructuredMatrix, *, hermitian: bool) -> Block:
    """A cycle of smoothed aggregation, by pyamg."""
    try:
        import pyamg
    except ModuleNotFoundError as error:
        msg = "preconditioner='amg' needs pyamg; pip install 'structmask[amg]', or choose 'jacobi'"
        raise ModuleNotFoundError(msg) from error
    csr = getattr(a, "csr", None)
    if csr is None or arrays.home(csr) != "numpy":
        msg = f"algebraic multigrid needs a Sparse matrix on the host, got {a!r}; choose 'auto'"
        raise TypeError(msg)
    matrix = scipy.sparse.csr_matrix((csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32)), csr.shape)
    kind = "hermitian" if hermitian else "nonsymmetric"
    levels = pyamg.smoothed_aggregation_solver(matrix, symmetry=kind)
    return lambda R: _on_host(levels.aspreconditioner(), R)


def _on_host(operator: LinearOperator, R: Array) -> Array:
    """A scipy operator on every matrix of a block: its columns side by side."""
    host = np.moveaxis(arrays.to_numpy(R), -2, 0)
    Y = operator.matmat(host.reshape(host.shape[0], -1)).reshape(host.shape)
    return arrays.move(np.ascontiguousarray(np.moveaxis(Y, 0, -2)), arrays.home(R))


def _check_shape(a: StructuredMatrix, shape: Any) -> None:
    if tuple(shape) != a.shape[-2:]:
        msg = f"the preconditioner has shape {tuple(shape)}, but the matrix is {a!r}"
        raise ValueError(msg)
