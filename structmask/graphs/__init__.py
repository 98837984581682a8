"""Graphs and trees: their matrices, and what is computed with them, one theorem a file."""

from structmask.graphs import random_lengths
from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.laplacian import laplacian, spectral_bound
from structmask.graphs.tree import Forest, NotATreeError, as_forest
from structmask.graphs.tree_decay import TreeDecay, tree_decay

__all__ = [
    "Forest",
    "NotATreeError",
    "TreeDecay",
    "as_adjacency",
    "as_forest",
    "laplacian",
    "random_lengths",
    "spectral_bound",
    "tree_decay",
]
