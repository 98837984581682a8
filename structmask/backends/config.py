"""Which backend runs: a context, else the process setting, else the environment, else the arrays themselves."""

from __future__ import annotations

import contextlib
import contextvars
import importlib.metadata
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

BACKENDS = ("auto", "numba", "numpy", "cupy")
ENVIRONMENT_VARIABLE = "STRUCTMASK_BACKEND"

_WHEELS = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
_OLDEST = (14, 2)  # names of the array API standard are missing in older ones
_LIBRARIES = ("nvrtc", "cublas", "cufft", "cusolver", "cusparse")

_context: contextvars.ContextVar[str | None] = contextvars.ContextVar("structmask_backend", default=None)
_process: list[str] = []
_environment = os.environ.get(ENVIRONMENT_VARIABLE, "")  # read once: a look-up costs more than a small product


class BackendError(RuntimeError):
    """A backend that cannot run here, or arrays that live where the backend in force cannot use them."""


def get_backend() -> str:
    """Name of the backend in force: "auto", "numba", "numpy" or "cupy".

    The innermost `use_backend` decides, then `set_backend`, then what the environment variable STRUCTMASK_BACKEND was
    when structmask was imported, and "auto" otherwise.

    Examples
    --------
    >>> from structmask import get_backend, use_backend
    >>> with use_backend("numpy"):
    ...     get_backend()
    'numpy'
    """
    name = _context.get()
    if name is not None:
        return name
    if _process:
        return _process[0]
    return _checked(_environment or "auto", source=ENVIRONMENT_VARIABLE)


def set_backend(name: str, /) -> None:
    """Choose the backend of this process.

    Parameters
    ----------
    name : {"auto", "numba", "numpy", "cupy"}
        "auto" lets the arrays decide and runs host arrays on numba; "numpy" is the plain reference;
        "cupy" moves host arrays to the GPU at the public boundary and leaves results there.

    Raises
    ------
    ValueError
        If the name is unknown.
    BackendError
        If "cupy" is asked for where no GPU can be used; the sentence says why and what to do.

    Examples
    --------
    >>> from structmask import get_backend, set_backend
    >>> set_backend("auto")
    >>> get_backend()
    'auto'
    """
    _process[:] = [_usable(name)]


@contextlib.contextmanager
def use_backend(name: str, /) -> Iterator[None]:
    """Choose the backend inside a `with` block, for this thread or asynchronous task only.

    Takes the names of `set_backend` and raises its errors.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Causal, use_backend
    >>> with use_backend("numpy"):
    ...     Causal(3) @ np.ones(3)
    array([1., 2., 3.])
    """
    token = _context.set(_usable(name))
    try:
        yield
    finally:
        _context.reset(token)


def processors() -> int:
    """Number of processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cupy_status() -> str | None:
    """None if CuPy can run here, else one sentence of cause and remedy. Never raises."""
    if len(wheels := cupy_wheels()) > 1:
        return (
            f"{' and '.join(wheels)} are installed over each other: uninstall all, then install one, for your driver."
        )
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return "CuPy is not installed: pip install '.[cuda12]' or '.[cuda13]' from a clone, to match the driver."
        return f"CuPy is installed but {error.name!r}, which it needs, is not: reinstall the CuPy wheel."
    except Exception as error:  # noqa: BLE001  a broken CUDA installation raises anything at import
        return (
            f"CuPy is installed but does not import ({_brief(error)}): keep exactly one cupy-cudaNNx wheel, "
            "matching the driver."
        )
    if tuple(map(int, re.findall(r"\d+", cupy.__version__)[:2])) < _OLDEST:
        return f"CuPy {cupy.__version__} is too old: upgrade its wheel to {'.'.join(map(str, _OLDEST))} at least."
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # noqa: BLE001  the driver's errors have no common base class
        return f"CuPy {cupy.__version__} imports but finds no usable CUDA driver ({_brief(error)}): check nvidia-smi."
    if not count:
        return f"CuPy {cupy.__version__} finds no CUDA device: check nvidia-smi and CUDA_VISIBLE_DEVICES."
    return _missing_library(cupy)


@cache
def cupy_wheels() -> tuple[str, ...]:
    """Names of the distributions of CuPy that are installed: one import name, and a wheel for each CUDA release."""
    return tuple(name for name in _WHEELS if any(importlib.metadata.distributions(name=name)))


def _missing_library(cupy: Any) -> str | None:
    """CuPy loads a library of CUDA when it is first asked for: better now than inside a product."""
    for library in _LIBRARIES:
        try:
            getattr(cupy.cuda, library, None)
        except ImportError as error:
            return (
                f"CuPy {cupy.__version__} does not find {library}, a library of CUDA ({_brief(error)}): install the "
                "toolkit of CUDA, or the wheel of CuPy with its extra [ctk]."
            )
    return None


def _brief(error: BaseException) -> str:
    """What went wrong at first, on one line."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _usable(name: str) -> str:
    if _checked(name) == "cupy" and (reason := cupy_status()):
        msg = f"backend 'cupy' cannot run here. {reason}"
        raise BackendError(msg)
    return name


def _checked(name: str, source: str = "backend") -> str:
    if name in BACKENDS:
        return name
    msg = f"unknown {source} {name!r}; choose one of {', '.join(map(repr, BACKENDS))}"
    raise ValueError(msg)
