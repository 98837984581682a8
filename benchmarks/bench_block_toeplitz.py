"""Block-Toeplitz products: time of others / ours.

`rfftn` is scipy.fft with the spectrum cached, good lengths on every axis and all threads; `copy` is the floor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.bench_toeplitz import TOLERANCE, sampled_check
from benchmarks.contest import Contest, run
from benchmarks.peers import CachedSpectrum
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Toeplitz

GRIDS = ((256, 256), (100, 180), (32, 32, 32), (17, 33, 40))
CASES = (*((grid, k) for grid in GRIDS for k in (1, 3, 8, 16, 64)), ((100, 180), 512), ((17, 33, 40), 512))
TINY = (((3, 5), 2), ((2, 3, 4), 1))


def rows(settings: Settings) -> Iterator[Row]:
    for grid, k in TINY if settings.tiny else CASES:
        for dtype in ("float32", "float64"):
            yield run(contest(grid, k, dtype), budget=settings.budget)


def contest(grid: tuple[int, ...], k: int, dtype: str) -> Contest:
    rng = np.random.default_rng(k)
    table = rng.standard_normal([2 * n - 1 for n in grid]).astype(dtype)
    X = rng.standard_normal((int(np.prod(grid)), k)).astype(dtype)
    matrix, cached, out = Toeplitz(table, levels=len(grid)), CachedSpectrum(table, grid), np.empty_like(X)
    peers = {"rfftn": lambda: cached(X), "copy": lambda: np.copyto(out, X)}
    name = f"{' x '.join(map(str, grid))}, k={k} {dtype}"
    check = sampled_check(table, grid, X)
    return Contest(name, {"ours": lambda: matrix @ X}, peers, check, TOLERANCE[dtype], unchecked=("copy",))
