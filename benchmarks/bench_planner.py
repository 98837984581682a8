"""The planner: time of its choice over that of the best method, and what it expects beside what is measured.

Every method that applies to a mask, over lengths L, features m, values e and kinds of masks, float32, one head; methods
expected to take long are left out. `auto / best` is the time of method="auto", checks of accuracy included, over the
least of all. Under each method: its time in ms, and in brackets its expected over its measured time. From the JSON file
in the output folder, `python -m benchmarks.fit_planner` fits the rates of structmask/linalg/planning.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.contest import relative_error
from benchmarks.report import Row, number
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from structmask import Causal, LowRank, Plan, Sparse, StructuredMatrix, Toeplitz
from structmask.backends import get_backend
from structmask.linalg.hadamard import Hadamard, masked_product

LONGEST = 2.0  # seconds that a method may be expected to take
LENGTHS = (64, 256, 1024, 4096, 16384, 65536)
WIDTHS = ((16, 16), (64, 64), (16, 128), (128, 16))


def rows(settings: Settings) -> Iterator[Row]:
    lengths, widths = ((1, 16), ((3, 2),)) if settings.tiny else (LENGTHS, WIDTHS)
    worst = 0.0
    for kind, (m, e) in product(KINDS, widths):
        slow: set[str] = set()
        for L in lengths:
            row = measure(kind, L, m, e, budget=settings.budget, without=slow)
            slow.update(name for name, seconds in row.details["seconds"].items() if 4 * seconds > LONGEST)
            worst = max(worst, row.figures["auto / best"])
            yield row
    yield Row("worst", {"auto / best": worst})


def measure(kind: str, L: int, m: int, e: int, *, budget: float = 0.6, without: Collection[str] = ()) -> Row:
    """One product by every method but those `without`, which are known to take long; checked against each other."""
    mask, F, G, V = operands(kind, L, m, e)
    plan = plan_of(mask, L, m, e)
    quick = [step for step in plan.steps if step.seconds < LONGEST and step.method not in without]
    expected = {step.method: step.seconds for step in {plan.steps[0], *quick}}
    calls: dict[str, Callable[[], Any]] = {
        name: lambda name=name: masked_product(mask, F, G, V, name) for name in ("auto", *sorted(expected))
    }
    _check(f"{kind} L={L}", calls)
    times = interleaved(calls, budget=budget)
    best = min(time.best for time in times.values())
    row = Row(f"{kind} L={L} m={m} e={e}", {"choice": plan.method, "auto / best": times["auto"].best / best})
    for name in sorted(expected):
        row.figures[f"{name}, ms"] = f"{number(times[name].best * 1e3)} ({number(expected[name] / times[name].best)})"
    row.details = {
        "sample": {"kind": kind, "L": L, "m": m, "e": e, "backend": get_backend()},
        "seconds": {name: time.best for name, time in times.items()},
        "work": {step.method: asdict(step.work) for step in plan.steps},
    }
    return row


def plan_of(mask: StructuredMatrix, L: int, m: int, e: int) -> Plan:
    """The plan for float32 features; they are not looked at."""
    F = np.empty((L, m), np.float32)
    return Hadamard(mask, LowRank(F, F))._plan(e)


def _check(case: str, calls: dict[str, Callable[[], Any]]) -> None:
    """All methods agree with the dense one, or with each other where that would take too long."""
    results = {name: call() for name, call in calls.items()}
    exact, mass = results.get("dense", results["auto"])
    for name, (Y, total) in results.items():
        error = max(relative_error(Y, exact), relative_error(total, mass))
        if not error < 1e-4:
            msg = f"{case}: {name} is off by {error:.1e}"
            raise AssertionError(msg)


def operands(kind: str, L: int, m: int, e: int) -> tuple[StructuredMatrix, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(L)
    F, G = np.abs(rng.standard_normal((2, L, m))).astype(np.float32)
    return KINDS[kind](L), F, G, rng.standard_normal((L, e)).astype(np.float32)


# --- kinds of masks --------------------------------------------------------------------------------------------------


def _toeplitz(L: int) -> StructuredMatrix:
    return Toeplitz.from_function(lambda s: (np.exp(-np.abs(s) / 50) + 0.1).astype(np.float32), L)


def _grid(L: int) -> StructuredMatrix:
    """Two levels, sides as equal as L allows."""
    height = 2 ** (L.bit_length() // 2)
    sides = (height, L // height) if height and L % height == 0 else (1, L)
    return Toeplitz.from_function(lambda s, t: (np.exp(-np.hypot(s, t) / 5) + 0.1).astype(np.float32), sides)


def _causal(L: int) -> StructuredMatrix:
    return Causal(L, decay=np.full(L, 0.99, np.float32))


def _sum(L: int) -> StructuredMatrix:
    return _causal(L) + _toeplitz(L)


def _sparse(L: int) -> StructuredMatrix:
    rng = np.random.default_rng(L)
    source, target = np.repeat(np.arange(L), 8), rng.integers(0, L, 8 * L)
    values = rng.random(8 * L).astype(np.float32) + np.float32(0.1)
    return Sparse(scipy.sparse.csr_array((values, (source, target)), shape=(L, L)))


def _low_rank(L: int) -> StructuredMatrix:
    return LowRank(*np.random.default_rng(L).random((2, L, 4)).astype(np.float32))


KINDS: dict[str, Callable[[int], StructuredMatrix]] = {
    "toeplitz": _toeplitz,
    "grid": _grid,
    "causal": _causal,
    "sum": _sum,
    "sparse": _sparse,
    "low_rank": _low_rank,
}
