"""A two-sided damped wave, the tiles near its diagonal and the blocks beyond."""

import numpy as np
from matplotlib import patches
from matplotlib import pyplot as plt


def draw():
    n, size = 64, 16
    s = np.abs(np.arange(n)[:, None] - np.arange(n))
    figure, ax = plt.subplots(figsize=(3.6, 3.4))
    ax.imshow(0.96**s * np.cos(s / 6), cmap="viridis", vmin=-1, vmax=1)
    for row in range(0, n, size):
        for column in range(0, n, size):
            near = row == column
            color, width = ("#ff7f0e", 1.4) if near else ("#c0c0c0", 0.6)
            corner = (column - 0.5, row - 0.5)
            ax.add_patch(patches.Rectangle(corner, size, size, fill=False, edgecolor=color, linewidth=width))
    ax.set(title="$0.96^s\\cos(s/6)$, $s = |i - j|$", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return figure
