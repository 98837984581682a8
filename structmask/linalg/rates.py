"""How fast a machine does each kind of work: a table for a typical one, and what `calibrate` measured on this one.

Measured rates are kept in a small JSON file in the user's cache folder, STRUCTMASK_CACHE if that is set. They are used
as long as the process may run on as many processors as when they were measured.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from structmask.backends.config import processors

Rates = dict[str, float]  # operations (bytes, calls) a second in float32 by kind of work; float64 runs at half the rate

# Of a typical machine, fitted by `python -m benchmarks.fit_planner`. On a host the rates of `THREADED` kinds are those
# of one thread.
_TYPICAL: dict[str, Rates] = {
    "numba": dict(gemm=105e9, fft=14e9, fused=85e9, scan=4.6e9, bytes=9e9, calls=1 / 48e-6),
    "numpy": dict(gemm=50e9, fft=6e9, fused=6e9, scan=1.5e9, bytes=10e9, calls=1 / 52e-6),
    "cupy": dict(gemm=12e12, fft=2.6e12, fused=2.6e12, scan=0.3e12, bytes=2.3e12, calls=1 / 150e-6),
}
THREADED = ("gemm", "fused", "scan")
ENVIRONMENT_VARIABLE = "STRUCTMASK_CACHE"


@cache
def rates_of(backend: str) -> Rates:
    """The rates of a backend: those measured here if there are any, else those of a typical machine."""
    return _stored(backend) or typical(backend)


def typical(backend: str) -> Rates:
    """The rates of a typical machine with as many processors as this one."""
    threads = 1 if backend == "cupy" else processors()
    return {kind: rate * (threads if kind in THREADED else 1) for kind, rate in _TYPICAL[backend].items()}


def store(backend: str, rates: Rates) -> None:
    """Keep measured rates for this process and later ones."""
    content = _read()
    content[backend] = {"processors": processors(), "rates": rates}
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")  # readers see the old file or the new one, never a half
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
    rates_of.cache_clear()


def cache_file() -> Path:
    """Where measured rates are kept."""
    if folder := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(folder) / "rates.json"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "structmask" / "rates.json"


def _stored(backend: str) -> Rates | None:
    content = _read()
    if backend not in content:
        return None
    entry: Any = content[backend]
    try:
        count, found = entry["processors"], {kind: float(entry["rates"][kind]) for kind in _TYPICAL[backend]}
    except (KeyError, TypeError, ValueError):
        _warn(f"has no complete rates of the backend {backend!r}")
        return None
    if not all(0 < rate < float("inf") for rate in found.values()):
        _warn(f"has rates of the backend {backend!r} that are not positive")
        return None
    return found if count == processors() else None


def _read() -> dict[str, Any]:
    """The content of the cache file, nothing if there is none."""
    try:
        text = cache_file().read_text(encoding="utf-8")
    except (OSError, RuntimeError):  # a process may have no home directory
        return {}
    try:
        content = json.loads(text)
    except ValueError:
        _warn("is not JSON")
        return {}
    if not isinstance(content, dict):
        _warn("holds no table")
        return {}
    return content


def _warn(reason: str) -> None:
    msg = f"{cache_file()} {reason} and is ignored; run structmask.calibrate() to measure anew, or delete it"
    warnings.warn(msg, UserWarning, stacklevel=2)
