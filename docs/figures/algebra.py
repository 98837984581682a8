"""A causal mask times a Toeplitz mask."""

from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_mask


def draw():
    causal = sm.Causal(32, decay=0.93)
    bump = sm.Toeplitz.from_function(lambda s: 1.0 / (1.0 + (s / 4.0) ** 2), 32)
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
    panels = {"Causal": causal, "Toeplitz": bump, "Causal * Toeplitz": causal * bump}
    for ax, (title, matrix) in zip(axes, panels.items(), strict=True):
        show_mask(matrix, ax=ax, colorbar=False)
        ax.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes[0].text(34.5, 16, r"$\circ$", fontsize=14, va="center", ha="center")
    axes[1].text(34.5, 16, "=", fontsize=14, va="center", ha="center")
    return figure
