"""Masked attention, products and linear systems on tensors: checks in front, the differentiated functions behind."""

from __future__ import annotations

from typing import Any

from structmask.adapters._compute import alone
from structmask.adapters._functions import Attention, EluFeatures, Product, Solution
from structmask.adapters._parameters import Parameters, named
from structmask.adapters._tensors import Tensor, check_places, check_tensors, promoted
from structmask.attention import check_padding, check_shapes, repeated_over_padding, without_padding
from structmask.features import apply_features, elu_features
from structmask.linalg.base import StructuredMatrix


@alone
def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /,
    *,
    mask: StructuredMatrix | None = None,
    parameters: Parameters | None = None,
    features: Any = elu_features,
    key_padding_mask: Tensor | None = None,
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
    key_padding_mask : tensor of bool (..., S), optional
        True is PADDING, a key to ignore, as in torch.nn.MultiheadAttention; unlike there it has every leading axis,
        or none: for (batch, heads, S, d) pass ``padding[:, None, :]``. Gradients of such keys and values are zero.
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
        If an operand is not a tensor of float32 or float64 (real or complex), or the padding not boolean.
    BackendError
        If tensors are on several devices, on one that is neither the CPU nor CUDA, or where the backend in force does
        not compute.

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
    check_tensors(q=q, k=k, v=v)
    check_shapes(q, k, v)
    if key_padding_mask is not None:
        check_places(q=q, key_padding_mask=key_padding_mask)
    check_padding(key_padding_mask, mask, q, k, v)
    q, k = promoted(q, k)
    own = EluFeatures.apply if features is elu_features else features
    F, G = apply_features(own, q, repeated_over_padding(k, key_padding_mask))
    check_tensors(**{"the features of q": F, "the features of k": G})
    G, v = (without_padding(x, key_padding_mask) for x in (G, v))
    names, tensors = named(mask, parameters, v)
    options = {"method": method, "eps": eps, "padding": key_padding_mask}
    return Attention.apply(*promoted(F, G, v), mask, names, options, *tensors)


@alone
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
    check_tensors(x=x)
    if not isinstance(mask, StructuredMatrix):
        msg = f"matmul needs a StructuredMatrix on the left, got {type(mask).__name__}; torch multiplies tensors itself"
        raise TypeError(msg)
    names, tensors = named(mask, parameters, x)
    if x.ndim == 1:
        return Product.apply(x[:, None], mask, names, *tensors)[..., 0]
    return Product.apply(x, mask, names, *tensors)


@alone
def solve(
    mask: StructuredMatrix,
    b: Tensor,
    /,
    *,
    parameters: Parameters | None = None,
    tol: float = 1e-8,
    preconditioner: Any = "auto",
) -> Tensor:
    """Solution x of mask @ x = b on tensors, differentiable in b and the mask's parameters.

    Parameters
    ----------
    mask : StructuredMatrix (..., n, n)
    b : tensor (n,) or (..., n, k)
    parameters : mapping, optional
        Tensors in the place of generators of the mask, named as in ``mask.parameters``; those not given stay.
    tol, preconditioner
        As in `structmask.solve`, in both directions; the preconditioner by name or None.

    Returns
    -------
    tensor
        In the shape of b with the mask's batch, and in its dtype (complex if the mask is).

    Raises
    ------
    ValueError, TypeError, BackendError, numpy.linalg.LinAlgError
        As in `masked_attention` and in `structmask.solve`.

    Warns
    -----
    ConvergenceWarning
        If a right-hand side misses `tol`, forwards or backwards.

    Notes
    -----
    The backward pass is one more system, with the adjoint matrix; the iterations are not recorded.

    Examples
    --------
    >>> import torch
    >>> from structmask import Diagonal
    >>> from structmask.adapters.torch import solve
    >>> d = torch.tensor([2.0, 4.0], requires_grad=True)
    >>> solve(Diagonal([2.0, 4.0]), torch.ones(2), parameters={"d": d}).sum().backward()
    >>> d.grad
    tensor([-0.2500, -0.0625])
    """
    check_tensors(b=b)
    if not isinstance(mask, StructuredMatrix):
        msg = f"solve needs a StructuredMatrix, got {type(mask).__name__}; torch.linalg.solve takes tensors"
        raise TypeError(msg)
    if not (preconditioner is None or isinstance(preconditioner, str)):
        msg = f"solve on tensors takes a preconditioner by name, or None, got {type(preconditioner).__name__}"
        raise TypeError(msg)
    names, tensors = named(mask, parameters, b)
    return Solution.apply(b, mask, names, {"tol": tol, "preconditioner": preconditioner}, *tensors)
