"""A band and the tiles it is multiplied in."""

import numpy as np
from matplotlib import patches
from matplotlib import pyplot as plt


def draw():
    n, lower, upper, rows = 48, 10, 4, 12
    s = np.arange(n)[:, None] - np.arange(n)
    figure, ax = plt.subplots(figsize=(3.6, 3.4))
    ax.imshow(np.where((s <= lower) & (s >= -upper), np.exp(-np.abs(s) / 6), 0), cmap="viridis", vmin=0, vmax=1)
    for a in range(0, n, rows):
        first, last = max(0, a - lower), min(n, a + rows + upper)
        corner = (first - 0.5, a - 0.5)
        ax.add_patch(patches.Rectangle(corner, last - first, rows, fill=False, edgecolor="#ff7f0e", linewidth=1.2))
    ax.set(title="$-4 \\leq i - j \\leq 10$", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return figure
