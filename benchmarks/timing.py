"""Several callables timed in turns, so that whatever else the machine does meets all of them alike.

Every library here keeps its own threads (BLAS, numba, scipy.fft, torch). Threads of one that still spin after its call
slow down the next one for some milliseconds, and sleeping ones take time to wake. So before every timed repetition

1. the process sleeps for `QUIET` seconds: the threads of the callable before stop spinning, those of OpenBLAS after
   2^26 cycles;
2. the callable itself runs untimed, at least once and for at least `WAKE` seconds: its own threads are awake and each
   on a core of its own, which takes a scheduler some slices of 4 ms, and its operands are where they will be. A
   callable that takes longer than `LONG` skips this: milliseconds do not show in it.

With --one-thread the clock is the processor time of the process, and every library has one thread: what others do on
the machine hardly shows then, but nor does how well each uses several threads.

Short callables are repeated inside one timed repetition until it lasts about `BLOCK` seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.settings import one_thread

QUIET, WAKE, LONG, BLOCK = 0.05, 0.02, 0.1, 0.002


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the least and the median of the repetitions, and how many there were."""

    best: float
    median: float
    repetitions: int


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, budget: float = 1.0, at_least: int = 3, at_most: int = 25
) -> dict[str, Timing]:
    """Time callables in turns, A B C A B C ..., for about `budget` seconds in all.

    Callables must have run before (compiled code, plans). One that takes more than the whole budget is timed once only.
    """
    if not calls:
        return {}
    start = time.perf_counter()
    first = {name: _once(call) for name, call in calls.items()}
    seconds = {name: [value] if value > LONG else [] for name, value in first.items()}
    while True:
        for name, call in calls.items():
            if first[name] <= budget or not seconds[name]:
                seconds[name].append(_repetition(call, first[name]))
        rounds = min((len(seconds[name]) for name in calls if first[name] <= budget), default=at_most)
        late = time.perf_counter() - start > budget
        if rounds >= at_most or (late and rounds >= _rounds_wanted(first, budget, at_least)):
            break
    return {name: Timing(min(values), statistics.median(values), len(values)) for name, values in seconds.items()}


def _rounds_wanted(first: Mapping[str, float], budget: float, at_least: int) -> int:
    """Fewer repetitions than wanted where one turn of all callables takes longer than the budget."""
    return at_least if sum(value for value in first.values() if value <= budget) <= budget else 1


def _clock() -> float:
    return time.process_time() if one_thread() else time.perf_counter()


def _repetition(call: Callable[[], Any], expected: float) -> float:
    time.sleep(QUIET)
    if expected > LONG:
        return _once(call)
    start = _clock()
    inner = 0
    while inner == 0 or _clock() - start < WAKE:
        call()
        inner += 1
    each = (_clock() - start) / inner
    inner = max(1, round(BLOCK / max(each, 1e-9)))
    start = _clock()
    for _ in range(inner):
        call()
    return (_clock() - start) / inner


def _once(call: Callable[[], Any]) -> float:
    start = _clock()
    call()
    return _clock() - start
