"""Functions with `prange` loops: on all threads, on one, and what becomes of threads after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

from numba import njit, threading_layer

_lost: list[bool] = []  # not empty in a process that was forked from one with OpenMP threads


def parallel(function: Callable[..., Any], **options: Any) -> Any:
    """A kernel with its `prange` loops on all threads.

    GNU OpenMP does not survive a fork: a child that starts threads again is ended by a signal. There the loops run on
    one thread, as the workers of a data loader should.
    """
    alone = njit(nogil=True, cache=True, **options)(_renamed(function, "alone"))
    return _in_any_process(njit(nogil=True, cache=True, parallel=True, **options)(function), alone)


def serial_and_parallel(function: Callable[..., Any], **options: Any) -> tuple[Any, Any]:
    """A kernel for one thread, and `parallel`, cached apart: numba's cache knows a function by its name and line."""
    serial = njit(nogil=True, cache=True, **options)(function)
    threaded = njit(nogil=True, cache=True, parallel=True, **options)(_renamed(function, "parallel"))
    return serial, _in_any_process(threaded, serial)


def has_lost_threads() -> bool:
    """Whether this process was forked from one whose threads it cannot start anew."""
    return bool(_lost)


def _in_any_process(threaded: Any, alone: Any) -> Any:
    @wraps(threaded)
    def run(*given: Any) -> Any:
        return (alone if _lost else threaded)(*given)

    run.threaded = threaded  # type: ignore[attr-defined]
    return run


def _renamed(function: Any, suffix: str) -> Any:
    name = f"{function.__qualname__}_{suffix}"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, name
    return copy


def _after_fork() -> None:
    try:
        layer = threading_layer()
    except ValueError:  # no threads were ever started
        return
    if layer == "omp":
        _lost.append(True)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
