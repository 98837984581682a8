"""Forests from graphs without cycles, or from parents and lengths: what is accepted, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from structmask.backends import arrays
from structmask.graphs.adjacency import as_adjacency, check_on_host
from structmask.graphs.tree import Floats, Forest, Ints


class NotATreeError(ValueError):
    """A graph that should be a tree or a forest has a cycle; the message names one of its edges."""


def as_forest(tree: Any = None, /, *, parents: Any = None, lengths: Any = None) -> Forest:
    """A forest from a graph without cycles, or from parents.

    Parameters
    ----------
    tree : graph, optional
        Anything `as_adjacency` takes; its weights are lengths, explicit zeros are edges of length zero, and the first
        node of every component is its root. A `Forest` comes back as it is.
    parents : int array (n,), optional
        Parent of each node, -1 at roots.
    lengths : array (n,), optional
        Length of the edge from each node to its parent, 1 by default; what stands at roots is not used. Given with a
        `tree`, they replace its own.

    Returns
    -------
    Forest
        Use it in place of the graph to pay for the checks and the order once.

    Raises
    ------
    TypeError
        If parents or lengths are on a device.
    NotATreeError
        If there is a cycle: the message names an edge of it.
    ValueError
        If lengths are negative or not finite, or shapes do not fit.

    Notes
    -----
    O(n) operations, O(n) memory; depth does not matter.

    Examples
    --------
    >>> from structmask import as_forest
    >>> as_forest(parents=[-1, 0, 0, 1], lengths=[0, 1.5, 2.0, 0.5])
    Forest(4 nodes, 1 trees)
    """
    check_on_host(parents=parents, lengths=lengths)
    if (tree is None) == (parents is None):
        msg = "as_forest takes a graph or parents=, one of them"
        raise TypeError(msg)
    if tree is not None:
        forest = tree if isinstance(tree, Forest) else _from_graph(tree)
        return forest if lengths is None else Forest(forest.parents, _lengths(forest.parents, lengths), forest.hidden)
    checked = _parents(parents)
    return Forest(checked, _lengths(checked, np.ones(checked.size) if lengths is None else lengths))


def _parents(parents: Any) -> Ints:
    given = np.asarray(arrays.to_numpy(parents))
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        msg = f"parents must be integers of shape (n,), got shape {given.shape}, dtype {given.dtype}"
        raise ValueError(msg)
    checked: Ints = given.astype(np.int64)
    if checked.size and not (checked.min() >= -1 and checked.max() < checked.size):
        msg = f"parents must lie between -1 and {checked.size - 1}, got {int(checked.min())} to {int(checked.max())}"
        raise ValueError(msg)
    _check_acyclic(checked)
    return checked


def _check_acyclic(parents: Ints) -> None:
    """Every node must find a root: pointers are doubled until they stay; those that circle never do."""
    own = np.arange(parents.size)
    jump = np.where(parents < 0, own, parents)
    for _ in range(max(1, int(parents.size).bit_length())):
        jump = jump[jump]
    lost = parents[jump] >= 0
    if lost.any():
        v = int(jump[np.argmax(lost)])  # after n steps and more it is on the cycle
        msg = f"the edge from node {v} to its parent {int(parents[v])} is on a cycle; a forest has none"
        raise NotATreeError(msg)


def _lengths(parents: Ints, lengths: Any) -> Floats:
    given = np.asarray(arrays.to_numpy(lengths))
    if given.shape != parents.shape or given.dtype.kind not in "biuf":
        msg = f"lengths must be real numbers of shape {parents.shape}, got shape {given.shape}, dtype {given.dtype}"
        raise ValueError(msg)
    chosen = np.where(parents < 0, 0.0, given.astype(np.float64))
    bad = ~(np.isfinite(chosen) & (chosen >= 0))
    if bad.any():
        v = int(np.argmax(bad))
        msg = f"edge lengths must be finite and at least 0, got {chosen[v]} from node {v} to its parent {parents[v]}"
        raise ValueError(msg)
    return chosen


def _from_graph(graph: Any) -> Forest:
    n, u, v, w = _edges(as_adjacency(graph))
    ends, marks = np.concatenate([u, v]), np.ones(2 * u.size)
    pattern = scipy.sparse.csr_array((marks, (ends, np.concatenate([v, u]))), shape=(n, n))
    _, label = csgraph.connected_components(pattern, directed=False)
    roots = np.unique(label, return_index=True)[1]
    return _rooted(n, u, v, w, roots)


def _edges(A: scipy.sparse.csr_array) -> tuple[int, Ints, Ints, Floats]:
    """Each undirected edge once, lower end first; stored zeros count."""
    coo = A.tocoo()
    i, j = (index.astype(np.int64) for index in coo.coords)
    n, loops = int(A.shape[0]), i == j
    if loops.any():
        msg = f"node {int(i[np.argmax(loops)])} has an edge to itself; a forest has none"
        raise NotATreeError(msg)
    low, high = np.minimum(i, j), np.maximum(i, j)
    key, index = np.unique(low * n + high, return_index=True)
    backward = np.searchsorted(key, low * n + high)
    weights = np.asarray(coo.data, dtype=np.float64)
    if (weights != weights[index][backward]).any():
        e = int(np.argmax(weights != weights[index][backward]))
        msg = f"the edge between nodes {int(low[e])} and {int(high[e])} has two lengths; give it one"
        raise ValueError(msg)
    return n, low[index], high[index], weights[index]


def _rooted(n: int, u: Ints, v: Ints, w: Floats, roots: Ints) -> Forest:
    """The forest of undirected edges with one root a component."""
    top = np.full(roots.size, n)
    ends = np.concatenate([u, v, top]), np.concatenate([v, u, roots])
    reached = scipy.sparse.csr_array((np.ones(ends[0].size), ends), shape=(n + 1, n + 1))
    above = csgraph.breadth_first_order(reached, n)[1][:n]
    parents = np.where(above == n, -1, above).astype(np.int64)
    down, upward = parents[v] == u, parents[u] == v
    extra = ~(down | upward)
    if extra.any():
        e = int(np.argmax(extra))
        msg = f"the edge between nodes {int(u[e])} and {int(v[e])} is on a cycle; a forest has none (see tree_metric)"
        raise NotATreeError(msg)
    lengths = np.zeros(n)
    lengths[np.where(down, v, u)] = w
    return Forest(parents, _lengths(parents, lengths))
