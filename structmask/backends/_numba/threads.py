"""One function compiled twice: for one thread, and with its `prange` loops on all of them."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from numba import njit


def serial_and_parallel(function: Callable[..., Any], **options: Any) -> tuple[Any, Any]:
    """Both forms, cached apart: numba's cache knows a function by its name and line, whatever it is compiled with."""
    return njit(nogil=True, cache=True, **options)(function), njit(nogil=True, cache=True, parallel=True, **options)(
        _renamed(function, f"{function.__qualname__}_parallel")
    )


def _renamed(function: Any, name: str) -> Any:
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, name
    return copy
