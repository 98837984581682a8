"""Linear systems with Toeplitz and block-Toeplitz matrices: time of others / ours, at equal residual (1e-8).

`solve_toeplitz` is scipy's (Levinson's recurrence, column by column), `cg` is scipy's with a product by cached FFT,
column by column, `cholesky` factors the formed matrix. Ours starts from the table: spectra and preconditioner are made
inside. `iterations` are those of ours, 0 for a direct method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, cg

from benchmarks.contest import Contest, run
from benchmarks.peers import CachedSpectrum
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Toeplitz, solve

RESIDUAL = 1e-8
LONGEST = 2.0  # seconds that a peer may take
LEVINSON, CHOLESKY = 1.4e-9, 5e-11  # seconds, about, for n^2 and n^3

LINE = {
    "AR(1) 0.99": lambda r: 0.99**r,
    "Matern 3/2": lambda r: (1 + np.sqrt(3) * r / 10) * np.exp(-np.sqrt(3) * r / 10),
    "long memory": lambda r: (1 + r) ** -0.2,
    "second difference": lambda r: 2.0 * (r == 0) - (r == 1),
}
GRID = {
    "exponential": lambda r: np.exp(-r / 5),
    "Matern 3/2": lambda r: (1 + np.sqrt(3) * r / 5) * np.exp(-np.sqrt(3) * r / 5),
    "long memory": lambda r: (1 + r) ** -0.2,
    "five points": lambda r: 4.0 * (r == 0) - (r == 1),
}


def rows(settings: Settings) -> Iterator[Row]:
    for n in (5,) if settings.tiny else (16, 64, 256, 512, 1000, 5000, 16384, 65535):
        for name, f in LINE.items():
            for k in (1,) if n < 1000 else (1, 16):
                yield _row(name, f, (n,), k, settings.budget)
    for grid in ((3, 4),) if settings.tiny else ((64, 64), (100, 180)):
        for name, f in GRID.items():
            for k in (1, 16):
                yield _row(name, f, grid, k, settings.budget)


def _row(name: str, f: Callable[[np.ndarray], np.ndarray], grid: tuple[int, ...], k: int, budget: float) -> Row:
    """One contest, with the number of iterations beside."""
    steps: list[int] = []
    axes = np.meshgrid(*(np.arange(1 - n, n) for n in grid), indexing="ij")
    table = np.asarray(f(np.sqrt(sum(axis.astype(float) ** 2 for axis in axes))))
    B = np.random.default_rng(k).standard_normal((int(np.prod(grid)), k))
    solve(Toeplitz(table, levels=len(grid)), B, tol=RESIDUAL, callback=lambda step, _: steps.append(step))
    row = run(contest(name, table, grid, B), budget=budget)
    row.figures["iterations"] = len(steps)
    return row


def contest(name: str, table: np.ndarray, grid: tuple[int, ...], B: np.ndarray) -> Contest:
    n, k = B.shape
    product, levels = CachedSpectrum(table, grid), len(grid)
    peers: dict[str, Callable[[], Any] | str] = {}
    if levels == 1:
        affordable = LEVINSON * n * n * k <= LONGEST
        peers["solve_toeplitz"] = (lambda: scipy.linalg.solve_toeplitz(table[n - 1 :], B)) if affordable else "- (slow)"
    else:
        peers["cg"] = (lambda: _conjugate_gradients(product, B)) if k == 1 else "- (one by one)"
        affordable = CHOLESKY * n**3 <= LONGEST * 3
        dense = Toeplitz(table, levels=levels).to_dense() if affordable else None
        peers["cholesky"] = (lambda: scipy.linalg.solve(dense, B, assume_a="pos")) if affordable else "- (slow)"
    label = f"{name}, {' x '.join(map(str, grid))}, k={k}"
    ours = {"ours": lambda: solve(Toeplitz(table, levels=levels), B, tol=RESIDUAL)}
    return Contest(label, ours, peers, lambda X: _residual(product, X, B), 1.01 * RESIDUAL)


def _residual(product: CachedSpectrum, X: np.ndarray, B: np.ndarray) -> float:
    """Largest relative residual of a column."""
    return float(np.max(np.linalg.norm(B - product(X), axis=0) / np.linalg.norm(B, axis=0)))


def _conjugate_gradients(product: CachedSpectrum, B: np.ndarray) -> np.ndarray:
    n = B.shape[0]
    operator = LinearOperator((n, n), matvec=lambda x: product(x[:, None])[:, 0], dtype=B.dtype)
    return np.stack([cg(operator, b, rtol=RESIDUAL, maxiter=20 * n)[0] for b in B.T], axis=1)
