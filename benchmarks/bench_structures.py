"""Special Toeplitz tables, Kronecker products, hypercube masks, and a class token, float32: time of others / ours.

`transform` is our own product by the transform, which a constant, banded or separable table does not take.
`sparse.kron` is the product's matrix formed by scipy.sparse, `hadamard` one product with scipy.linalg.hadamard (ours
makes two transforms). The last rows give attention with a class token over the same attention without one: their
`without` is the time without the token, so 0.9 or more is a token that costs at most a tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg
import scipy.sparse

from benchmarks.bench_toeplitz import sampled_check
from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Dense, Hypercube, Sparse, StructuredMatrix, Toeplitz, kron, masked_attention, with_global_tokens


def rows(settings: Settings) -> Iterator[Row]:
    widths = (1, 2) if settings.tiny else (1, 16, 64)
    side = 9 if settings.tiny else 128
    for k in widths:
        for name, f in TABLES.items():
            yield run(simple_table(name, f, side, k), budget=settings.budget)
        for n in (3,) if settings.tiny else (16, 48):
            yield run(dense_factors(n, k), budget=settings.budget)
        for n in (5,) if settings.tiny else (300,):
            yield run(sparse_factors(n, k), budget=settings.budget)
        for d in (3,) if settings.tiny else (10, 12):
            yield run(hypercube(d, k), budget=settings.budget)
    for side in (3,) if settings.tiny else (14, 32, 64):
        yield run(class_token(side, heads=2 if settings.tiny else 4), budget=settings.budget)


TABLES = {
    "constant": lambda _y, _x: np.full(1, 0.5),
    "banded": lambda y: np.exp(-np.abs(y)) * (np.abs(y) <= 8),
    "separable": lambda y, x: np.exp(-np.abs(y) / 5 - np.abs(x) / 9),
}


def simple_table(name: str, f: Callable[..., np.ndarray], side: int, k: int) -> Contest:
    shape = (side * side,) if name == "banded" else (side, side)
    exact = Toeplitz.from_function(f, shape)
    matrix = Toeplitz(exact.offsets.astype(np.float32), levels=exact.levels)
    X = np.random.default_rng(k).standard_normal((side * side, k)).astype(np.float32)
    check = sampled_check(exact.offsets, shape, X)
    ways = {"transform": lambda: matrix._circulant.product(X)}
    return Contest(
        f"{name} table, {' x '.join(map(str, shape))}, k={k}", {"ours": lambda: matrix @ X}, ways, check, 1e-5
    )


def dense_factors(n: int, k: int) -> Contest:
    a, b = np.random.default_rng(n).standard_normal((2, n, n)).astype(np.float32)
    return _kronecker(f"kron of two dense {n} x {n}, k={k}", kron(Dense(a), Dense(b)), scipy.sparse.kron(a, b), k)


def sparse_factors(n: int, k: int) -> Contest:
    rng = np.random.default_rng(n)
    a, b = (scipy.sparse.random_array((n, n), density=min(1.0, 6 / n), rng=rng, dtype=np.float32) for _ in range(2))
    name = f"kron of two sparse {n} x {n}, k={k}"
    return _kronecker(name, kron(Sparse(a), Sparse(b)), scipy.sparse.kron(a, b), k)


def _kronecker(name: str, matrix: StructuredMatrix, formed: scipy.sparse.sparray, k: int) -> Contest:
    formed = scipy.sparse.csr_array(formed)
    X = np.random.default_rng(k).standard_normal((formed.shape[1], k)).astype(np.float32)
    exact = formed.astype(float) @ X.astype(float)
    ways = {"sparse.kron": lambda: formed @ X}
    return Contest(name, {"ours": lambda: matrix @ X}, ways, lambda Y: relative_error(Y, exact), 1e-5)


def hypercube(d: int, k: int) -> Contest:
    values = np.tanh(0.3) ** np.arange(d + 1)
    matrix, H = Hypercube(values.astype(np.float32)), scipy.linalg.hadamard(2**d).astype(np.float32)
    X = np.random.default_rng(d).standard_normal((2**d, k)).astype(np.float32)
    exact = Hypercube(values).to_dense() @ X.astype(float)
    return Contest(
        f"hypercube, n=2^{d} k={k}",
        {"ours": lambda: matrix @ X},
        {"hadamard": lambda: H @ X},
        lambda Y: relative_error(Y, exact),
        1e-5,
        unchecked=("hadamard",),
    )


def class_token(side: int, heads: int) -> Contest:
    inner = Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / 4), (side, side))
    mask, L = with_global_tokens(inner), side * side + 1
    rng = np.random.default_rng(side)
    F, G = np.abs(rng.standard_normal((2, heads, L, 64))).astype(np.float32)
    V = rng.standard_normal((heads, L, 64)).astype(np.float32)
    f, g, v = (np.ascontiguousarray(a[:, 1:]) for a in (F, G, V))
    A = (F[0].astype(float) @ G[0].T.astype(float)) * mask.to_dense()
    exact = (A @ V[0]) / A.sum(axis=1, keepdims=True)
    return Contest(
        f"class token, grid {side} x {side}, {heads} heads",
        {"ours": lambda: masked_attention(F, G, V, mask=mask, features=None)},
        {"without": lambda: masked_attention(f, g, v, mask=inner, features=None)},
        lambda out: relative_error(out[0], exact),
        1e-4,
        unchecked=("without",),
    )
