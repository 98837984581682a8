"""Toeplitz products: time of others / ours.

`scipy.fft` has the spectrum cached, a good length and all threads; `matmul_toeplitz` is scipy.linalg's; `copy` is the
floor, reading the operand and writing the result once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from benchmarks.contest import Contest, relative_error, run
from benchmarks.peers import CachedSpectrum
from benchmarks.report import Row
from benchmarks.settings import Settings, threads
from structmask import Toeplitz

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def rows(settings: Settings) -> Iterator[Row]:
    sizes = (1, 37) if settings.tiny else (256, 4096, 5000, 65535)
    widths = (1, 3) if settings.tiny else (1, 3, 8, 64, 512)
    for n in sizes:
        for k in widths:
            for dtype in ("float32", "float64"):
                yield run(contest(n, k, dtype), budget=settings.budget)


def contest(n: int, k: int, dtype: str) -> Contest:
    rng = np.random.default_rng(n + k)
    table = rng.standard_normal(2 * n - 1).astype(dtype)
    X = rng.standard_normal((n, k)).astype(dtype)
    matrix, cached, out = Toeplitz(table), CachedSpectrum(table, (n,)), np.empty_like(X)
    column, row = table[n - 1 :], table[n - 1 :: -1]
    peers = {
        "scipy.fft": lambda: cached(X),
        "matmul_toeplitz": lambda: scipy.linalg.matmul_toeplitz((column, row), X, workers=threads()),
        "copy": lambda: np.copyto(out, X),
    }
    check = sampled_check(table, (n,), X)
    return Contest(
        f"{n} x {k} {dtype}", {"ours": lambda: matrix @ X}, peers, check, TOLERANCE[dtype], unchecked=("copy",)
    )


def sampled_check(table: np.ndarray, grid: tuple[int, ...], X: np.ndarray):
    """The error of a product in a few rows and columns, beside entries looked up one by one in double precision."""
    n, k = X.shape
    rng = np.random.default_rng(0)
    chosen = np.unique(np.r_[0, n - 1, rng.integers(0, n, 6)])
    columns = np.unique(np.r_[0, k - 1, rng.integers(0, k, 6)])
    points = np.stack(np.unravel_index(np.arange(n), grid))
    index = points[:, chosen, None] - points[:, None, :] + (np.asarray(grid) - 1)[:, None, None]
    exact = table.astype(float)[tuple(index)] @ X[:, columns].astype(float)
    scale = np.sqrt(n)  # rounding of a transform is relative to the size of a whole column

    def check(Y):
        size = max(np.max(np.abs(exact)), scale)
        return relative_error(Y[np.ix_(chosen, columns)], exact) * float(np.max(np.abs(exact)) / size)

    return check
