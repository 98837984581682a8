"""Learnable masks of sequences and grids: a few parameters, and the generators that are functions of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from structmask.adapters._mask_module import MaskModule
from structmask.adapters._tensors import Tensor
from structmask.linalg.causal import Causal
from structmask.linalg.exponential_sum import ExponentialSum
from structmask.linalg.toeplitz import Toeplitz


class RelativePositionMask(MaskModule):
    """M_ij = exp(b[i - j]), or ``|p[i - j]|``, for points i and j of a grid with any number of axes.

    Parameters
    ----------
    shape : int or tuple of int
        Sides n_l of the grid; tokens are its points in C order.
    heads : int, optional
        How many masks there are, one a head; by default one for all heads.
    form : {"exp", "abs"}
        exp(b), positive, from log-biases b that start at 0; or ``|p|``, from values p that start at 1: it can reach 0,
        where its gradient is 0.

    Notes
    -----
    `table` (heads, 2 n_1 - 1, ..., 2 n_d - 1) is b or p, the entry of i - j at i_l - j_l + n_l - 1. At the start all
    entries are 1: no mask. O(N log N) a feature and value with N = prod(2 n_l - 1), forwards and backwards. Give one
    module to several layers, and they share it.

    Examples
    --------
    >>> import torch
    >>> from structmask.adapters.torch import MaskedLinearAttention, RelativePositionMask
    >>> mask = RelativePositionMask((4, 5), heads=2)
    >>> mask.table.shape
    torch.Size([2, 7, 9])
    >>> layer = MaskedLinearAttention(8, 2, mask=mask)
    >>> layer(torch.randn(3, 20, 8)).sum().backward()
    >>> mask.table.grad.shape
    torch.Size([2, 7, 9])
    >>> dense = mask.as_matrix().to_dense()
    >>> bool((dense == 1).all())
    True
    """

    def __init__(self, shape: int | tuple[int, ...], *, heads: int | None = None, form: str = "exp") -> None:
        super().__init__(_grid(shape, heads))
        self.form = checked_form(form)
        start = torch.zeros if form == "exp" else torch.ones
        self.table = torch.nn.Parameter(start(self.structure.parameters["offsets"].shape))

    def generators(self) -> dict[str, Tensor]:
        return {"offsets": positive(self.table, self.form)}


class DistanceMask(MaskModule):
    """M_ij = exp(a_1 s + ... + a_T s^T) with s the L1 distance of points i and j of a grid over the largest one.

    Parameters
    ----------
    shape : int or tuple of int
        Sides of the grid; tokens are its points in C order.
    degree : int
        Number T of coefficients.
    heads : int, optional
        How many masks there are, one a head; by default one for all heads.

    Notes
    -----
    `coefficients` (heads, T) start at 0, where all entries are 1. There is no a_0: it would cancel in attention. The
    mask is a `Toeplitz` one, and costs as much.

    Examples
    --------
    >>> import torch
    >>> from structmask.adapters.torch import DistanceMask
    >>> mask = DistanceMask((2, 2), degree=1)
    >>> mask.coefficients.data[:] = -1.0
    >>> torch.from_numpy(mask.as_matrix().to_dense())[0]
    tensor([1.0000, 0.6065, 0.6065, 0.3679])
    """

    powers: Tensor

    def __init__(self, shape: int | tuple[int, ...], *, degree: int = 2, heads: int | None = None) -> None:
        super().__init__(_grid(shape, heads))
        sides = self.structure.offsets.shape[-self.structure.levels :]  # type: ignore[attr-defined]  # a Toeplitz
        axes = np.meshgrid(*(np.abs(np.arange(side) - side // 2) for side in sides), indexing="ij")
        self.register_buffer("powers", powers(sum(axes), degree), persistent=False)
        self.coefficients = torch.nn.Parameter(torch.zeros(*batch(heads), degree))

    def generators(self) -> dict[str, Tensor]:
        return {"offsets": torch.exp(torch.tensordot(self.coefficients, self.powers, dims=1))}


class DecayMask(MaskModule):
    """M_ij = rho^|i - j| with a learnable rho in (0, 1), for j <= i only or for all pairs.

    Parameters
    ----------
    n : int
        Number of tokens.
    heads : int, optional
        How many decays there are, one a head; by default one for all heads.
    causal : bool
        Whether keys behind the query (j > i) are masked.
    initial : float or sequence of float, optional
        rho at the start, one or one a head; by default 1 - 2^(-5 - h) for head h, as in retentive networks.

    Notes
    -----
    rho = 1 / (1 + exp(-logit)), of which d rho / d logit = rho (1 - rho). O(n) time, by a scan. Decays that depend on
    the token are gates: give them to `masked_attention` as ``parameters={"decay": gates}`` of `Causal`.

    Examples
    --------
    >>> from structmask.adapters.torch import DecayMask
    >>> mask = DecayMask(3, causal=False, initial=0.5)
    >>> mask.as_matrix().to_dense()
    array([[1.  , 0.5 , 0.25],
           [0.5 , 1.  , 0.5 ],
           [0.25, 0.5 , 1.  ]])
    """

    def __init__(self, n: int, *, heads: int | None = None, causal: bool = True, initial: Any = None) -> None:
        decays = np.ones((*batch(heads), 1))
        super().__init__(Causal(n, decay=decays) if causal else ExponentialSum(np.ones(1), decays, n))
        start = 1 - 2.0 ** -(5 + np.arange(heads or 1)) if initial is None else np.asarray(initial)
        if not ((start > 0) & (start < 1)).all():
            msg = f"decays start between 0 and 1, both excluded, got {initial}"
            raise ValueError(msg)
        logit = np.broadcast_to(np.log(start / (1 - start)), heads or 1)
        self.logit = torch.nn.Parameter(torch.tensor(logit.reshape(batch(heads)), dtype=torch.get_default_dtype()))

    def generators(self) -> dict[str, Tensor]:
        name = "decay" if isinstance(self.structure, Causal) else "decays"
        return {name: torch.sigmoid(self.logit)[..., None]}


def batch(heads: int | None) -> tuple[int, ...]:
    """The leading axes of a mask."""
    if heads is not None and heads < 1:
        msg = f"heads must be at least 1, or None for one mask for all heads, got {heads}"
        raise ValueError(msg)
    return () if heads is None else (heads,)


def checked_form(form: str) -> str:
    """The form of a table; ValueError for an unknown one."""
    if form not in ("exp", "abs"):
        msg = f"unknown form {form!r}; choose 'exp' or 'abs'"
        raise ValueError(msg)
    return form


def positive(table: Tensor, form: str) -> Tensor:
    """The exponential or the absolute value of a table."""
    return table.exp() if form == "exp" else table.abs()


def powers(distances: Any, degree: int) -> Tensor:
    """s, s^2, ... s^degree (degree, *shape) of distances over the largest of them."""
    if degree < 1:
        msg = f"degree must be at least 1, got {degree}"
        raise ValueError(msg)
    s = torch.tensor(distances / max(1, np.max(distances, initial=0)), dtype=torch.get_default_dtype())
    return torch.stack([s**t for t in range(1, degree + 1)])


def _grid(shape: int | tuple[int, ...], heads: int | None) -> Toeplitz:
    """The constant mask on a grid."""
    sides = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sides or min(sides) < 1:
        msg = f"a grid needs sides of at least 1, got {shape}"
        raise ValueError(msg)
    return Toeplitz(np.ones((*batch(heads), *(2 * n - 1 for n in sides))), levels=len(sides))
