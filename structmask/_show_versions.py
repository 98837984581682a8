"""What a report of a problem should contain: versions, threads, backend, GPU."""

import importlib.metadata
import os
import platform
import sys
from typing import TextIO

import numpy as np

from structmask.backends import config

_PACKAGES = ("structmask", "numpy", "scipy", "numba", "torch", "cupy", "networkx", "igraph", "matplotlib")
_THREAD_SETTINGS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def show_versions(stream: TextIO | None = None) -> None:
    """Write the versions and settings that decide what this library does on this machine.

    Versions are read from the installed metadata: no package is imported for it. Whether a GPU is usable, and which
    there are, is asked of CuPy, where that is installed.

    Parameters
    ----------
    stream : file, optional
        Where the lines go; the current ``sys.stdout`` by default.

    Examples
    --------
    >>> import io
    >>> import structmask as sm
    >>> report = io.StringIO()
    >>> sm.show_versions(report)
    >>> "numpy" in report.getvalue()
    True
    """
    lines = [f"{name + ':':<12}{text}" for name, text in _facts()]
    (sys.stdout if stream is None else stream).write("\n".join(lines) + "\n")


def _facts() -> list[tuple[str, str]]:
    return [
        ("python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"),
        *((name, _version(name)) for name in _PACKAGES),
        ("blas", _blas()),
        ("threads", _threads()),
        ("backend", config.get_backend()),
        ("gpu", config.cupy_status() or _devices()),
    ]


def _version(name: str) -> str:
    found = config.cupy_wheels() if name == "cupy" else (name,)
    try:
        versions = [importlib.metadata.version(distribution) for distribution in found]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    return ", ".join(versions) or "not installed"


def _devices() -> str:
    """The cards that CuPy sees, the driver, and the CUDA release of the wheel."""
    import cupy

    runtime = cupy.cuda.runtime
    cards = [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())]
    named = [
        f"{card['name'].decode()} ({card['totalGlobalMem'] / 2**30:.0f} GiB, sm_{card['major']}{card['minor']})"
        for card in cards
    ]
    driver, release = (
        f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    return f"{', '.join(named)}, driver for CUDA {driver}, runtime {release}"


def _blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".rstrip()


def _threads() -> str:
    settings = [f"{name}={os.environ[name]}" for name in _THREAD_SETTINGS if name in os.environ]
    return ", ".join([f"{config.processors()} cores", *settings])
