"""Sparse and low-rank building blocks, float32: time of others / ours.

`scipy` multiplies by a CSR array; `numpy` gathers rows and sums (sampled products), or multiplies the
factors (low rank).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse

from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import LowRank, Sparse
from structmask.backends import kernels


def rows(settings: Settings) -> Iterator[Row]:
    sizes = (7,) if settings.tiny else (2_000, 100_000)
    widths = (1, 3) if settings.tiny else (1, 8, 64)
    for n in sizes:
        A = random_csr(n, degree=3 if settings.tiny else 10)
        for k in widths:
            for contest in (sparse(A, k), sampled(A, k), low_rank(n, 16, k)):
                yield run(contest, budget=settings.budget)


def random_csr(n: int, degree: int) -> scipy.sparse.csr_array:
    """`degree` entries a row at most, half of them near the diagonal as in a mesh."""
    rng = np.random.default_rng(n)
    source = np.repeat(np.arange(n), degree)
    near = (source + rng.integers(-degree, degree + 1, source.size)) % n
    target = np.where(rng.random(source.size) < 0.5, near, rng.integers(0, n, source.size))
    A = scipy.sparse.csr_array((rng.standard_normal(source.size).astype(np.float32), (source, target)), shape=(n, n))
    A.sum_duplicates()
    return A


def sparse(A: scipy.sparse.csr_array, k: int) -> Contest:
    X = np.random.default_rng(k).standard_normal((A.shape[1], k)).astype(np.float32)
    matrix, exact = Sparse(A), A.astype(float) @ X.astype(float)
    return Contest(
        f"CSR product, n={A.shape[0]} k={k}",
        {"ours": lambda: matrix @ X},
        {"scipy": lambda: A @ X},
        lambda Y: relative_error(Y, exact),
        1e-5,
    )


def sampled(A: scipy.sparse.csr_array, k: int) -> Contest:
    F, G = np.random.default_rng(k).standard_normal((2, A.shape[0], k)).astype(np.float32)
    entries = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    exact = np.einsum("ik,ik->i", F[entries].astype(float), G[A.indices].astype(float))
    return Contest(
        f"sampled product, n={A.shape[0]} k={k}",
        {"ours": lambda: kernels.sampled_product(A, entries, F, G)},
        {"numpy": lambda: np.einsum("ik,ik->i", F[entries], G[A.indices])},
        lambda values: relative_error(values, exact),
        1e-5,
    )


def low_rank(n: int, rank: int, k: int) -> Contest:
    L, R = np.random.default_rng(k).standard_normal((2, n, rank)).astype(np.float32)
    X = np.random.default_rng(k + 1).standard_normal((n, k)).astype(np.float32)
    matrix, exact = LowRank(L, R), L.astype(float) @ (R.T.astype(float) @ X)
    return Contest(
        f"low rank {rank}, n={n} k={k}",
        {"ours": lambda: matrix @ X},
        {"numpy": lambda: L @ (R.T @ X)},
        lambda Y: relative_error(Y, exact),
        1e-4,
    )
