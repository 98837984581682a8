"""Linear attention under a compressed table, one head, float32: time of others / that of the compressed mask.

Tables are compressed to 1e-6 in mass once, before; `compress, s` is how long that takes. `fused` and `dense`
are those methods under the table itself. `backward` is the gradient for queries, keys and values over the forward pass,
`with mask` that for the mask's generators too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.bench_attention import inputs, sampled_check
from benchmarks.contest import Contest, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import LowRank, StructuredMatrix, Toeplitz, explain
from structmask.attention import attend, attend_pullback

TABLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp(-s/200)": lambda s: np.exp(-s / 200),
    "(1+s)^-1/2": lambda s: (1 + s) ** -0.5,
    "1/(1+s)": lambda s: 1 / (1 + s),
    "Matern 3/2, n/10": lambda s: (1 + 20 * s / s.size) * np.exp(-20 * s / s.size),
}
LONGEST_DENSE = 20_000


def rows(settings: Settings) -> Iterator[Row]:
    m, e = (3, 2) if settings.tiny else (64, 64)
    for L in (80, 300) if settings.tiny else (4096, 16384, 65536):
        for name in TABLES:
            yield run(contest(name, L, m, e), budget=settings.budget)


def contest(name: str, L: int, m: int, e: int) -> Contest:
    F, G, V, _ = inputs(L, m, e)
    table = TABLES[name](np.abs(np.arange(1.0 - L, L)))
    start = time.perf_counter()
    mask = Toeplitz(table).compress(tol=1e-6)
    seconds = time.perf_counter() - start
    given = Toeplitz(table.astype(np.float32))
    out, mass = attend(F, G, V, mask)
    ours: dict[str, Callable[[], Any] | str] = {"auto": lambda: attend(F, G, V, mask)[0]}
    methods = {step.method for step in explain(given * LowRank(F, G), columns=e).steps}
    fused = (lambda: attend(F, G, V, given, method="fused")[0]) if "fused" in methods else "- (backend)"
    dense = (lambda: attend(F, G, V, given, method="dense")[0]) if L <= LONGEST_DENSE else "- (long)"
    peers: dict[str, Callable[[], Any] | str] = {
        "fused": fused,
        "dense": dense,
        "backward": lambda: _gradients(F, G, V, mask, out, mass, with_mask=False),
        "with mask": lambda: _gradients(F, G, V, mask, out, mass, with_mask=True),
    }
    notes = {"states": f"{mask.rank}+{mask.width}", "compress, s": f"{seconds:.2f}"}  # type: ignore[attr-defined]
    check = sampled_check(F, G, V, table)
    return Contest(f"{name}, L={L}", ours, peers, check, 1e-4, unchecked=("backward", "with mask"), notes=notes)


def _gradients(
    F: np.ndarray,
    G: np.ndarray,
    V: np.ndarray,
    mask: StructuredMatrix,
    out: np.ndarray,
    mass: np.ndarray,
    *,
    with_mask: bool,
) -> Any:
    return attend_pullback(F, G, V, mask, out, mass, out, needs=(True, True, True, with_mask))
