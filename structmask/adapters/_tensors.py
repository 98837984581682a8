"""Tensors as arrays and back: nothing is copied. Those on a GPU are CuPy's arrays, on torch's own stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from structmask.backends import BackendError, arrays, get_backend, use_backend
from structmask.backends.config import cupy_status
from structmask.linalg.generators import unbroadcast

Tensor: TypeAlias = Any  # torch.Tensor

_WIDE = (torch.float64, torch.complex128)
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_tensors(**named: Any) -> None:
    """Raise for what is not a strided tensor of floating-point numbers where they can be computed with."""
    check_places(**named)
    for what, x in named.items():
        if x.dtype not in _DTYPES:
            msg = f"{what} has dtype {x.dtype}; structmask computes in float32 and float64, real or complex: x.float()"
            raise TypeError(msg)


def check_places(**named: Any) -> None:
    """Raise for what is not a strided tensor on the CPU or on a GPU, where the backend in force computes."""
    for what, x in named.items():
        if not isinstance(x, torch.Tensor):
            msg = f"{what} must be a torch tensor, got {type(x).__name__}; structmask.masked_attention takes arrays"
            raise TypeError(msg)
        if x.layout is not torch.strided:
            msg = f"{what} has layout {x.layout}; pass x.to_dense(), or for a sparse mask structmask.Sparse"
            raise TypeError(msg)
        _check_device(what, x.device.type)
    if len(devices := {str(x.device): what for what, x in named.items()}) > 1:
        msg = f"{' and '.join(devices.values())} are on {' and '.join(devices)}; move them to one device: x.to(device)"
        raise BackendError(msg)


def _check_device(what: str, device: str) -> None:
    backend = get_backend()
    if device == "cpu" and backend == "cupy":
        msg = "tensors on the CPU do not go to the backend 'cupy'; leave it for this call: with use_backend('auto')"
        raise BackendError(msg)
    if device == "cuda" and backend not in ("auto", "cupy"):
        msg = f"{what} is on the GPU but the backend in force is {backend!r}; move it, x.cpu(), or use_backend('auto')"
        raise BackendError(msg)
    if device == "cuda" and (reason := cupy_status()):
        msg = f"{what} is on the GPU, where structmask computes with CuPy. {reason} Or move it: x.cpu()"
        raise BackendError(msg)
    if device not in ("cpu", "cuda"):
        msg = f"{what} is on {device}, and structmask computes on the CPU and on CUDA devices; move it: x.cpu()"
        raise BackendError(msg)


@contextlib.contextmanager
def beside(x: Tensor) -> Iterator[None]:
    """Where arrays of a tensor are computed with: on a GPU its device and torch's current stream there.

    A mask on the host may follow the tensors to the GPU, as under the backend "cupy".
    """
    if not on_gpu(x):
        yield
        return
    import cupy

    device, stream = x.device.index, torch.cuda.current_stream(x.device).cuda_stream
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device), use_backend("cupy"):
        yield


def on_gpu(x: Tensor) -> bool:
    """Whether a tensor is on a CUDA device."""
    return bool(x.is_cuda)


def promoted(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one precision, each real or complex as before."""
    if not any(x.dtype in _WIDE for x in tensors):
        return list(tensors)
    return [x.to(torch.complex128 if x.is_complex() else torch.float64) for x in tensors]


def array(x: Tensor) -> Any:
    """The memory of a tensor as an array."""
    plain = x.detach().resolve_conj().resolve_neg()
    if not on_gpu(x):
        return plain.numpy()
    import cupy

    return cupy.from_dlpack(plain)


def tensor(a: Any) -> Tensor:
    """The memory of a result as a tensor; torch wants it writable and without negative strides."""
    if arrays.home(a) == "cupy":
        return torch.from_dlpack(a if all(s >= 0 for s in a.strides) else a.copy())
    a = np.asarray(a)
    return torch.from_numpy(a if a.flags.writeable and all(s >= 0 for s in a.strides) else a.copy())


def reduced(gradient: Any, x: Tensor) -> Tensor | None:
    """A gradient in the shape and dtype of its tensor; its broadcast batch is summed."""
    if gradient is None:
        return None
    full = gradient if hasattr(gradient, "dtype") else np.asarray(gradient)
    return tensor(unbroadcast(full, tuple(x.shape), complex_=x.is_complex())).to(x)
