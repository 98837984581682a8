"""Products and attention on dask arrays: every block is an ordinary product, wherever it runs.

A product needs the whole axis that it sums over, and nothing of the other columns, heads or graphs. So blocks are whole
along that axis, and chunks of columns and of batch axes make the parallelism and bound the memory. A graph holds the
mask once: a worker receives it once, without its plans, makes them at its first block and keeps them for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
from dask import delayed

from structmask import attention
from structmask.attention import check_fit, check_padding, check_shapes, common_batch
from structmask.backends import arrays, get_backend, use_backend
from structmask.features import elu_features
from structmask.linalg.base import StructuredMatrix

Shape: TypeAlias = tuple[int, ...]
DaskArray: TypeAlias = Any  # dask has no static types here


def matmul(mask: StructuredMatrix, X: DaskArray, /) -> DaskArray:
    """Product mask @ X of a structured matrix and a dask array, lazily.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
    X : dask array (..., n, k) or (n,)
        Chunked along its columns, its batch axes, or both. Chunks along n are merged first; where that gives blocks
        above dask's ``array.chunk-size``, columns are split further. Axes on which the mask has matrices of its own are
        merged too.

    Returns
    -------
    dask array (..., m, k) or (m,)
        In the precision of X, complex if X or the mask is.

    Raises
    ------
    ValueError
        If shapes do not fit, or the size of an axis is unknown.
    TypeError
        If an operand is of another kind or dtype.

    Notes
    -----
    A task holds one block of X, its product and the scratch of that product: what is in memory at a time is that, for
    each thread of a worker. Blocks run under the backend in force when the graph is made ("auto" leaves it to each
    worker).

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from structmask import Causal
    >>> from structmask.adapters.dask import matmul
    >>> mask, X = Causal(100, decay=0.9), np.ones((100, 8))
    >>> Y = matmul(mask, da.from_array(X, chunks=(100, 2)))
    >>> Y.chunks
    ((100,), (2, 2, 2, 2))
    >>> bool(np.allclose(Y.compute(), mask.to_dense() @ X))
    True
    """
    _check_mask(mask)
    _check_arrays(X=X)
    if X.ndim == 0:
        msg = "matmul: a scalar operand has no dimensions to sum over"
        raise ValueError(msg)
    if X.ndim == 1:
        return matmul(mask, X[:, None])[..., 0]
    m, n = mask.shape[-2:]
    if X.shape[-2] != n:
        msg = f"matmul: {mask!r} needs an operand with {n} rows, got shape {X.shape}"
        raise ValueError(msg)
    batch = common_batch({"mask": mask.shape[:-2], "X": X.shape[:-2]})
    (X,) = _aligned(batch, mask, X)
    if X.numblocks[-2] > 1:
        X = _with_whole_rows(X)
    batch_chunks = _batch_chunks(batch, mask, X)
    return _blocks(_product, mask, [X], (*batch_chunks, (m,), X.chunks[-1]))


def masked_attention(
    q: DaskArray,
    k: DaskArray,
    v: DaskArray,
    /,
    *,
    mask: StructuredMatrix | None = None,
    features: Any = elu_features,
    key_padding_mask: DaskArray | None = None,
    method: str = "auto",
    eps: float = 0.0,
) -> DaskArray:
    """`structmask.masked_attention` on dask arrays, a task for each chunk of the batch and of the heads, lazily.

    Parameters
    ----------
    q, k, v : dask arrays (..., L, d), (..., S, d), (..., S, e)
        Leading axes (batch, heads) of the three and of the mask broadcast. Chunks along the last two axes are merged,
        and so are those along axes on which the mask has matrices of its own.
    mask : StructuredMatrix (..., L, S), optional
        The mask M; without one, plain linear attention.
    features : callable, pair of callables, or None
        As in `structmask.masked_attention`; they travel with the tasks, so that they must be picklable.
    key_padding_mask : dask array of bool (..., S), optional
        True is PADDING; (S,), or with every leading axis.
    method, eps
        As in `structmask.masked_attention`.

    Returns
    -------
    dask array (..., L, e)

    Raises
    ------
    ValueError, TypeError
        As in `structmask.masked_attention` and `matmul`; what only the features decide is raised by the tasks.

    Notes
    -----
    O(L (m + e)) memory for each head of a block, m features.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from structmask import Causal
    >>> from structmask.adapters.dask import masked_attention
    >>> q = k = da.ones((8, 3, 2), chunks=(2, 3, 2))  # eight heads, two in a task
    >>> v = da.broadcast_to(da.arange(6.0).reshape(3, 2), (8, 3, 2), chunks=(2, 3, 2))
    >>> masked_attention(q, k, v, mask=Causal(3))[7].compute()
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    _check_arrays(q=q, k=k, v=v)
    check_shapes(q, k, v)
    named = {"q": q.shape[:-2], "k": k.shape[:-2], "v": v.shape[:-2]}
    if mask is not None:
        _check_mask(mask)
        named = {"mask": mask.shape[:-2], **named}
        check_fit(mask.shape, q.shape[-2], k.shape[-2])
    operands = [q, k, v]
    if key_padding_mask is not None:
        _check_dask(key_padding_mask=key_padding_mask)
        check_padding(key_padding_mask, mask, q, k, v)
        operands.append(key_padding_mask[..., None, :])
    batch = common_batch(named)
    operands = [x.rechunk({x.ndim - 2: -1, x.ndim - 1: -1}) for x in _aligned(batch, mask, *operands)]
    chunks = (*_batch_chunks(batch, mask, *operands), (q.shape[-2],), (v.shape[-1],))
    return _blocks(partial(_attention, features=features, method=method, eps=eps), mask, operands, chunks)


def _product(mask: StructuredMatrix, X: Any) -> Any:
    return mask @ X


def _attention(mask: Any, q: Any, k: Any, v: Any, padding: Any = None, **options: Any) -> Any:
    if padding is not None:
        options["key_padding_mask"] = padding[..., 0, :]
    return attention.masked_attention(q, k, v, mask=mask, **options)


def _blocks(
    function: Callable[..., Any], mask: StructuredMatrix | None, operands: list[DaskArray], chunks: tuple[Shape, ...]
) -> DaskArray:
    """The function of the mask and of blocks that belong together, in chunks that are known."""
    kinds = [arrays.as_array(np.zeros(1, x.dtype), "an operand") for x in operands]
    complex_ = any(map(arrays.is_complex, kinds)) or (mask is not None and mask.dtype.kind == "c")
    width = "float64" if any(arrays.precision(x) == "float64" for x in kinds[:3]) else "float32"
    dtype = np.dtype(arrays.dtype_of(width, complex_=complex_))
    # A node of its own: written into the tasks, the mask would travel with every one of them.
    node = delayed(_itself, pure=True, traverse=False)(mask)
    backend = get_backend()
    meta = np.empty((0,) * len(chunks), dtype=dtype)
    return da.map_blocks(partial(_run, function, backend), *operands, mask=node, chunks=chunks, meta=meta)


def _run(function: Callable[..., Any], backend: str, *blocks: Any, mask: Any) -> Any:
    """One task: blocks that dask has broadcast or opened from a store may be read-only, and are left as they are."""
    with nullcontext() if backend == "auto" else use_backend(backend):
        return function(mask, *blocks)


def _itself(x: Any) -> Any:
    return x


def _with_whole_rows(X: DaskArray) -> DaskArray:
    """Chunks along the last axis but one merged, and those along the last one split where blocks become too large."""
    rows, columns = X.ndim - 2, X.ndim - 1
    bounded = X.rechunk({rows: -1, columns: "auto"})
    return bounded if max(bounded.chunks[-1]) < max(X.chunks[-1]) else X.rechunk({rows: -1})


def _aligned(batch: Shape, mask: StructuredMatrix | None, *operands: DaskArray) -> list[DaskArray]:
    """Operands with as many axes, whole where the mask has matrices of its own, and chunked alike elsewhere."""
    ndim = len(batch) + 2
    full = [x[(None,) * (ndim - x.ndim)] for x in operands]
    own = {axis: -1 for axis, size in enumerate(_own_axes(batch, mask)) if size > 1}
    full = [x.rechunk(own) if own else x for x in full]
    for axis, size in enumerate(batch):
        split = [x.chunks[axis] for x in full if x.shape[axis] == size]
        finest = max(split, key=len) if split else (1,)
        full = [x.rechunk({axis: finest}) if x.shape[axis] == size else x for x in full]
    return full


def _batch_chunks(batch: Shape, mask: StructuredMatrix | None, *operands: DaskArray) -> tuple[Shape, ...]:
    """Chunks of the result along its batch axes."""
    own = _own_axes(batch, mask)
    return tuple(
        (size,) if own[axis] > 1 else max((x.chunks[axis] for x in operands if x.shape[axis] == size), key=len)
        for axis, size in enumerate(batch)
    )


def _own_axes(batch: Shape, mask: StructuredMatrix | None) -> Shape:
    """The mask's size on every batch axis, one where it has none."""
    own = () if mask is None else mask.shape[:-2]
    return (1,) * (len(batch) - len(own)) + own


def _check_mask(mask: Any) -> None:
    if not isinstance(mask, StructuredMatrix):
        msg = f"mask must be a StructuredMatrix, got {type(mask).__name__}; wrap an array as structmask.Dense(mask)"
        raise TypeError(msg)


def _check_arrays(**named: Any) -> None:
    """Raise unless these are dask arrays of known sizes and of dtypes that masks multiply."""
    _check_dask(**named)
    for name, x in named.items():
        arrays.as_array(np.zeros(1, x.dtype), name)


def _check_dask(**named: Any) -> None:
    for name, x in named.items():
        if not isinstance(x, da.Array):
            msg = f"{name} must be a dask array, got {type(x).__name__}; make one with dask.array.from_array"
            raise TypeError(msg)
        if any(np.isnan(size) for size in x.shape):
            msg = f"{name} has axes of unknown size: {x.shape}; call {name}.compute_chunk_sizes() first"
            raise ValueError(msg)
