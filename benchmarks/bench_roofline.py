"""Rooflines: how far each operation is from what the machine could do, all measured in this run.

`moved` is the time to copy the operands once, `computed` that of the algorithm's own operations at the speed of numpy's
matrix product (of 1024 x 1024, single precision); the floor is the larger one, and `ours / floor` what is left.
Transforms never reach the speed of a matrix product: a third of it is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from benchmarks.bench_attention import inputs
from benchmarks.contest import relative_error
from benchmarks.report import Row
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from structmask import Causal, LowRank, StructuredMatrix, Toeplitz, explain, masked_attention

BLOCK = 1024  # side of the matrix product that gives the machine's peak


PRODUCTS = (((4096,), 64), ((65536,), 64), ((256, 256), 64), ((32, 32, 32), 16))


def rows(settings: Settings) -> Iterator[Row]:
    for grid, k in (((9,), 2),) if settings.tiny else PRODUCTS:
        yield _product(grid, k, settings)
    for L in (16,) if settings.tiny else (1024, 4096, 16384, 65536):
        yield _attention("relative positions", Toeplitz, L, settings)
        yield _attention("causal", lambda table: Causal((table.size + 1) // 2, decay=0.99), L, settings)


def _product(grid: tuple[int, ...], k: int, settings: Settings) -> Row:
    rng = np.random.default_rng(k)
    table = rng.standard_normal([2 * n - 1 for n in grid]).astype(np.float32)
    X = rng.standard_normal((int(np.prod(grid)), k)).astype(np.float32)
    matrix, wide = Toeplitz(table, levels=len(grid)), Toeplitz(table.astype(float), levels=len(grid))
    error = relative_error(matrix @ X, wide @ X.astype(float))
    flops = explain(matrix, columns=k).flops
    name = f"product {' x '.join(map(str, grid))}, k={k}"
    return _row(name, lambda: matrix @ X, flops, (X,), error, settings)


def _attention(name: str, build: Callable[..., StructuredMatrix], L: int, settings: Settings) -> Row:
    F, G, V, table = inputs(L, *((3, 2) if settings.tiny else (64, 64)))
    mask = build(table)
    plan = explain(mask * LowRank(F, G), columns=V.shape[1])
    out = masked_attention(F, G, V, mask=mask, features=None)
    wide = masked_attention(*(a.astype(float) for a in (F, G, V)), mask=mask, features=None)
    row = _row(
        f"attention, {name}, L={L}",
        lambda: masked_attention(F, G, V, mask=mask, features=None),
        plan.flops,
        (F, G, V),
        relative_error(out, wide),
        settings,
    )
    row.figures["method"] = plan.method
    return row


def _row(
    case: str, call: Callable[[], Any], flops: float, operands: tuple[Any, ...], error: float, settings: Settings
) -> Row:
    if not error < 1e-4:
        msg = f"{case} is off by {error:.1e}"
        raise AssertionError(msg)
    A, B, C = _square()
    results = [np.empty_like(a) for a in operands]

    def copy() -> None:
        for result, operand in zip(results, operands, strict=True):
            np.copyto(result, operand)

    calls = {"ours": call, "copy": copy, "product": lambda: np.matmul(A, B, out=C)}
    time = {name: timing.best for name, timing in interleaved(calls, budget=settings.budget).items()}
    computed = flops * time["product"] / (2.0 * BLOCK**3)
    floor = max(time["copy"], computed)
    figures = {
        "ours, ms": time["ours"] * 1e3,
        "error": f"{error:.0e}",
        "moved": time["copy"] / time["ours"],
        "computed": computed / time["ours"],
        "ours / floor": time["ours"] / floor,
    }
    return Row(case, figures)


@cache
def _square() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    A, B = np.random.default_rng(0).random((2, BLOCK, BLOCK), dtype=np.float32)
    return A, B, np.empty_like(A)
