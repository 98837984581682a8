"""Peak memory beyond the operands, float32, the result included: multiples of the operand's size, or MB for attention.

Hitting times and kernels of random walks are in double precision, and in multiples of the size of their graph.
The most that the process has resident during a call, less what it has before; Linux only. Every call has run once
before, so that plans, spectra and compiled code do not count.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks import bench_attention, bench_markov, bench_walks, peers
from benchmarks.report import Row
from benchmarks.settings import Settings, threads
from structmask import (
    Causal,
    LowRank,
    MarkovChain,
    StructuredMatrix,
    Toeplitz,
    explain,
    masked_attention,
    random_walk_kernel,
)

MEGABYTE = 1e6
LONGEST = 8.0  # seconds that a method may be expected to take


def peak_bytes(call: Callable[[], Any]) -> float | None:
    """How much more memory than before a call has resident at its peak; None where the system does not tell."""
    call()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, so that using it again shows
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # starts the peak anew
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def rows(settings: Settings) -> Iterator[Row]:
    yield from _products(settings)
    yield from _attention(settings)
    yield from _hitting_times(settings)
    yield from _random_walks(settings)


def _products(settings: Settings) -> Iterator[Row]:
    cases = [((64,), 4)] if settings.tiny else [((65536,), 64), ((5000,), 512), ((256, 256), 64), ((32, 32, 32), 64)]
    for grid, k in cases:
        rng = np.random.default_rng(k)
        table = rng.standard_normal([2 * n - 1 for n in grid]).astype(np.float32)
        X = rng.standard_normal((int(np.prod(grid)), k)).astype(np.float32)
        matrix, cached = Toeplitz(table, levels=len(grid)), peers.CachedSpectrum(table, grid)
        ways: dict[str, Callable[[], Any]] = {
            "ours": lambda M=matrix, X=X: M @ X,
            "scipy.fft": lambda c=cached, X=X: c(X),
        }
        if len(grid) == 1:
            half = (table.size + 1) // 2
            pair = (table[half - 1 :], table[half - 1 :: -1])
            ways["matmul_toeplitz"] = lambda p=pair, X=X: scipy.linalg.matmul_toeplitz(p, X, workers=threads())
        yield _row(f"product {' x '.join(map(str, grid))}, k={k}, operands", ways, X.nbytes)


def _attention(settings: Settings) -> Iterator[Row]:
    L, m = (128, 4) if settings.tiny else (16384, 64)
    F, G, V, table = bench_attention.inputs(L, m, m)
    for name, mask in (("Toeplitz", Toeplitz(table)), ("causal", Causal(L, decay=0.99))):
        yield _row(f"{name} attention L={L} m=e={m}, MB", _methods(mask, F, G, V), MEGABYTE)
    torch = peers.torch_or_none()
    if torch is not None:
        f, g, v, t = map(torch.from_numpy, (F, G, V, table))
        ways: dict[str, Callable[[], Any]] = {
            "batched": lambda: peers.causal_batched(torch, f[None], g[None], v[None], 1.0)
        }
        if peers.literal_bytes(L, m, m) < 0.7 * peers.available_bytes():
            ways["literal"] = lambda: peers.literal_algorithm(torch, f, g, v, t)
        yield _row(f"torch, L={L} m=e={m}, MB", ways, MEGABYTE)


def _hitting_times(settings: Settings) -> Iterator[Row]:
    """One target on a grid and on a tree, in multiples of the chain: that of a million nodes and that of 250,000."""
    for side in [10] if settings.tiny else [500, 1000]:
        for name, W in (("grid", bench_markov.grid(side)), ("tree", bench_markov.recursive_tree(side * side))):
            chain = MarkovChain.from_graph(W)
            P = chain.transition
            size = P.data.nbytes + P.indices.nbytes + P.indptr.nbytes
            yield _row(
                f"hitting times, {name}, {side * side:,} nodes, chains",
                {"ours": lambda chain=chain: chain.hitting_times(0)},
                size,
            )


def _random_walks(settings: Settings) -> Iterator[Row]:
    """Kernels of a ring with chords times two columns: exact, and sampled by 8 walks a node."""
    for nodes in [200] if settings.tiny else [250_000, 1_000_000]:
        W, X = bench_walks.ring(nodes), np.ones((nodes, 2))
        size = W.data.nbytes + W.indices.nbytes + W.indptr.nbytes
        ways = {
            name: lambda W=W, X=X, walks=walks: random_walk_kernel(W, bench_walks.LENGTH, walks=walks, rng=0) @ X
            for name, walks in (("exact", None), ("sampled", 8))
        }
        yield _row(f"random walks, {nodes:,} nodes, graphs", ways, size)


def _methods(mask: StructuredMatrix, F: np.ndarray, G: np.ndarray, V: np.ndarray) -> dict[str, Callable[[], Any]]:
    steps = explain(mask * LowRank(F, G), columns=V.shape[1]).steps
    names = ["auto", *sorted(step.method for step in steps if step.seconds < LONGEST)]
    return {name: lambda name=name: masked_attention(F, G, V, mask=mask, features=None, method=name) for name in names}


def _row(case: str, ways: dict[str, Callable[[], Any]], unit: float) -> Row:
    row = Row(case)
    for name, way in ways.items():
        peak = peak_bytes(way)
        row.figures[name] = "- (Linux only)" if peak is None else peak / unit
    return row
