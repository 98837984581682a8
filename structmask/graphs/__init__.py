"""Graphs and trees: their matrices, and what is computed with them, one theorem a file."""

from structmask.graphs import random_lengths, walk_series
from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.hop_mask import hop_mask
from structmask.graphs.laplacian import laplacian, spectral_bound
from structmask.graphs.markov import MarkovChain
from structmask.graphs.markov_process import MarkovProcess
from structmask.graphs.random_features import graph_random_features, modulation
from structmask.graphs.random_walk import RandomWalkKernel, random_walk_kernel
from structmask.graphs.tree import Forest, NotATreeError, as_forest
from structmask.graphs.tree_decay import TreeDecay, tree_decay
from structmask.graphs.tree_mask import TreeFunction, tree_mask
from structmask.graphs.tree_metric import distortion, tree_metric
from structmask.graphs.tree_table import TreeTable
from structmask.graphs.visits import Visits

__all__ = [
    "Forest",
    "MarkovChain",
    "MarkovProcess",
    "NotATreeError",
    "RandomWalkKernel",
    "TreeDecay",
    "TreeFunction",
    "TreeTable",
    "Visits",
    "as_adjacency",
    "as_forest",
    "distortion",
    "graph_random_features",
    "hop_mask",
    "laplacian",
    "modulation",
    "random_lengths",
    "random_walk_kernel",
    "spectral_bound",
    "tree_decay",
    "tree_mask",
    "tree_metric",
    "walk_series",
]
