"""Graphs and trees: their matrices, and what is computed with them, one theorem a file."""

from structmask.graphs import random_lengths, responses, walk_series
from structmask.graphs.adjacency import as_adjacency
from structmask.graphs.closed_forms import (
    complete_diffusion,
    grid_diffusion,
    hypercube_diffusion,
    regular_tree_diffusion,
)
from structmask.graphs.diffusion import diffusion_kernel, heat_equation, schrodinger_equation, wave_equation
from structmask.graphs.hop_mask import hop_mask
from structmask.graphs.laplacian import laplacian, spectral_bound
from structmask.graphs.markov import MarkovChain
from structmask.graphs.markov_process import MarkovProcess
from structmask.graphs.occupation import Occupation
from structmask.graphs.random_features import graph_random_features, modulation, modulation_pullback
from structmask.graphs.random_walk import RandomWalkKernel, random_walk_kernel
from structmask.graphs.sampled_kernel import SampledKernel
from structmask.graphs.spectral_filter import SpectralFilter, spectral_filter
from structmask.graphs.tree import Forest
from structmask.graphs.tree_building import NotATreeError, as_forest
from structmask.graphs.tree_decay import TreeDecay, tree_decay
from structmask.graphs.tree_mask import TreeFunction, tree_mask
from structmask.graphs.tree_metric import distortion, tree_metric
from structmask.graphs.tree_polynomial import TreePolynomial
from structmask.graphs.tree_table import TreeTable
from structmask.graphs.visits import Visits

__all__ = [
    "Forest",
    "MarkovChain",
    "MarkovProcess",
    "NotATreeError",
    "Occupation",
    "RandomWalkKernel",
    "SampledKernel",
    "SpectralFilter",
    "TreeDecay",
    "TreeFunction",
    "TreePolynomial",
    "TreeTable",
    "Visits",
    "as_adjacency",
    "as_forest",
    "complete_diffusion",
    "diffusion_kernel",
    "distortion",
    "graph_random_features",
    "grid_diffusion",
    "heat_equation",
    "hop_mask",
    "hypercube_diffusion",
    "laplacian",
    "modulation",
    "modulation_pullback",
    "random_lengths",
    "random_walk_kernel",
    "regular_tree_diffusion",
    "responses",
    "schrodinger_equation",
    "spectral_bound",
    "spectral_filter",
    "tree_decay",
    "tree_mask",
    "tree_metric",
    "walk_series",
    "wave_equation",
]
