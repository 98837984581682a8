"""Masked attention and products on torch tensors, with exact gradients, the mask's included.

A mask is a StructuredMatrix as everywhere. What is to be learned of it is given beside it as tensors, named as in its
`parameters`: ``parameters={"offsets": offsets}``, nested for composite masks (or flat, joined by dots). `as_module`
holds them as the parameters of a torch module. Tensors share their memory with the computation: nothing is copied.

First derivatives only, and tensors on the CPU only; asking for more raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from structmask.attention import attend, attend_pullback, check_shapes
from structmask.backends import BackendError, get_backend, use_backend
from structmask.features import apply_features, elu_features
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast

Tensor: TypeAlias = Any  # torch.Tensor
Parameters: TypeAlias = Mapping[Any, Any]  # from field name (or position) to a tensor or again Parameters

_WIDE = (torch.float64, torch.complex128)
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /,
    *,
    mask: StructuredMatrix | None = None,
    parameters: Parameters | None = None,
    features: Any = elu_features,
    method: str = "auto",
    eps: float = 0.0,
) -> Tensor:
    """`structmask.masked_attention` on tensors, differentiable in q, k, v and the mask's parameters.

    Parameters
    ----------
    q, k, v : tensors (..., L, d), (..., S, d), (..., S, e)
        Leading axes (batch, heads) of the three and of the mask broadcast.
    mask : StructuredMatrix (..., L, S), optional
        The mask M; without one, plain linear attention.
    parameters : mapping, optional
        Tensors in the place of generators of the mask, named as in ``mask.parameters``; those not given stay.
    features : callable, pair of callables, or None
        Feature maps that run on tensors, with torch's own gradients: the library's, or any torch function.
    method, eps
        As in `structmask.masked_attention`. Gradients always use "auto".

    Returns
    -------
    tensor (..., L, e)

    Raises
    ------
    ValueError
        If shapes do not fit, a parameter is not one of the mask's, or the method does not apply.
    TypeError
        If an operand is not a tensor of float32 or float64 (real or complex).
    BackendError
        If a tensor is not on the CPU, or the backend in force is "cupy".

    Notes
    -----
    O(L (m + e)) memory in both directions. The gradients of q, k and v are three more masked products, that of the mask
    one contraction; what needs no gradient is not computed.

    Examples
    --------
    >>> import torch
    >>> from structmask import Toeplitz
    >>> from structmask.adapters.torch import masked_attention
    >>> q, k, v = torch.ones(3, 4, 2, dtype=torch.float64).unbind()
    >>> bias = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    >>> out = masked_attention(q, k, v, mask=Toeplitz([1.0] * 7), parameters={"offsets": bias.exp()})
    >>> out.sum().backward()
    >>> bias.grad.shape
    torch.Size([7])
    """
    _check_tensors(q=q, k=k, v=v)
    check_shapes(q, k, v)
    F, G = apply_features(features, *_promoted(q, k))
    _check_tensors(**{"the features of q": F, "the features of k": G})
    names, tensors = _named(mask, parameters)
    return _Attention.apply(*_promoted(F, G, v), mask, names, {"method": method, "eps": eps}, *tensors)


def matmul(mask: StructuredMatrix, x: Tensor, /, *, parameters: Parameters | None = None) -> Tensor:
    """Product mask @ x on tensors, differentiable in x and the mask's parameters.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
    x : tensor (..., n, k) or (n,)
    parameters : mapping, optional
        Tensors in the place of generators of the mask, named as in ``mask.parameters``; those not given stay.

    Returns
    -------
    tensor (..., m, k) or (..., m)
        In the dtype of x (complex if the mask is).

    Raises
    ------
    ValueError, TypeError, BackendError
        As in `masked_attention`.

    Examples
    --------
    >>> import torch
    >>> from structmask import Causal
    >>> from structmask.adapters.torch import matmul
    >>> decay = torch.tensor(0.5, requires_grad=True)
    >>> matmul(Causal(3), torch.ones(3), parameters={"decay": decay}).sum().backward()
    >>> decay.grad
    tensor(3.)
    """
    _check_tensors(x=x)
    if not isinstance(mask, StructuredMatrix):
        msg = f"matmul needs a StructuredMatrix on the left, got {type(mask).__name__}; torch multiplies tensors itself"
        raise TypeError(msg)
    names, tensors = _named(mask, parameters)
    if x.ndim == 1:
        return _Product.apply(x[:, None], mask, names, *tensors)[..., 0]
    return _Product.apply(x, mask, names, *tensors)


def as_module(mask: StructuredMatrix, /) -> MaskModule:
    """A mask as a torch module whose parameters are copies of the mask's generators.

    Examples
    --------
    >>> import torch
    >>> from structmask import Causal, Toeplitz
    >>> from structmask.adapters.torch import as_module
    >>> module = as_module(Toeplitz([1.0] * 7) + Causal(4, decay=0.5))
    >>> [name for name, _ in module.named_parameters()]
    ['terms.0.offsets', 'terms.1.decay']
    >>> module.attention(*torch.ones(3, 4, 2)).shape
    torch.Size([4, 2])
    """
    return MaskModule(mask)


class MaskModule(torch.nn.Module):
    """A mask as a torch module; `as_module` makes it.

    Its parameters are the mask's generators, named as in the mask's `parameters` with dots between the levels. They
    train, move between dtypes, save and load like any module's, and `torch.nn.utils.parametrize` constrains them.
    """

    def __init__(self, mask: StructuredMatrix) -> None:
        super().__init__()
        if not isinstance(mask, StructuredMatrix):
            msg = f"as_module needs a StructuredMatrix, got {type(mask).__name__}; wrap an array as structmask.Dense(a)"
            raise TypeError(msg)
        self._mask = mask
        _register(self, mask.parameters)

    def forward(self, x: Tensor) -> Tensor:
        """The product of the mask and x (..., n, k) or (n,)."""
        return matmul(self._mask, x, parameters=self._tensors())

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, /, *, features: Any = elu_features, method: str = "auto", eps: float = 0
    ) -> Tensor:
        """Linear attention under this mask; options as in `masked_attention`."""
        options: dict[str, Any] = {"features": features, "method": method, "eps": eps}
        return masked_attention(q, k, v, mask=self._mask, parameters=self._tensors(), **options)

    def as_matrix(self) -> StructuredMatrix:
        """The mask with copies of the parameters' present values, without gradients."""
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        return _rebuilt(self._mask, tuple(tensors), tuple(tensors.values()))

    def extra_repr(self) -> str:
        """The mask's own repr, between the parentheses of the module's."""
        return repr(self._mask)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: attrgetter(name)(self) for name in _flat(self._mask.parameters)}


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, F: Tensor, G: Tensor, V: Tensor, mask: Any, names: tuple[str, ...], options: Any, *tensors: Tensor
    ) -> Tensor:
        ctx.matrix, ctx.names, ctx.options, ctx.backend = _rebuilt(mask, names, tensors), names, options, get_backend()
        out, ctx.mass = attend(_array(F), _array(G), _array(V), ctx.matrix, **options)
        result = _tensor(out)
        ctx.save_for_backward(F, G, V, result, *tensors)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        F, G, V, out, *tensors = ctx.saved_tensors
        of_f, of_g, of_v, *_ = wanted = ctx.needs_input_grad
        options = {"eps": ctx.options["eps"], "needs": (of_f, of_g, of_v, any(wanted[6:]))}
        f, g_, v, y, d = map(_array, (F, G, V, out, g))
        with use_backend(ctx.backend):
            *gradients, of_mask = attend_pullback(f, g_, v, ctx.matrix, y, ctx.mass, d, **options)
        own = [_reduced(d, x) for d, x in zip(gradients, (F, G, V), strict=True)]
        return (*own, None, None, None, *_of_parameters(of_mask, ctx.names, tensors, wanted[6:]))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: StructuredMatrix, names: tuple[str, ...], *tensors: Tensor) -> Tensor:
        ctx.matrix, ctx.names, ctx.backend = _rebuilt(mask, names, tensors), names, get_backend()
        ctx.save_for_backward(X, *tensors)
        return _tensor(ctx.matrix @ _array(X))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        X, *tensors = ctx.saved_tensors
        wanted, (x, g) = ctx.needs_input_grad, (_array(X), _array(g))
        with use_backend(ctx.backend):
            own = _reduced(ctx.matrix.mH @ g, X) if wanted[0] else None
            of_mask = ctx.matrix.pullback(g, x) if any(wanted[3:]) and g.size and x.size else {}
        return (own, None, None, *_of_parameters(of_mask, ctx.names, tensors, wanted[3:]))


# --- a mask's parameters, nested and flat -----------------------------------------------------------------------------


def _named(mask: StructuredMatrix | None, parameters: Parameters | None) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Dotted names and tensors of the parameters given, checked."""
    given = _flat(parameters or {})
    own = _flat(mask.parameters) if isinstance(mask, StructuredMatrix) else {}
    if unknown := sorted(set(given) - set(own)):
        msg = f"{mask!r} has no parameters {unknown}; it has {sorted(own)}"
        raise ValueError(msg)
    _check_tensors(**given)
    return tuple(given), tuple(given.values())


def _rebuilt(mask: Any, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> Any:
    """The mask with tensors for the generators of these dotted names; the mask itself, with its plans, without any."""
    if not names:
        return mask
    own = _flat(mask.parameters)
    values = {
        name: tensor.item() if isinstance(own[name], float | complex) and not tensor.ndim else _array(tensor)
        for name, tensor in zip(names, tensors, strict=True)
    }
    return mask.with_parameters(_nested(mask.parameters, values))


def _flat(parameters: Parameters, prefix: str = "") -> dict[str, Any]:
    """{"terms": {0: {"d": x}}} as {"terms.0.d": x}."""
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _nested(own: Parameters, flat: Mapping[str, Any], prefix: str = "") -> dict[Any, Any]:
    """The inverse of `_flat`, with the keys of a mask's own parameters."""
    nested: dict[Any, Any] = {}
    for key, value in own.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            nested[key] = _nested(value, flat, f"{name}.")
        elif name in flat:
            nested[key] = flat[name]
    return nested


def _register(module: torch.nn.Module, parameters: Parameters) -> None:
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            child = torch.nn.Module()
            _register(child, value)
            module.add_module(str(key), child)
        else:
            tensor = torch.tensor(value if isinstance(value, float | complex) else np.asarray(value))
            module.register_parameter(str(key), torch.nn.Parameter(tensor))


# --- tensors and arrays -----------------------------------------------------------------------------------------------


def _check_tensors(**named: Any) -> None:
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
        if x.dtype not in _DTYPES:
            msg = f"{what} has dtype {x.dtype}; structmask computes in float32 and float64, real or complex: x.float()"
            raise TypeError(msg)
    if get_backend() == "cupy":
        msg = "tensors on the CPU do not go to the backend 'cupy'; leave it for this call: with use_backend('auto')"
        raise BackendError(msg)


def _promoted(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one precision, each real or complex as before."""
    if not any(x.dtype in _WIDE for x in tensors):
        return list(tensors)
    return [x.to(torch.complex128 if x.is_complex() else torch.float64) for x in tensors]


def _array(x: Tensor) -> Any:
    """The memory of a tensor as an array."""
    return x.detach().resolve_conj().resolve_neg().numpy()


def _tensor(a: Any) -> Tensor:
    """The memory of a result as a tensor; torch wants it writable and without negative strides."""
    a = np.asarray(a)
    return torch.from_numpy(a if a.flags.writeable and all(s >= 0 for s in a.strides) else a.copy())


def _reduced(gradient: Any, x: Tensor) -> Tensor | None:
    """A gradient in the shape and dtype of its tensor; its broadcast batch is summed."""
    if gradient is None:
        return None
    return _tensor(unbroadcast(np.asarray(gradient), tuple(x.shape), complex_=x.is_complex())).to(x.dtype)


def _of_parameters(
    gradients: Gradients, names: tuple[str, ...], tensors: list[Tensor], wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    flat = _flat(gradients)
    return [
        _reduced(flat.get(name, np.zeros(tuple(x.shape))), x) if needed else None
        for name, x, needed in zip(names, tensors, wanted, strict=True)
    ]
