"""Tensors as arrays and back: nothing is copied."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from structmask.backends import BackendError, get_backend
from structmask.linalg.generators import unbroadcast

Tensor: TypeAlias = Any  # torch.Tensor

_WIDE = (torch.float64, torch.complex128)
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_tensors(**named: Any) -> None:
    """Raise for what is not a strided tensor of floating-point numbers on the CPU."""
    check_places(**named)
    for what, x in named.items():
        if x.dtype not in _DTYPES:
            msg = f"{what} has dtype {x.dtype}; structmask computes in float32 and float64, real or complex: x.float()"
            raise TypeError(msg)


def check_places(**named: Any) -> None:
    """Raise for what is not a strided tensor on the CPU."""
    for what, x in named.items():
        if not isinstance(x, torch.Tensor):
            msg = f"{what} must be a torch tensor, got {type(x).__name__}; structmask.masked_attention takes arrays"
            raise TypeError(msg)
        if x.device.type != "cpu":
            msg = f"{what} is on {x.device}, and this version of the adapter computes on the CPU only; move it: x.cpu()"
            raise BackendError(msg)
        if x.layout is not torch.strided:
            msg = f"{what} has layout {x.layout}; pass x.to_dense(), or for a sparse mask structmask.Sparse"
            raise TypeError(msg)
    if get_backend() == "cupy":
        msg = "tensors on the CPU do not go to the backend 'cupy'; leave it for this call: with use_backend('auto')"
        raise BackendError(msg)


def promoted(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one precision, each real or complex as before."""
    if not any(x.dtype in _WIDE for x in tensors):
        return list(tensors)
    return [x.to(torch.complex128 if x.is_complex() else torch.float64) for x in tensors]


def array(x: Tensor) -> Any:
    """The memory of a tensor as an array."""
    return x.detach().resolve_conj().resolve_neg().numpy()


def tensor(a: Any) -> Tensor:
    """The memory of a result as a tensor; torch wants it writable and without negative strides."""
    a = np.asarray(a)
    return torch.from_numpy(a if a.flags.writeable and all(s >= 0 for s in a.strides) else a.copy())


def reduced(gradient: Any, x: Tensor) -> Tensor | None:
    """A gradient in the shape and dtype of its tensor; its broadcast batch is summed."""
    if gradient is None:
        return None
    return tensor(unbroadcast(np.asarray(gradient), tuple(x.shape), complex_=x.is_complex())).to(x.dtype)
