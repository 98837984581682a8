"""What torch differentiates: forward on arrays, backward by the library's own gradients, not its steps."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from structmask.adapters._parameters import of_parameters, rebuilt
from structmask.adapters._tensors import Tensor, array, beside, reduced, tensor
from structmask.attention import attend, attend_pullback
from structmask.backends import get_backend, use_backend
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.solve import solve, solve_pullback


class EluFeatures(torch.autograd.Function):
    """`elu_features`, which keeps nothing but its result: its derivative is 1 or the result, whichever is less."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(max=0).exp_().add_(x.clamp(min=0))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return g * y.clamp(max=1)


class Attention(torch.autograd.Function):
    """Masked attention, in features, values and the mask's parameters."""

    @staticmethod
    def forward(
        ctx: Any, F: Tensor, G: Tensor, V: Tensor, mask: Any, names: tuple[str, ...], options: Any, *tensors: Tensor
    ) -> Tensor:
        ctx.names, ctx.options, ctx.backend = names, options, get_backend()
        padding = None if options["padding"] is None else array(options["padding"])
        with beside(F):
            ctx.matrix = rebuilt(mask, names, tensors)
            out, ctx.mass = attend(array(F), array(G), array(V), ctx.matrix, **{**options, "padding": padding})
            result = tensor(out)
        ctx.save_for_backward(F, G, V, result, *tensors)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        F, G, V, out, *tensors = ctx.saved_tensors
        of_f, of_g, of_v, *_ = wanted = ctx.needs_input_grad
        options = {"eps": ctx.options["eps"], "needs": (of_f, of_g, of_v, any(wanted[6:]))}
        with use_backend(ctx.backend), beside(F):
            f, g_, v, y, d = map(array, (F, G, V, out, g))
            *gradients, of_mask = attend_pullback(f, g_, v, ctx.matrix, y, ctx.mass, d, **options)
            own = [reduced(d, x) for d, x in zip(gradients, (F, G, V), strict=True)]
            return (*own, None, None, None, *of_parameters(of_mask, ctx.names, tensors, wanted[6:]))


class Product(torch.autograd.Function):
    """mask @ X, in X and the mask's parameters."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, mask: StructuredMatrix, names: tuple[str, ...], *tensors: Tensor) -> Tensor:
        ctx.names, ctx.backend = names, get_backend()
        ctx.save_for_backward(X, *tensors)
        with beside(X):
            ctx.matrix = rebuilt(mask, names, tensors)
            return tensor(ctx.matrix @ array(X))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        X, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        with use_backend(ctx.backend), beside(X):
            x, g = array(X), array(g)
            own = reduced(ctx.matrix.mH @ g, X) if wanted[0] else None
            of_mask = ctx.matrix.pullback(g, x) if any(wanted[3:]) and g.size and x.size else {}
            return (own, None, None, *of_parameters(of_mask, ctx.names, tensors, wanted[3:]))


class Solution(torch.autograd.Function):
    """mask^-1 @ b, in b and the mask's parameters."""

    @staticmethod
    def forward(
        ctx: Any, b: Tensor, mask: StructuredMatrix, names: tuple[str, ...], options: Any, *tensors: Tensor
    ) -> Tensor:
        ctx.names, ctx.options, ctx.backend = names, options, get_backend()
        with beside(b):
            ctx.matrix = rebuilt(mask, names, tensors)
            result = tensor(solve(ctx.matrix, array(b), **options))
        ctx.save_for_backward(b, result, *tensors)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        b, x, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        with use_backend(ctx.backend), beside(b):
            of_mask, own = solve_pullback(ctx.matrix, array(x), array(g), **ctx.options)
            of_b = reduced(own, b) if wanted[0] else None
            return (of_b, None, None, None, *of_parameters(of_mask, ctx.names, tensors, wanted[4:]))
