"""Two factors and their Kronecker product."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    i, j = np.arange(6), np.arange(8)
    decay = np.tril(0.7 ** np.abs(i[:, None] - i))
    bump = np.exp(-((j[:, None] - j) ** 2) / 6)
    figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.9), width_ratios=(1, 1, 2))
    titles = ("$A$, causal", "$B$, Toeplitz", r"$A \otimes B$")
    for ax, matrix, title in zip(axes, (decay, bump, np.kron(decay, bump)), titles, strict=True):
        ax.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for cut in range(8, 48, 8):
        axes[2].axhline(cut - 0.5, color="#808080", linewidth=0.5)
        axes[2].axvline(cut - 0.5, color="#808080", linewidth=0.5)
    return figure
