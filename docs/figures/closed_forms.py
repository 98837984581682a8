"""Heat at a distance on a cycle, a hypercube and a regular tree."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import grid_diffusion, hypercube_diffusion, regular_tree_diffusion


def draw():
    figure, ax = plt.subplots(figsize=(5.0, 3.0))
    s, time = np.arange(11), 2.0
    cycle = grid_diffusion(40, time / 2, periodic=True).entries([0], list(s))[0]  # I - A/k is (D - A) / 2 here
    cube = hypercube_diffusion(10, time / 10).values
    tree = regular_tree_diffusion(3, time)(s)
    for values, name, color in (
        (cycle, "cycle", "#4c8eda"),
        (cube, "hypercube, $d = 10$", "#3d9970"),
        (tree, "regular tree, $k = 3$", "#c8553d"),
    ):
        ax.semilogy(s, values / values[0], "o-", color=color, label=name)
    ax.set(xlabel="distance $s$", ylim=(1e-12, 2))
    ax.legend()
    figure.tight_layout()
    return figure
