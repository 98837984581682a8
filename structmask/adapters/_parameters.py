"""A mask's parameters by dotted name: ``{"terms": {0: {"d": x}}}`` and ``{"terms.0.d": x}`` say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from structmask.adapters._tensors import Tensor, array, check_tensors, reduced
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients

Parameters: TypeAlias = Mapping[Any, Any]  # from field name (or position) to a value or again Parameters


def named(mask: Any, parameters: Parameters | None, operand: Tensor) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Dotted names and tensors of the parameters given; raises for names that are not the mask's, and other devices."""
    given = flat(parameters or {})
    own = flat(mask.parameters) if isinstance(mask, StructuredMatrix) else {}
    if unknown := sorted(set(given) - set(own)):
        msg = f"{mask!r} has no parameters {unknown}; it has {sorted(own)}"
        raise ValueError(msg)
    check_tensors(**{**given, "the operand": operand})
    return tuple(given), tuple(given.values())


def rebuilt(mask: Any, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> Any:
    """The mask with tensors for the generators of these dotted names; the mask itself, with its plans, without any."""
    if not names:
        return mask
    own = flat(mask.parameters)
    values = {
        name: tensor.item() if isinstance(own[name], float | complex) and not tensor.ndim else array(tensor)
        for name, tensor in zip(names, tensors, strict=True)
    }
    return mask.with_parameters(nested(mask.parameters, values))


def of_parameters(
    gradients: Gradients, names: tuple[str, ...], tensors: list[Tensor], wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients of a mask's generators for these dotted names, None where none is wanted."""
    by_name = flat(gradients)
    return [
        (reduced(by_name[name], x) if name in by_name else torch.zeros_like(x)) if needed else None
        for name, x, needed in zip(names, tensors, wanted, strict=True)
    ]


def flat(parameters: Parameters, prefix: str = "") -> dict[str, Any]:
    """{"terms": {0: {"d": x}}} as {"terms.0.d": x}."""
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def nested(own: Parameters, values: Mapping[str, Any], prefix: str = "") -> dict[Any, Any]:
    """The inverse of `flat`, with the keys of a mask's own parameters."""
    found: dict[Any, Any] = {}
    for key, value in own.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found[key] = nested(value, values, f"{name}.")
        elif name in values:
            found[key] = values[name]
    return found


def register(module: torch.nn.Module, parameters: Parameters) -> None:
    """Copies of the values as parameters of a module, those of nested levels in modules of their own."""
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            child = torch.nn.Module()
            register(child, value)
            module.add_module(str(key), child)
        else:
            tensor = torch.tensor(value if isinstance(value, float | complex) else np.asarray(value))
            module.register_parameter(str(key), torch.nn.Parameter(tensor))
