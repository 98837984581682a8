"""A causal mask times a Toeplitz mask."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    i = np.arange(32)
    offset = i[:, None] - i
    causal = np.where(offset >= 0, 0.93 ** np.maximum(offset, 0), 0.0)
    bump = 1.0 / (1.0 + (offset / 4.0) ** 2)
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
    panels = {"Causal": causal, "Toeplitz": bump, "Causal * Toeplitz": causal * bump}
    for ax, (title, matrix) in zip(axes, panels.items(), strict=True):
        ax.imshow(matrix, cmap="viridis")
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes[0].text(34.5, 16, r"$\circ$", fontsize=14, va="center", ha="center")
    axes[1].text(34.5, 16, "=", fontsize=14, va="center", ha="center")
    return figure
