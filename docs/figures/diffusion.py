"""Heat from one node of a grid graph with a hole, at three times."""

import networkx as nx
import numpy as np
from matplotlib import pyplot as plt

from structmask import heat_equation

SIDE = 41


def draw():
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.7))
    graph = nx.grid_graph((SIDE, SIDE))
    graph.remove_nodes_from([(i, j) for i in range(12, 20) for j in range(8, 33)])
    nodes = np.array(list(graph))
    initial = np.zeros(len(nodes))
    initial[np.flatnonzero((nodes == (8, 20)).all(axis=1))] = 1.0
    times = (5.0, 50.0, 300.0)
    for ax, time, heat in zip(axes, times, heat_equation(graph, initial, times), strict=True):
        picture = np.full((SIDE, SIDE), np.nan)
        picture[nodes[:, 0], nodes[:, 1]] = np.cbrt(np.maximum(heat, 0))
        ax.imshow(picture, cmap="magma")
        ax.set(title=f"$t = {time:g}$", xticks=(), yticks=())
    figure.tight_layout()
    return figure
