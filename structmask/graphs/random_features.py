"""Graph random features: unbiased low-rank estimates of a power series in the adjacency matrix, from random walks.

A walk from i carries a load that starts at one and is multiplied, in each step u -> v, by W_uv over the probability
that the walk takes this step. phi_i is the mean, over walks, of f_l times the load at the l-th node, by node. Then

    E[phi_i] = e_i f(W),     E[phi_i] . E[phi'_j] = (f(W) f(W))_ij = (sum_l a_l W^l)_ij     for  f * f = a

where phi' walks on W^T. Two independent ensembles make the product unbiased on the diagonal, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.backends.walk_kernels import WORD
from structmask.graphs.adjacency import is_symmetric
from structmask.graphs.sampled_kernel import SampledKernel
from structmask.graphs.walk_series import WalkSeries
from structmask.graphs.walks import Walks, check_count, check_stop, generator, walk_plan, walkable

_NEGLIGIBLE, _ACCURATE = (factor * arrays.unit_roundoff("float64") for factor in (64, 1 << 16))
_LONGEST, _LARGEST = 1 << 14, 1e100  # of a root: terms, and the largest beside the first
_BOUND_STEPS = 30  # of a power iteration


def graph_random_features(
    graph: Any,
    coefficients: Array | WalkSeries,
    /,
    *,
    walks: int,
    stop: float,
    ensembles: int = 2,
    repelling: bool = False,
    rng: Any = None,
) -> SampledKernel:
    """Unbiased low-rank estimate of sum_l a_l W^l from random walks.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Its weighted adjacency matrix W, as it is; weights are not negative.
    coefficients : array (T,) or WalkSeries
        a_0, a_1, ...; those behind the last are zero. `walk_series` has kernels of the Laplacian. With a first non-zero
        coefficient that is negative or odd the factors differ (in sign, by one step), and there are two ensembles.
    walks : int
        Walks from every node, in each ensemble.
    stop : float
        Probability in [0, 1) that a walk stops before each step: the length of walks is 1 / stop on average.
    ensembles : {2, 1}
        Two: the factors come from independent walks, and every entry is unbiased. One: both factors are the same,
        the estimate is symmetric and positive semidefinite, and its diagonal is too large on average.
    repelling : bool
        Walks that meet avoid each other's next step: each is distributed as before, means vary less.
    rng : seed or numpy.random.Generator, optional
        The same seed gives the same walks on every backend and for any number of threads.

    Returns
    -------
    SampledKernel (n, n)
        A LowRank with sparse factors; its parameters are the modulations. Standard deviations fall as walks^-1/2.

    Raises
    ------
    ValueError
        If a weight is negative, stop not in [0, 1), or the square root of the series does not converge for W: then
        divide W by more, or sample fewer terms.

    Notes
    -----
    O(walks / stop) operations a node. Unbiased up to rounding and to the grid of 2^-32 on which words choose.

    References
    ----------
    Reid et al. (2024), General graph random features.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import graph_random_features
    >>> W = np.array([[0.0, 0.5], [0.5, 0.0]])
    >>> estimate = graph_random_features(W, [1.0, 1.0, 0.25], walks=4000, stop=0.5, rng=0)
    >>> exact = np.eye(2) + W + W @ W / 4
    >>> bool(np.abs(estimate.to_dense() - exact).max() < 0.05)
    True
    """
    walks = check_count(walks, "walks", "walks from every node")
    check_stop(stop)
    if ensembles not in (1, 2):
        msg = f"ensembles must be 1 or 2, got {ensembles!r}"
        raise ValueError(msg)
    W, draw = walkable(graph), generator(rng)
    f, g = _factors(coefficients, W)
    symmetric = is_symmetric(W)
    if ensembles == 1 and not (symmetric and f is g):
        msg = (
            "one ensemble makes a positive semidefinite matrix: it needs an undirected graph (on a directed one the "
            "other factor walks against the edges) and a_0 > 0, or the first other coefficient positive and even"
        )
        raise ValueError(msg)
    plan = walk_plan(f.size, walks, stop, draw, repelling=repelling)
    survival = 1 - plan.stop / WORD  # of the grid on which words decide
    walked = _walks(W, survival, plan)
    if ensembles == 1:
        return SampledKernel((walked, walked), f.astype(W.dtype))
    backwards = W if symmetric else scipy.sparse.csr_array(W.T)
    second = _walks(backwards, survival, plan._replace(draw=1, length=g.size))
    return SampledKernel((walked, second), f.astype(W.dtype), None if g is f else g.astype(W.dtype))


def _factors(coefficients: Array | WalkSeries, W: Any) -> tuple[Array, Array]:
    """Series f and g with f * g = a: one root twice where there is one.

    With a = sign x^k b, b_0 > 0, they are x^(k // 2) and sign x^(k - k // 2) times the root of b.
    """
    if isinstance(coefficients, WalkSeries):
        return coefficients.modulation, coefficients.modulation
    a = _checked(coefficients)
    if not a.any():
        return a[:1], a[:1]
    first = int(np.flatnonzero(a)[0])
    sign = np.sign(a[first])
    root = modulation(sign * a[first:], spectral_radius_bound(W))
    f = np.concatenate([np.zeros(first // 2), root])
    return f, f if sign > 0 and first % 2 == 0 else sign * np.concatenate([np.zeros(first % 2), f])


def _checked(coefficients: Any) -> Array:
    a = np.asarray(coefficients)
    if a.dtype.kind not in "biuf":
        msg = f"graph random features need real coefficients (T,), got {coefficients!r}"
        raise TypeError(msg)
    a = a.astype(np.float64)
    if a.ndim != 1 or not a.size or not np.isfinite(a).all():
        msg = f"graph random features need one or more finite coefficients (T,), got {coefficients!r}"
        raise ValueError(msg)
    return a


def modulation(coefficients: Array, radius: float = 1.0, /) -> Array:
    """The series f with f * f = a (convolution), to where what is left does not matter for matrices of this norm.

    From 2 a f' = a' f:  f_l = sum_{k=1..T-1} (3 k - 2 l) a_k f_{l-k} / (2 a_0 l).

    Parameters
    ----------
    coefficients : array (T,)
        a_0 > 0, a_1, ..., a_{T-1}.
    radius : float
        The series must converge there.

    Raises
    ------
    ValueError
        If a_0 is not positive or the root does not converge.

    Examples
    --------
    >>> from structmask.graphs import modulation
    >>> modulation([1.0, 2.0, 1.0])
    array([1., 1.])
    """
    a = _checked(coefficients)
    if a[0] <= 0:
        msg = f"a series has a real square root of this kind for a_0 > 0, got a_0 = {a[0]:.3g}"
        raise ValueError(msg)
    powers = (radius or 1.0) ** np.arange(a.size)
    b = a * powers / a[0]  # of the series in W / radius
    g = _root(b)
    if g is None or not np.abs(_square(g, b.size) - b).max(initial=0) <= _ACCURATE * np.abs(b).sum():
        msg = (
            f"the square root of this series does not converge, or loses its digits, for W of norm {radius:.3g}; "
            "divide the adjacency matrix by more, or give the root yourself: WalkSeries(coefficients, modulation)"
        )
        raise ValueError(msg)
    f: Array = math.sqrt(a[0]) * g / (radius or 1.0) ** np.arange(g.size)
    return f


def modulation_pullback(coefficients: Array, gradient: Array, radius: float = 1.0, /) -> Array:
    """The gradient for a, from one for the f = modulation(a, radius) of it.

    From da = 2 f * df, with r the reciprocal series of 2 f:  d_a[k] = sum_{l >= k} r_{l - k} d_f[l].

    Parameters
    ----------
    coefficients : array (T,)
        a, as in `modulation`.
    gradient : array (S,)
        For f, as `SampledKernel` gives it.
    radius : float
        As in `modulation`.

    Returns
    -------
    array (T,)

    Raises
    ------
    ValueError
        As `modulation`, or if the gradient is not of the shape of f.

    Examples
    --------
    >>> from structmask.graphs import modulation_pullback
    >>> modulation_pullback([4.0, 0.0], [1.0])  # of sqrt(4)
    array([0.25, 0.  ])
    """
    f, d_f, T = modulation(coefficients, radius), np.asarray(gradient, dtype=np.float64), np.asarray(coefficients).size
    if d_f.shape != f.shape:
        msg = f"the gradient for a modulation of {f.size} terms needs shape {f.shape}, got {d_f.shape}"
        raise ValueError(msg)
    r = np.zeros(max(f.size, T))
    r[0] = 1 / (2 * f[0])
    for step in range(1, f.size):
        r[step] = -(f[1 : step + 1] @ r[step - 1 :: -1][:step]) / f[0]
    return np.array([d_f[k:] @ r[: max(0, f.size - k)] for k in range(T)])


def _square(g: Array, size: int) -> Array:
    """The first coefficients of g * g."""
    square = np.convolve(g, g)[:size]
    return np.pad(square, (0, size - square.size))


def _root(b: Array) -> Array | None:
    """A series g with g * g = b, where b_0 = 1; None if it does not end, up to rounding.

    Each term follows from the T - 1 before it: as many negligible ones make all others negligible.
    """
    g, quiet, largest, k = [1.0], 0, 1.0, np.arange(1, b.size)
    while quiet < b.size - 1:
        step, before = len(g), np.array(g[: -b.size : -1])
        m = before.size
        g.append(float(np.sum((3 * k[:m] - 2 * step) * b[1 : m + 1] * before)) / (2 * step))
        largest = max(largest, abs(g[-1]))
        if step >= _LONGEST or largest > _LARGEST:
            return None
        quiet = quiet + 1 if abs(g[-1]) <= _NEGLIGIBLE * largest else 0
    return np.array(g[: len(g) - quiet])


def spectral_radius_bound(W: Any) -> float:
    """max_i (W x)_i / x_i for a positive x bounds the spectral radius of W >= 0 (Collatz and Wielandt)."""
    if not W.nnz:
        return 0.0
    x, bound = np.ones(W.shape[0]), math.inf
    for _ in range(_BOUND_STEPS):
        image = W @ x
        bound = min(bound, float(np.max(image / x)))
        x = image + bound * x
        x = np.maximum(x / x.max(), 1e-100)
    return bound


def _walks(W: Any, survival: float, plan: Any) -> Walks:
    return Walks(W, np.asarray(W.sum(axis=1, dtype=np.float64)) / survival, plan)
