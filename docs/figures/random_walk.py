"""A random-walk kernel, exact and sampled, and the error of samples."""

import networkx as nx
import numpy as np
from matplotlib import pyplot as plt

from structmask import random_walk_kernel


def draw():
    graph, length = nx.connected_caveman_graph(4, 6), 5
    exact = random_walk_kernel(graph, length).to_dense()
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.7), width_ratios=(1, 1, 1.25), layout="constrained")
    sampled = random_walk_kernel(graph, length, walks=10, rng=0).to_dense()
    for ax, kernel, title in zip(axes, (exact, sampled), ("exact", "10 walks"), strict=False):
        ax.imshow(kernel, cmap="viridis", vmin=0, vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    walks = 2 ** np.arange(2, 12)
    for repelling, label in ((False, "independent"), (True, "repelling")):
        errors = [
            np.mean([error(graph, length, exact, m, seed, repelling=repelling) for seed in range(8)]) for m in walks
        ]
        axes[2].loglog(walks, errors, "o-", markersize=3, label=label)
    axes[2].loglog(walks, 0.5 * walks**-0.5, color="#808080", linewidth=1, label="walks$^{-1/2}$")
    axes[2].set(xlabel="walks from a node", title="error (root mean square)")
    axes[2].legend()
    return figure


def error(graph, length, exact, walks, seed, *, repelling):
    kernel = random_walk_kernel(graph, length, walks=walks, rng=seed, repelling=repelling)
    return np.sqrt(np.mean((kernel.to_dense() - exact) ** 2))
