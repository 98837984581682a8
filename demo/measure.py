"""Time, memory and error of the three computations of one attention problem, at growing length."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import structmask as sm
from demo import rivals
from demo.rivals import Case

_DENSE_ROWS = 512  # the dense computation is timed on this many rows: its rows all cost the same
_CHECKED_ROWS, _CHECKED_ENTRIES = 512, 1 << 23
_MEMORY_LIMIT = 1.5e9
_SECONDS = 0.5  # what the repetitions of one computation may take together
_SHORT = 0.1  # seconds of a call before which it pays to wake its threads
_RIVALS_UP_TO = 16384
_PATIENCE = 8.0  # expected seconds beyond which a length is left out


@dataclass(frozen=True)
class Measured:
    """Median time in seconds and peak of additional memory in bytes; nothing where it was not run."""

    seconds: float | None = None
    memory: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Row:
    """One length."""

    tokens: int
    method: str
    ours: Measured
    dense: Measured
    literal: Measured
    error: float

    def ratio(self, rival: str) -> float | None:
        """How many times longer a rival takes."""
        other: Measured = getattr(self, rival)
        if other.seconds is None or self.ours.seconds is None:
            return None
        return other.seconds / self.ours.seconds


Say = Callable[[str], None]


def sweep(make_case: Callable[[int], Case], sizes: Sequence[int], say: Say) -> tuple[Row, ...]:
    """One row a length. The first passes compile what the lengths need, so that no measurement contains it."""
    _compile(make_case, sizes, say)
    rows: list[Row] = []
    for size in sizes:
        if rows and (rows[-1].ours.seconds or 0) * size / rows[-1].tokens > _PATIENCE:
            say(f"{size:,} tokens would take too long here: left out")
            break
        say(f"{size:,} tokens")
        rows.append(_row(make_case(size)))
    return tuple(rows)


def worst_row(case: Case, out: Any, count: int = _CHECKED_ROWS) -> float:
    """Largest error of a row, relative to that row, against the dense computation in float64; evenly spread rows."""
    rows = _spread(case.tokens, min(count, _CHECKED_ENTRIES // case.tokens))
    exact = rivals.dense(case.astype(np.float64), rows)
    error = np.abs(out[:, rows] - exact).max(axis=-1)
    scale = np.abs(exact).max(axis=-1)
    return float((error / np.where(scale == 0, 1, scale)).max())


def _compile(make_case: Callable[[int], Case], sizes: Sequence[int], say: Say) -> None:
    say("compiling kernels (once: they are kept)")
    methods = {_method(make_case(size)) for size in sizes}
    small = make_case(sizes[0])
    for method in sorted(methods):
        sm.masked_attention(small.F, small.G, small.V, mask=small.mask, features=None, method=method)


def _method(case: Case) -> str:
    return sm.explain(case.mask * sm.LowRank(case.F, case.G), columns=case.V.shape[-1]).method


def _row(case: Case) -> Row:
    runs: dict[str, Callable[[], Any]] = {"ours": lambda: rivals.structured(case)}
    why_not = {"dense": "", "literal": ""}
    rows = _spread(case.tokens, _DENSE_ROWS)
    if case.tokens > _RIVALS_UP_TO:
        why_not = dict.fromkeys(why_not, "not run")
    else:
        runs["dense"] = lambda: rivals.dense(case, rows)
        if rivals.literal_bytes(case) <= _MEMORY_LIMIT:
            runs["literal"] = lambda: rivals.literal(case)
    if "literal" not in runs and rivals.literal_bytes(case) > _MEMORY_LIMIT:
        why_not["literal"] = f"needs {rivals.literal_bytes(case) / 1e9:.1f} GB"
    results, memory = {}, {}
    for name, run in runs.items():
        results[name], memory[name] = _peak(run)
    seconds = _medians(runs)
    if "dense" in seconds:
        seconds["dense"] *= case.tokens / rows.size
        memory["dense"] += (case.tokens - rows.size) * case.V[:, 0].nbytes
    found = {name: Measured(seconds[name], memory[name]) for name in runs}
    missing = {name: Measured(why_not=why) for name, why in why_not.items()}
    return Row(case.tokens, _method(case), **{**missing, **found}, error=worst_row(case, results["ours"]))


def _spread(tokens: int, count: int) -> Any:
    return np.unique(np.linspace(0, tokens - 1, min(tokens, count)).astype(np.intp))


def _peak(run: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the most memory that numpy held at once on the way beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    try:
        return run(), float(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def _medians(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Medians of interleaved repetitions, one at least and seven at most; the memory passes were the warm-up.

    Threads of a library still spin for a while after its call: each repetition waits for those of the one before, and a
    short one wakes its own threads by a call that is not timed.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(7):
        for name, run in runs.items():
            if times[name] and sum(times[name]) > _SECONDS:
                continue
            time.sleep(0.01)
            if times[name] and times[name][-1] < _SHORT:
                run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}
