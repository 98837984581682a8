"""Jobs of the FFT products: compiled once per vector width and precision, run by one thread or shared by all.

A job is a function of (worker, workers) that does tasks worker, worker + workers, ..., and a loop over workers that calls it by
address: its code is compiled once, and the loop, which only calls, quickly. Signatures are explicit, with read-only data arguments, so
that one version serves writable and read-only arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from .fft_plan import Plan, stage_cost

POOLED_BYTES = 32 * 1024 * 1024
# Stage-rows (rows of one signal times `stage_cost`) below which a second thread costs more than it saves.
SERIAL_WORK = 20_000

_pool = threading.local()


def scratch(workers: int, rows: int, lanes: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uninitialised (workers, numbers) for `rows` rows each, aligned to cache lines; small ones are kept by the calling thread."""
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


def block_widths(plan: Plan) -> tuple[int, int]:
    """The numbers of lanes in use: whole vectors, and a quarter of one for few columns (the same work in less memory)."""
    lanes = plan.lane_bytes // plan.dtype.itemsize
    return lanes, max(1, lanes // 4)


def share(plan: Plan, tasks: int) -> int:
    """Workers for as many tasks of one product: 1 if the work is too small to share."""
    work = tasks * plan.h * stage_cost(plan.radices)
    return 1 if work < SERIAL_WORK else min(tasks, numba.get_num_threads())


@dataclass(frozen=True)
class Job:
    """`tasks(worker, workers, lanes, legs, stages, *given, *made, rows)` and the loop `share(tasks, lanes, ..., rows)` over workers.

    `given` and `made` tell the arrays read and written by their numbers of axes (0: an integer); the first of `given` are the
    twiddle factors.
    """

    tasks: Callable[..., None]
    share: Callable[..., None]
    given: tuple[int, ...]
    made: tuple[int, ...]

    def run(self, plan: Plan, lanes: int, workers: int, signals: int, *arrays: Any, alone: bool = True) -> None:
        """Run on `arrays` (`given` without the twiddles, and `made`); one worker skips the loop if it may run `alone`."""
        rows = scratch(workers, signals * plan.scratch_rows, lanes, plan.dtype)
        key = (self, lanes, plan.radices[0], plan.dtype)
        shape = ((0,) * lanes, (0,) * plan.radices[0], plan.stages, plan.twiddles)
        if workers == 1 and alone:
            _compiled_tasks(*key)(0, 1, *shape, *arrays, rows[0])
        else:
            _compiled_share(*key)(_compiled_tasks(*key), *shape, *arrays, rows)


def _arguments(job: Job, lanes: int, legs: int, dtype: np.dtype[Any], axes_of_rows: int) -> list[Any]:
    number = numba.from_dtype(dtype)
    arguments = [types.UniTuple(types.int64, count) for count in (lanes, legs)]
    arguments.append(types.Array(types.int64, 2, "C", readonly=True))
    arguments += [types.Array(number, axes, "C", readonly=True) if axes else types.int64 for axes in job.given]
    return arguments + [types.Array(number, axes, "C") for axes in (*job.made, axes_of_rows)]


@cache
def _compiled_tasks(job: Job, lanes: int, legs: int, dtype: np.dtype[Any]) -> Any:
    signature = types.void(types.int64, types.int64, *_arguments(job, lanes, legs, dtype, 1))
    return njit(signature, nogil=True, cache=True)(job.tasks)


@cache
def _compiled_share(job: Job, lanes: int, legs: int, dtype: np.dtype[Any]) -> Any:
    function = types.FunctionType(_compiled_tasks(job, lanes, legs, dtype).nopython_signatures[0])
    signature = types.void(function, *_arguments(job, lanes, legs, dtype, 2))
    return njit(signature, nogil=True, cache=True, parallel=True)(job.share)
