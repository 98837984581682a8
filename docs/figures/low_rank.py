"""A cosine mask and its two thin factors."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    i = np.arange(40)
    factor = np.stack([np.cos(0.25 * i), np.sin(0.25 * i)], axis=1)
    figure, axes = plt.subplot_mosaic([["mask", "left", "right"]], figsize=(6.5, 2.6), width_ratios=(10, 1.5, 10))
    panels = {"mask": factor @ factor.T, "left": factor, "right": factor.T}
    titles = {"mask": r"$M_{ij} = \cos\,\omega(i - j)$", "left": "$F$", "right": r"$G^\top$"}
    for name, ax in axes.items():
        ax.imshow(panels[name], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        ax.set(title=titles[name], xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes["right"].set_box_aspect(0.15)
    return figure
