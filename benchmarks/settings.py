"""What every benchmark is told."""

from __future__ import annotations

import os
from dataclasses import dataclass

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
ONE_THREAD = "STRUCTMASK_BENCHMARK_ONE_THREAD"  # set by --one-thread, before anything else is imported


@dataclass(frozen=True)
class Settings:
    """Tiny sizes or the real ones, and about how many seconds a row may take."""

    tiny: bool = False
    budget: float = 0.6


def one_thread() -> bool:
    """Whether everything runs on one thread and processor time is measured."""
    return ONE_THREAD in os.environ


def threads() -> int:
    """Threads that a library may use."""
    if one_thread():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
