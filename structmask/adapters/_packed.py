"""Sequences packed one behind the other: each is masked as if it stood alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal
from structmask.linalg.causal import Causal
from structmask.linalg.low_rank import LowRank
from structmask.linalg.toeplitz import Toeplitz


def packed(
    mask: StructuredMatrix | None, tensors: Mapping[str, Any], lengths: Sequence[int]
) -> tuple[BlockDiagonal, dict[str, Any]]:
    """Leading blocks of a mask along the diagonal, one a sequence, and tensors for the generators of all of them.

    A leading block is the mask of a shorter sequence wherever entries depend on relative positions; without a mask it
    is all ones. Raises TypeError for other masks, ValueError for a sequence longer than the mask.
    """
    blocks, found = [], {}
    for index, length in enumerate(lengths):
        blocks.append(_leading(mask, length))
        for name, x in tensors.items():
            found[f"blocks.{index}.{name}"] = _cropped(mask, name, x, length)
    return BlockDiagonal(tuple(blocks)), found


def _leading(mask: StructuredMatrix | None, n: int) -> StructuredMatrix:
    """The first n rows and columns."""
    if mask is None:
        return LowRank(np.ones((n, 1)), np.ones((n, 1)))
    if n > mask.shape[-1]:
        msg = f"a sequence of length {n} does not fit {mask!r}; make the mask as long as the longest sequence"
        raise ValueError(msg)
    own = {name: _cropped(mask, name, x, n) for name, x in mask.parameters.items()}
    if isinstance(mask, Toeplitz) and mask.levels == 1 and mask.shape[-2] == mask.shape[-1]:
        return Toeplitz(own["offsets"])
    if "n" in {field.name for field in dataclasses.fields(mask)}:
        return dataclasses.replace(cast("Any", mask), **own, n=n)
    msg = (
        f"{mask!r} has no block for a shorter sequence; pack masks of relative positions, or give a BlockDiagonal of "
        "the sequences' own masks as the mask"
    )
    raise TypeError(msg)


def _cropped(mask: Any, name: str, x: Any, n: int) -> Any:
    """What of a generator belongs to the first n rows and columns; arrays and tensors alike."""
    if isinstance(mask, Toeplitz) and name == "offsets":
        N = mask.shape[-1]
        return x[..., N - n : N + n - 1]
    is_gates = isinstance(mask, Causal) and getattr(x, "ndim", 0) > 0 and x.shape[-1] == mask.n
    return x[..., :n] if is_gates else x
