"""exp(-t L) X on graphs, float64, tolerance 1e-12: time of others / ours.

`expm_multiply` is scipy's. `pygsp` is its Chebyshev recurrence, and `fixed order` the same by scipy's sparse products
with nothing in the way: both are given the terms and the bound that the accuracy takes (pygsp itself takes 30 terms
whatever the time). `floor` is the time to move what the terms have to move at least, five blocks of X and the matrix
each, at the speed of copying a large array: below 1 we are slower than that. Where expm_multiply would take much longer
than everything else together it is left out: a larger --budget has more patience. `set-up` is the time to build the
kernel. The last row is attention of all nodes to all, by heat; `memory` counts L (m + e) numbers.
"""

from __future__ import annotations

import functools
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse
from scipy.sparse.linalg import expm_multiply

from benchmarks.contest import Contest, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import ConvergenceWarning, diffusion_kernel, laplacian, masked_attention
from structmask.graphs import SpectralFilter

TOL = 1e-12
_PATIENCE = 80  # budgets that expm_multiply may be expected to take
_TERMS = 2000  # beyond, the recurrences of others are left out


def rows(settings: Settings) -> Iterator[Row]:
    side = 12 if settings.tiny else 512
    n, large = (200, 400) if settings.tiny else (100_000, 1_000_000)
    graphs: dict[str, tuple[Callable[[], Any], tuple[tuple[int, float], ...]]] = {
        f"grid {side}x{side}": (lambda: grid(side), ((16, 1), (16, 10), (16, 100), (1, 10), (1, 100), (1, 1e5))),
        f"path n={n}": (lambda: path(n), ((1, 1e4), (16, 1e6))),
        f"mesh n={n}": (lambda: mesh(n), ((16, 1), (16, 10))),
        f"shuffled geometric n={n}": (lambda: geometric(n), ((16, 1), (16, 10), (1, 10))),
        f"Barabasi-Albert n={n}": (lambda: power_law(n, 5), ((16, 0.1), (16, 1), (1, 0.1))),
        f"Barabasi-Albert n={large}": (lambda: power_law(large, 8), ((1, 0.01),)),
    }
    for name, (build, cases) in graphs.items():
        W = build()
        for k, t in cases:
            label = f"{name} k={k} t={t:g}"
            shape = (side, side) if name.startswith("grid") else (n,) if name.startswith("path") else None
            yield run(contest(label, W, t, k, settings, shape), budget=settings.budget)
    yield run(attention(n), budget=settings.budget)


def contest(name: str, W: Any, t: float, k: int, settings: Settings, shape: tuple[int, ...] | None) -> Contest:
    start = time.perf_counter()
    with warnings.catch_warnings():  # where rounding alone is more than the tolerance, all contestants live with it
        warnings.simplefilter("ignore", ConvergenceWarning)
        M = diffusion_kernel(W, t, tol=TOL)
    X = np.random.default_rng(0).standard_normal((W.shape[0], k))
    x = X[:, 0] if k == 1 else X
    method = M._plan(k).method
    set_up, L = time.perf_counter() - start, laplacian(W)
    exact = _by_recurrence(M, L, x) if shape is None else _by_cosines(shape, t, x)
    terms, long = M.polynomial.degree, "- (too long)"
    is_short = terms <= _TERMS
    peers: dict[str, Callable[[], Any] | str] = {
        "expm_multiply": _patient(L, t, x, _PATIENCE * settings.budget),
        "pygsp": _by_pygsp(M, W, x) if is_short else long,
        "fixed order": (lambda: _by_recurrence(M, L, x)) if is_short else long,
        "floor": (lambda: _moved(M, L, X)) if is_short else long,
    }
    notes = {"method": method, "terms": str(terms), "set-up, s": f"{set_up:.2f}"}
    return Contest(name, {"ours": lambda: M @ x}, peers, _check(exact, x), max(1e-11, 1e-15 * t), ("floor",), notes)


def attention(n: int, m: int = 16, e: int = 16) -> Contest:
    """Attention through a diffusion mask, beside the product with phi(k) (x) v all at once."""
    mask, rng = diffusion_kernel(geometric(n), 1.0, tol=1e-6), np.random.default_rng(0)
    q, k, v = rng.random((n, m)), rng.random((n, m)), rng.standard_normal((n, e))

    def literal() -> Any:
        """The product that the definition suggests, with m (e + 1) columns."""
        V = np.concatenate([v, np.ones((n, 1))], axis=1)
        Y = mask @ (k[:, :, None] * V[:, None]).reshape(n, -1)
        Z = np.einsum("im,ime->ie", q, Y.reshape(n, m, e + 1))
        return Z[:, :-1] / Z[:, -1:]

    def ours() -> Any:
        return masked_attention(q, k, v, mask=mask, features=None)

    ours()
    tracemalloc.start()
    exact = ours()
    notes = {"method": "attention", "memory": f"{tracemalloc.get_traced_memory()[1] / (8 * n * (m + e)):.1f}"}
    tracemalloc.stop()
    peers = {"at once": literal}
    return Contest(f"attention, geometric n={n} m={m} e={e}", {"ours": ours}, peers, _check(exact, v), 1e-5, (), notes)


def _check(exact: Any, x: Any) -> Callable[[Any], float]:
    """The error in the 2-norm, relative to X."""
    return lambda Y: float(np.linalg.norm(Y - exact) / np.linalg.norm(x))


def _patient(L: Any, t: float, x: Any, patience: float) -> Callable[[], Any] | str:
    """expm_multiply, unless it would take too long: its products number about 1.6 t |L - tr(L)/n I|_1 and more."""
    norm = t * abs(L - L.diagonal().mean() * scipy.sparse.eye_array(L.shape[0])).sum(axis=0).max()
    bytes_moved = (2 * norm + 50) * (12 * L.nnz + 40 * x.size)
    return "- (too long)" if bytes_moved / 1e9 > patience else lambda: expm_multiply(-t * L, x)


def _by_cosines(shape: tuple[int, ...], t: float, x: Any) -> Any:
    """On the eigenvectors of a grid."""
    axes, Y = tuple(range(len(shape))), x.reshape(*shape, -1)
    values = [4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in shape]
    decay = np.exp(-t * functools.reduce(np.add.outer, values))[..., None]
    return scipy.fft.idctn(decay * scipy.fft.dctn(Y, axes=axes, norm="ortho"), axes=axes, norm="ortho").reshape(x.shape)


def _by_pygsp(M: SpectralFilter, W: Any, x: Any) -> Callable[[], Any] | str:
    try:
        from pygsp.filters.approximations import cheby_op
        from pygsp.graphs import Graph
    except ModuleNotFoundError:
        return "- (not installed)"
    G = Graph(scipy.sparse.csr_matrix(W))
    G._lmax, c = M.bound, M.polynomial.coefficients.copy()
    c[0] *= 2  # its first coefficient counts by half
    return lambda: cheby_op(G, c, x)


def _by_recurrence(M: SpectralFilter, L: Any, x: Any) -> Any:
    """The same polynomial by scipy's sparse products."""
    c, b = M.polynomial.coefficients, M.bound
    T, following = x, (2 / b) * (L @ x) - x
    Y = c[0] * T + c[1] * following
    for k in range(2, c.size):
        T, following = following, (4 / b) * (L @ following) - 2 * following - T
        Y += c[k] * following
    return Y


def _moved(M: SpectralFilter, L: Any, X: Any) -> None:
    """Copies as many bytes as the terms of the recurrence move at least."""
    copy, source, target = _copy(1 << (12 if X.size < 1 << 16 else 25))
    moved = M.polynomial.degree * (5 * X.nbytes + 12 * L.nnz)
    for _ in range(max(1, round(moved / (2 * source.nbytes)))):
        copy(source, target)


@functools.cache
def _copy(size: int) -> tuple[Callable[[Any, Any], None], Any, Any]:
    """A copy on all threads, and two arrays for it."""
    from numba import njit, prange

    def copy(source: Any, target: Any) -> None:
        for i in prange(source.size):
            target[i] = source[i]

    return njit(parallel=True)(copy), np.ones(size), np.zeros(size)


def path(n: int) -> Any:
    return scipy.sparse.csr_array(scipy.sparse.diags_array([np.ones(n - 1)] * 2, offsets=[-1, 1]))


def grid(side: int) -> Any:
    one, eye = path(side), scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(scipy.sparse.kron(one, eye) + scipy.sparse.kron(eye, one))


def geometric(n: int, degree: float = 8.0) -> Any:
    """Points in the square in random order, joined when near."""
    from scipy.spatial import cKDTree

    points = np.random.default_rng(0).random((n, 2))
    pairs = cKDTree(points).query_pairs(np.sqrt(degree / (n * np.pi)), output_type="ndarray")
    return _symmetric(n, pairs)


def mesh(n: int) -> Any:
    """The Delaunay triangulation of points in the square, from left to right."""
    from scipy.spatial import Delaunay

    points = np.random.default_rng(0).random((n, 2))
    corners = Delaunay(points[np.argsort(points[:, 0])]).simplices
    return _symmetric(n, np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]))


def power_law(n: int, m: int) -> Any:
    """Each node joins m ends of earlier edges, or earlier nodes: preferential attachment."""
    rng = np.random.default_rng(0)
    ends = np.empty(2 * n * m, dtype=np.int64)
    sources = np.repeat(np.arange(n), m)
    choice, coin = rng.random(n * m), rng.random(n * m) < 0.5
    for start in range(0, n * m, block := max(m, n * m // 200)):
        stop = min(n * m, start + block)
        known = max(1, 2 * start)
        picks = (choice[start:stop] * known).astype(np.int64)
        nodes = (choice[start:stop] * np.maximum(1, sources[start:stop])).astype(np.int64)
        targets = np.where(coin[start:stop] & (start > 0), ends[np.minimum(picks, max(0, 2 * start - 1))], nodes)
        ends[2 * start : 2 * stop : 2], ends[2 * start + 1 : 2 * stop : 2] = sources[start:stop], targets
    return _symmetric(n, ends.reshape(-1, 2))


def _symmetric(n: int, pairs: Any) -> Any:
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    A = scipy.sparse.csr_array(scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n)))
    W = scipy.sparse.csr_array(A + A.T)
    W.data[:] = 1.0
    return W
