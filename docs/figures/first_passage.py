"""Times to a node of a grid with a wall, and visits on the way."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import MarkovChain, as_adjacency


def draw():
    side = 41
    is_open = np.ones((side, side), dtype=bool)
    is_open[10, 4:36] = is_open[10:30, 35] = False
    nodes = np.where(is_open, np.cumsum(is_open).reshape(side, side) - 1, -1)
    pairs = [(nodes[:, 1:], nodes[:, :-1]), (nodes[1:], nodes[:-1])]
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in pairs], axis=1)
    edges = edges[:, (edges >= 0).all(axis=0)]
    n = int(is_open.sum())
    chain = MarkovChain.from_graph(as_adjacency(nodes=n, edges=np.concatenate([edges, edges[::-1]], axis=1)))
    goal, start = (5, 30), (33, 12)
    pictures = np.full((2, side, side), np.nan)
    pictures[0][is_open] = chain.hitting_times(nodes[goal])
    visits = np.eye(1, n, nodes[start])[0] @ chain.visits(nodes[goal])
    pictures[1][is_open] = np.sqrt(visits)
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.4))
    for panel, picture, title in zip(axes, pictures, ("expected time", "square root of visits"), strict=True):
        panel.imshow(picture, cmap="viridis")
        panel.plot(*goal[::-1], "+", color="#ff7f0e", markersize=9, markeredgewidth=2)
        panel.plot(*start[::-1], "o", color="#ff7f0e", markersize=6, fillstyle="none", markeredgewidth=2)
        panel.set(title=title, xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure
