"""Graph Laplacians, and a rigorous bound of their largest eigenvalue.

W is symmetric with entries >= 0, d = W 1 are the degrees, D = diag(d). The three kinds are

    combinatorial   L = D - W                      <x, L x> = sum over edges of W_ij (x_i - x_j)^2
    symmetric       L = I - D^-1/2 W D^-1/2        spectrum in [0, 2]
    random_walk     L = I - D^-1 W                 similar to the symmetric one, L 1 = 0

A node without edges has a zero row and column in each: nothing flows there. Loops count in the degree, so that they
drop out of D - W and make the walk of the other two stay.

Theorem (Collatz-Wielandt). For every x > 0 the largest eigenvalue of D - W is at most max_i ((D + W) x)_i / x_i.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import undirected

Kind: TypeAlias = Literal["combinatorial", "symmetric", "random_walk"]

_STEPS = 12  # of the power iteration: a few make the bound tight on hubs
_SMALLEST = 1e-100  # of a positive vector, relative to its largest entry


def laplacian(graph: Any, /, *, kind: Kind = "combinatorial") -> Any:
    """Laplacian matrix of an undirected graph.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights. Parallel edges add up.
    kind : {"combinatorial", "symmetric", "random_walk"}
        D - W, I - D^-1/2 W D^-1/2 or I - D^-1 W. Rows and columns of isolated nodes are zero.

    Returns
    -------
    csr_array (n, n)
        With the whole diagonal stored, in the precision of the weights.

    Raises
    ------
    ValueError
        If weights are negative, the graph is directed, or the kind unknown.

    See Also
    --------
    spectral_bound : A number that no eigenvalue exceeds; none is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import laplacian
    >>> W = np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    >>> laplacian(W).toarray()
    array([[ 2., -2.,  0.],
           [-2.,  3., -1.],
           [ 0., -1.,  1.]])
    """
    check_kind(kind)
    return adjacency_laplacian(undirected(graph, "a graph Laplacian"), kind)


def spectral_bound(graph: Any, /, *, kind: Kind = "combinatorial") -> float:
    """A number that no eigenvalue of a graph's Laplacian exceeds, rounding included.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights.
    kind : {"combinatorial", "symmetric", "random_walk"}
        For the last two it is 2, which graphs with two-coloured components attain.

    Returns
    -------
    float
        At most max_{i ~ j} d_i + d_j, and within a few per cent of the largest eigenvalue where hubs dominate.

    Notes
    -----
    L = D - W and Q = D + W satisfy |<x, L x>| <= <|x|, Q |x|>, and the largest eigenvalue of the non-negative Q is at
    most max_i (Q x)_i / x_i for every positive x (Collatz and Wielandt). x = 1, Q 1, Q^2 1, ... give a falling sequence
    of such bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import spectral_bound
    >>> star = np.zeros((5, 5))
    >>> star[0, 1:] = star[1:, 0] = 1.0
    >>> values = np.linalg.eigvalsh(np.diag(star.sum(axis=0)) - star)
    >>> round(spectral_bound(star), 3), float(round(values[-1], 3))
    (5.0, 5.0)
    """
    check_kind(kind)
    return adjacency_bound(undirected(graph, "a graph Laplacian"), kind)


def adjacency_laplacian(W: Any, kind: Kind) -> Any:
    """As `laplacian`, for an adjacency matrix that is symmetric and non-negative."""
    if kind == "combinatorial":
        W = without_loops(W)
        return _difference(degrees(W), W)
    d = degrees(W)
    left, right = (inverse_root(d),) * 2 if kind == "symmetric" else (_inverse(d), np.ones_like(d))
    return _difference((d > 0).astype(d.dtype), _scaled(W, left, right))


def adjacency_bound(W: Any, kind: Kind) -> float:
    """As `spectral_bound`, for an adjacency matrix that is symmetric and non-negative."""
    if kind != "combinatorial":
        return 2.0
    W = without_loops(W).astype(np.float64)
    d = degrees(W)
    if not d.any():
        return 2.0  # the matrix is zero: any positive number will do
    top = 1 + 4 * arrays.unit_roundoff("float64") * (2 + int(np.diff(W.indptr).max()))
    x, bound = np.ones(W.shape[0]), np.inf
    for _ in range(_STEPS):
        image = d * x + W @ x
        bound = min(bound, float(np.max(image / x)))
        x = np.maximum(image / image.max(), _SMALLEST)
    return bound * top


# --- parts ------------------------------------------------------------------------------------------------------------


def check_kind(kind: Any) -> None:
    """Refuses what is no kind of Laplacian."""
    if kind not in get_args(Kind):
        msg = f"unknown kind {kind!r} of Laplacian; choose one of {', '.join(map(repr, get_args(Kind)))}"
        raise ValueError(msg)


def degrees(W: Any) -> Array:
    """Row sums of a sparse matrix, in its precision."""
    return np.asarray(W.sum(axis=1, dtype=np.float64)).astype(W.dtype)


def without_loops(W: Any) -> Any:
    """A sparse matrix with zeros stored for its diagonal entries."""
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    data = np.where(rows == W.indices, np.zeros_like(W.data), W.data)
    return scipy.sparse.csr_array((data, W.indices, W.indptr), shape=W.shape)


def inverse_root(d: Array) -> Array:
    """1 / sqrt(d), zero for a node without edges."""
    return np.sqrt(_inverse(d))


def _inverse(d: Array) -> Array:
    return np.divide(1, d, out=np.zeros_like(d), where=d > 0)


def _scaled(W: Any, left: Array, right: Array) -> Any:
    rows = np.repeat(np.arange(W.shape[0]), np.diff(W.indptr))
    return scipy.sparse.csr_array((left[rows] * W.data * right[W.indices], W.indices, W.indptr), shape=W.shape)


def _difference(diagonal: Array, W: Any) -> Any:
    """diag(diagonal) - W with the whole diagonal stored."""
    n = W.shape[0]
    rows, own = np.repeat(np.arange(n), np.diff(W.indptr)), np.arange(n)
    coordinates = np.r_[rows, own], np.r_[W.indices, own]
    return scipy.sparse.csr_array(scipy.sparse.coo_array((np.r_[-W.data, diagonal], coordinates), shape=(n, n)))
