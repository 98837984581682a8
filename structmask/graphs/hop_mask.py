"""Masks that let a node see its neighbourhood: all nodes within so many edges."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import scipy.sparse

from structmask.graphs.adjacency import as_adjacency
from structmask.linalg.elementary import Sparse


def hop_mask(graph: Any, hops: int = 1, /) -> Sparse:
    """Mask of ones where j can be reached from i by at most `hops` edges, the node itself included.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Weights do not matter; an edge of weight zero is one.
    hops : int
        At least zero.

    Returns
    -------
    Sparse (n, n)
        Masked attention with it costs one inner product a stored entry. ``Sparse(as_adjacency(graph))`` is the mask of
        the edge weights themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import hop_mask
    >>> hop_mask(np.diag([1.0, 1.0], 1), 1).to_dense()
    array([[1., 1., 0.],
           [0., 1., 1.],
           [0., 0., 1.]])
    """
    hops = operator.index(hops)
    if hops < 0:
        msg = f"hop_mask needs hops >= 0, got {hops}"
        raise ValueError(msg)
    W = as_adjacency(graph)
    near = _ones(W) + scipy.sparse.eye_array(W.shape[0], dtype=W.dtype, format="csr")
    reached = scipy.sparse.eye_array(W.shape[0], dtype=W.dtype, format="csr")
    for _ in range(hops):
        following = _ones(reached @ near)
        if following.nnz == reached.nnz:  # nothing new: the rest is out of reach
            break
        reached = following
    return Sparse(reached)


def _ones(A: Any) -> Any:
    return scipy.sparse.csr_array((np.ones_like(A.data), A.indices, A.indptr), shape=A.shape)
