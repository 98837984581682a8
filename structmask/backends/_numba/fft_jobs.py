"""Jobs of the FFT products: compiled once per vector width and precision, run by one thread or shared by all.

A job is a function of (worker, workers) that does tasks worker, worker + workers, ... The loop over workers calls it
by address, so that its code is compiled once, for one thread and for many. Signatures are explicit, with read-only
data arguments: one version serves writable and read-only arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from structmask.backends._numba.threads import has_lost_threads

from .fft_plan import Plan

POOLED_BYTES = 64 * 1024 * 1024
# `Plan.work` of all tasks below which a second thread costs more than it saves.
SERIAL_WORK = 80_000

_pool = threading.local()


def scratch(workers: int, rows: int, lanes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uninitialised (workers, numbers), `rows` rows each, aligned to cache lines; kept by the thread if small."""
    width = (rows + 3) // 4 * 8 * lanes
    size = workers * width * dtype.itemsize
    kept = getattr(_pool, "bytes", None)
    if kept is None or kept.size < size:
        raw = np.empty(size + 64, np.uint8)
        skip = -raw.ctypes.data % 64
        kept = raw[skip : skip + size]
        if size <= POOLED_BYTES:
            _pool.bytes = kept
    aligned: NDArray[Any] = kept[:size].view(dtype).reshape(workers, width)
    return aligned


def worker_count(plan: Plan, tasks: int) -> int:
    """Workers for as many tasks of one product: 1 if the work is too small to share."""
    return 1 if tasks * plan.work < SERIAL_WORK else min(tasks, numba.get_num_threads())


@dataclass(frozen=True, eq=False)
class Job:
    """A compiled `tasks(turn, worker, workers, *sizes, levels, stages, twiddles, rows, *arrays)`.

    The sizes are tuples, for whose lengths it is compiled: lanes, phases, columns in a group, axes (one or more than
    one), legs of a first stage. `given` and `made` tell the arrays it reads and writes by their numbers of axes (0: an
    integer). Every worker ends a turn before one begins the next.
    """

    tasks: Callable[..., None]
    given: tuple[int, ...]
    made: tuple[int, ...]
    turns: int = 1

    def run(self, plan: Plan, workers: int, signals: int, *arrays: Any, phases: int = 1, group: int = 1) -> None:
        """Run on `arrays` with scratch for so many signals per worker."""
        rows = scratch(workers, signals * plan.scratch_rows, plan.lanes, plan.dtype)
        sizes = plan.lanes, phases, group, min(2, len(plan.axes)), plan.widest
        tables = *((0,) * size for size in sizes), plan.levels, plan.stages, plan.twiddles
        tasks = _compiled_tasks(self, plan.dtype, *sizes)
        if workers > 1 and not has_lost_threads():
            _compiled_loop(self, plan.dtype, *sizes)(tasks, self.turns, *tables, rows, arrays)
            return
        for turn in range(self.turns):
            tasks(turn, 0, 1, *tables, rows[0], *arrays)


def _loop(tasks, turns, lanes, phases, group, axes, legs, levels, stages, twiddles, rows, arrays):
    workers = len(rows)
    for turn in range(turns):
        for worker in prange(workers):
            tasks(
                turn, np.int64(worker), workers, lanes, phases, group, axes, legs, levels, stages, twiddles,
                rows[worker], *arrays,
            )  # fmt: skip


def _signature(job: Job, dtype: np.dtype[Any], sizes: tuple[int, ...]) -> tuple[list[Any], list[Any], Any]:
    """Types of the tables, of the arrays, and of a number."""
    number = numba.from_dtype(dtype)
    tables = [types.UniTuple(types.int64, count) for count in sizes]
    tables += [types.Array(types.int64, axes, "C", readonly=True) for axes in (3, 2)]
    tables += [types.Array(number, 1, "C", readonly=True)]
    arrays = [types.Array(number, axes, "C", readonly=True) if axes else types.int64 for axes in job.given]
    return tables, arrays + [types.Array(number, axes, "C") for axes in job.made], number


@cache
def _compiled_tasks(job: Job, dtype: np.dtype[Any], *sizes: int) -> Any:
    tables, arrays, number = _signature(job, dtype, sizes)
    signature = types.void(*(types.int64,) * 3, *tables, types.Array(number, 1, "C"), *arrays)
    return njit(signature, nogil=True, cache=True)(job.tasks)


@cache
def _compiled_loop(job: Job, dtype: np.dtype[Any], *sizes: int) -> Any:
    tables, arrays, number = _signature(job, dtype, sizes)
    tasks = types.FunctionType(_compiled_tasks(job, dtype, *sizes).nopython_signatures[0])
    signature = types.void(tasks, types.int64, *tables, types.Array(number, 2, "C"), types.Tuple(arrays))
    return njit(signature, nogil=True, cache=True, parallel=True)(_loop)
