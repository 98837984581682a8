"""Which GPU an array is on, and arrays of other libraries by DLPack, the protocol by which libraries share memory.

CUDA launches on the current device of a thread, so what takes part in an operation has to be there: nothing is copied
from one GPU to another unless asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from structmask.backends.config import BackendError, cupy_status

_HOST = (1, 3, 11)  # device types of DLPack: the CPU, and host memory pinned for CUDA or ROCm
_CUDA = (2, 13)  # CUDA, and memory that CUDA moves itself
_NAMES = {4: "an OpenCL", 7: "a Vulkan", 8: "a Metal", 10: "a ROCm", 14: "a oneAPI", 15: "a WebGPU", 16: "a Hexagon"}


def gpu_of(x: Any) -> int:
    """Number of the GPU on which a CuPy array or sparse matrix is."""
    return int(x.device.id)


def current_gpu() -> int:
    """Number of the current device of CUDA."""
    return int(importlib.import_module("cupy").cuda.runtime.getDevice())


def check_one(gpus: set[int], what: str) -> None:
    """Raise BackendError if arrays are on several GPUs."""
    if len(gpus) > 1:
        msg = (
            f"{what} are on GPUs {' and '.join(map(str, sorted(gpus)))}; bring them to one, inside "
            "`with cupy.cuda.Device(...)`: cupy.asarray(x), or matrix.to('cupy')"
        )
        raise BackendError(msg)


def check_current(gpus: Iterable[int], what: object) -> None:
    """Raise BackendError if some of the GPUs of an operand, or of what is called so, are not the current one."""
    current = current_gpu()
    for gpu in gpus:
        if gpu != current:
            msg = (
                f"{what} is on GPU {gpu}, and the current device is GPU {current}: bring all operands to one, by "
                "cupy.asarray(x) or matrix.to('cupy') there, and compute inside `with cupy.cuda.Device(...)`"
            )
            raise BackendError(msg)


def imported(x: Any, what: str) -> Any:
    """Host data of any kind as a NumPy array; what exports DLPack stays where it is, on a CUDA device as CuPy's."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack_device__"):
        return np.asarray(x)
    kind = int(x.__dlpack_device__()[0])
    if kind in _HOST:
        return np.from_dlpack(x)
    if kind not in _CUDA:
        place = _NAMES.get(kind, "an unknown")
        msg = (
            f"{what} is on {place} device (type {kind} of DLPack), and structmask computes on the CPU and on CUDA "
            "devices; copy it to the CPU with the library that it comes from"
        )
        raise BackendError(msg)
    if reason := cupy_status():
        msg = f"{what} is on a CUDA device, where structmask computes with CuPy. {reason} Or copy it to the CPU"
        raise BackendError(msg)
    return importlib.import_module("cupy").from_dlpack(x)
