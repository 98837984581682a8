"""Masks as torch modules: a structure that stays, and tensors that are put in the place of its generators."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch

from structmask.adapters._operations import masked_attention, matmul, solve
from structmask.adapters._parameters import flat, rebuilt, register
from structmask.adapters._tensors import Tensor
from structmask.features import elu_features
from structmask.linalg.base import StructuredMatrix


class MaskModule(torch.nn.Module):
    """A mask whose generators are tensors; `as_module` makes one, and every parametrisation of a mask is one.

    A subclass keeps parameters of its own and says in `generators` what the mask's are in terms of them. They train,
    move between dtypes, save and load like any module's.

    Parameters
    ----------
    structure : StructuredMatrix
        The mask; what `generators` names is replaced, all else stays.
    """

    def __init__(self, structure: StructuredMatrix) -> None:
        super().__init__()
        if not isinstance(structure, StructuredMatrix):
            msg = (
                f"as_module needs a StructuredMatrix, got {type(structure).__name__}; wrap an array as "
                "structmask.Dense(a)"
            )
            raise TypeError(msg)
        self.structure = structure

    def generators(self) -> dict[str, Tensor]:
        """Give the tensors for generators of the structure, by dotted name."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The product of the mask and x (..., n, k) or (n,)."""
        return matmul(self.structure, x, parameters=self.generators())

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        /,
        *,
        features: Any = elu_features,
        key_padding_mask: Tensor | None = None,
        method: str = "auto",
        eps: float = 0.0,
    ) -> Tensor:
        """Linear attention under this mask; options as in `masked_attention`."""
        options: dict[str, Any] = {"features": features, "key_padding_mask": key_padding_mask}
        options |= {"method": method, "eps": eps}
        return masked_attention(q, k, v, mask=self.structure, parameters=self.generators(), **options)

    def solve(self, b: Tensor, /, *, tol: float = 1e-8, preconditioner: str | None = "auto") -> Tensor:
        """The solution x of mask @ x = b; options as in `solve`."""
        return solve(self.structure, b, parameters=self.generators(), tol=tol, preconditioner=preconditioner)

    def as_matrix(self) -> StructuredMatrix:
        """The mask with copies of the generators' present values, without gradients."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.generators().items()}
        found: StructuredMatrix = rebuilt(self.structure, tuple(tensors), tuple(tensors.values()))
        return found

    def extra_repr(self) -> str:
        """The mask's own repr, between the parentheses of the module's."""
        return repr(self.structure)


class OwnGenerators(MaskModule):
    """A mask whose parameters are its generators, named as in its `parameters` with dots between the levels."""

    def __init__(self, structure: StructuredMatrix) -> None:
        super().__init__(structure)
        register(self, structure.parameters)

    def generators(self) -> dict[str, Tensor]:
        return {name: attrgetter(name)(self) for name in flat(self.structure.parameters)}


def as_module(mask: StructuredMatrix, /) -> MaskModule:
    """A mask as a torch module whose parameters are copies of the mask's generators, named as in its `parameters`.

    `torch.nn.utils.parametrize` constrains them.

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
    return OwnGenerators(mask)
