"""Masks of a ring, of its spanning tree, and of random trees, seen from one node."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import as_adjacency, tree_decay, tree_metric


def draw():
    n, rate, middle = 64, 1 / 8, 20
    i = np.arange(n)
    ring = as_adjacency(nodes=n, edges=[[*i, *np.roll(i, 1)], [*np.roll(i, 1), *i]])
    spanning = tree_decay(tree_metric(ring), rate)
    trees = [tree_decay(tree_metric(ring, kind="frt", rng=seed), rate) for seed in range(20)]
    steps = np.abs(i - middle)
    figure, axes = plt.subplots(figsize=(6.5, 2.8))
    axes.plot(i, np.exp(-rate * np.minimum(steps, n - steps)), color="#808080", label="ring")
    axes.plot(i, spanning.entries([middle], i)[0], color="C0", label="spanning tree", linestyle="--")
    axes.plot(i, np.mean([tree.entries([middle], i)[0] for tree in trees], axis=0), color="C1", label="20 random trees")
    axes.set(xlabel="node", ylabel="mask")
    axes.legend()
    return figure
