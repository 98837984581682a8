"""Masked attention, products and linear systems on torch tensors, with exact gradients, the mask's included.

A mask is a StructuredMatrix as everywhere. What is to be learned of it is given beside it as tensors, named as in its
`parameters`: ``parameters={"offsets": offsets}``, nested for composite masks (or flat, joined by dots). `as_module`
holds them as the parameters of a torch module; `RelativePositionMask`, `DecayMask` and the like hold fewer, or others,
of which the mask's are functions. `MaskedLinearAttention` is a layer of several heads under any of these.

Tensors share their memory with the computation: nothing is copied. First derivatives only; asking for more raises.
Tensors of half precision are computed with in float32 under autocast, and refused elsewhere. torch.compile breaks its
graph at these functions and calls them as they are. Threads may share masks; in workers forked from a process that has
computed, kernels run on one thread. CUDA tensors are CuPy's arrays by DLPack, on torch's current stream, and a mask on
the host is copied to the device of its operands; this path has run on a stand-in for CuPy only, never on hardware.
"""

from structmask.adapters._attention_module import MaskedLinearAttention
from structmask.adapters._learnable import DecayMask, DistanceMask, RelativePositionMask
from structmask.adapters._learnable_graphs import DiffusionMask, FilterMask, TreeDecayMask, TreeDistanceMask
from structmask.adapters._mask_module import MaskModule, as_module
from structmask.adapters._operations import masked_attention, matmul, solve
from structmask.adapters._softmax import softmax_attention

__all__ = [
    "DecayMask",
    "DiffusionMask",
    "DistanceMask",
    "FilterMask",
    "MaskModule",
    "MaskedLinearAttention",
    "RelativePositionMask",
    "TreeDecayMask",
    "TreeDistanceMask",
    "as_module",
    "masked_attention",
    "matmul",
    "softmax_attention",
    "solve",
]
