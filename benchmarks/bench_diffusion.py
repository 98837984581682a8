"""exp(-t L) X on graphs, float64, tolerance 1e-12: time of others / ours.

`expm_multiply` is scipy's. `fixed order` is the Chebyshev recurrence of pygsp: scipy's sparse products and a polynomial
of a fixed order, here the least that reaches the accuracy (pygsp itself takes 30 whatever the time). `floor` is the
time to move what the terms have to move at least, five blocks of X and the matrix each, at the speed of copying a large
array: below 1 we are slower than that. Where expm_multiply would take much longer than everything else together it is
left out at that time, and measured at a smaller one or with one column. `set-up` is the time to build the kernel.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import expm_multiply

from benchmarks.contest import Contest, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import ConvergenceWarning, diffusion_kernel, grid_diffusion, laplacian
from structmask.graphs import SpectralFilter

TOL = 1e-12
_PATIENCE = 25.0  # seconds that expm_multiply may be expected to take


def rows(settings: Settings) -> Iterator[Row]:
    side = 12 if settings.tiny else 512
    for k, times in ((16, (1.0, 10.0, 100.0)), (1, (10.0, 100.0))):
        for t in times:
            yield run(contest(f"grid {side}x{side} k={k} t={t:g}", grid(side), t, k, side=side), budget=settings.budget)
    n = 200 if settings.tiny else 100_000
    for k, t in ((16, 1.0), (1, 10.0)):
        yield run(contest(f"shuffled geometric n={n} k={k} t={t:g}", geometric(n), t, k), budget=settings.budget)
    for k, t in ((16, 0.1), (1, 0.1)):
        yield run(contest(f"Barabasi-Albert n={n} k={k} t={t:g}", power_law(n, 5), t, k), budget=settings.budget)
    large = 400 if settings.tiny else 1_000_000
    yield run(contest(f"Barabasi-Albert n={large} k=1 t=0.01", power_law(large, 8), 0.01, 1), budget=settings.budget)


def contest(name: str, W: Any, t: float, k: int, *, side: int = 0) -> Contest:
    start = time.perf_counter()
    with warnings.catch_warnings():  # where rounding alone is more than the tolerance, all contestants live with it
        warnings.simplefilter("ignore", ConvergenceWarning)
        M = diffusion_kernel(W, t, tol=TOL)
    X = np.random.default_rng(0).standard_normal((W.shape[0], k))
    x = X[:, 0] if k == 1 else X
    L, method = laplacian(W), M._plan(k).method
    set_up = time.perf_counter() - start
    exact = grid_diffusion((side, side), t) @ x if side else _by_recurrence(M, L, x)
    peers: dict[str, Callable[[], Any] | str] = {
        "expm_multiply": _patient(L, t, x),
        "fixed order": lambda: _by_recurrence(M, L, x),
        "floor": lambda: _moved(M, L, X),
    }
    notes = {"method": method, "terms": str(M.polynomial.degree), "set-up, s": f"{set_up:.2f}"}
    return Contest(name, {"ours": lambda: M @ x}, peers, _check(exact, x), 1e-11, ("floor",), notes)


def _check(exact: Any, x: Any) -> Callable[[Any], float]:
    """The error in the 2-norm, relative to X."""
    return lambda Y: float(np.linalg.norm(Y - exact) / np.linalg.norm(x))


def _patient(L: Any, t: float, x: Any) -> Callable[[], Any] | str:
    """expm_multiply, unless it would take too long: its products number about 1.6 t |L - tr(L)/n I|_1 and more."""
    norm = t * abs(L - L.diagonal().mean() * scipy.sparse.eye_array(L.shape[0])).sum(axis=0).max()
    bytes_moved = (2 * norm + 50) * (12 * L.nnz + 40 * x.size)
    if bytes_moved / 1e9 > _PATIENCE:
        return "- (too long)"
    return lambda: expm_multiply(-t * L, x)


def _by_recurrence(M: SpectralFilter, L: Any, x: Any) -> Any:
    """The same polynomial by scipy's sparse products."""
    c, b = M._series.coefficients, M.bound
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


@cache
def _copy(size: int) -> tuple[Callable[[Any, Any], None], Any, Any]:
    """A copy on all threads, and two arrays for it."""
    from numba import njit, prange

    def copy(source: Any, target: Any) -> None:
        for i in prange(source.size):
            target[i] = source[i]

    return njit(parallel=True)(copy), np.ones(size), np.zeros(size)


def grid(side: int) -> Any:
    path = scipy.sparse.diags_array([np.ones(side - 1)] * 2, offsets=[-1, 1])
    eye = scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(scipy.sparse.kron(path, eye) + scipy.sparse.kron(eye, path))


def geometric(n: int, degree: float = 8.0) -> Any:
    """Points in the square in random order, joined when near."""
    from scipy.spatial import cKDTree

    points = np.random.default_rng(0).random((n, 2))
    pairs = cKDTree(points).query_pairs(np.sqrt(degree / (n * np.pi)), output_type="ndarray")
    return _symmetric(n, pairs)


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
