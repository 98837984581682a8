"""Graphs: their matrices, and what is computed with them, one theorem a file."""

from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.laplacian import laplacian, spectral_bound

__all__ = [
    "as_adjacency",
    "laplacian",
    "spectral_bound",
]
