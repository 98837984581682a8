"""One row of three masks: on a line, on a grid, and on a graph."""

import numpy as np
import scipy.sparse
from matplotlib import pyplot as plt
from scipy.spatial import Delaunay

import structmask as sm
from structmask.plotting import show_row


def draw():
    gates = 1 - 0.2 * np.random.default_rng(0).random(120) ** 2
    grid = sm.Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, 2 * dx) / 5), (24, 30))
    places, A = _mesh(150)
    degrees = scipy.sparse.diags_array(A.sum(axis=1))
    heat = sm.matrix_function(sm.Sparse(degrees - A), lambda x: np.exp(-x))
    figure, axes = plt.subplots(1, 3, figsize=(9.0, 2.8), layout="constrained")
    show_row(sm.Causal(120, decay=gates), 80, ax=axes[0])
    show_row(grid, 8 * 30 + 20, ax=axes[1])
    show_row(heat, 0, positions=places, graph=A, ax=axes[2])
    return figure


def _mesh(count):
    """Random points of the plane, and the adjacency matrix of the triangles between them."""
    places = np.random.default_rng(1).random((count, 2))
    corners = Delaunay(places).simplices
    i, j = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]).T
    A = scipy.sparse.coo_array((np.ones(i.size), (i, j)), shape=(count, count)).tocsr()
    return places, (A + A.T > 0).astype(float)
