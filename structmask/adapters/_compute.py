"""How functions on tensors meet torch's machinery: the compiler stays out, and autocast computes in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_HALVES = (torch.float16, torch.bfloat16)


def alone(function: Callable[P, R]) -> Callable[P, R]:
    """A function on tensors as torch.compile and autocast are to see it.

    The compiler breaks its graph there and calls it as it is: kernels are not torch's to trace. Under autocast tensors
    of half precision are cast to float32 and everything inside runs in it, features included, as softmax does.
    """

    @wraps(function)
    def called(*given: P.args, **options: P.kwargs) -> R:
        device = _autocast(given)
        if device is None:
            return function(*given, **options)
        with torch.autocast(device, enabled=False):
            return function(*_widened(given), **{name: _widened(x) for name, x in options.items()})

    return torch.compiler.disable(called)


def _autocast(given: tuple[Any, ...]) -> str | None:
    """The device on which autocast is on for these tensors."""
    devices = {x.device.type for x in given if isinstance(x, torch.Tensor)} & {"cpu", "cuda"}
    return next((device for device in devices if torch.is_autocast_enabled(device)), None)


def _widened(x: Any) -> Any:
    """Tensors of half precision in float32, in tuples and mappings too; anything else as it is."""
    if isinstance(x, torch.Tensor):
        return x.float() if x.dtype in _HALVES else x
    if type(x) is tuple:
        return tuple(map(_widened, x))
    return {key: _widened(value) for key, value in x.items()} if isinstance(x, Mapping) else x
