"""Packed sequences, and a grid mask with a class token."""

import numpy as np
import scipy.linalg
from matplotlib import pyplot as plt


def draw():
    blocks = [np.tril(0.85 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))) for n in (9, 5, 11)]
    y, x = np.divmod(np.arange(24), 6)
    grid = np.ones((25, 25))
    grid[1:, 1:] = np.exp(-np.hypot(y[:, None] - y, x[:, None] - x) / 1.5)
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 3.1))
    for ax, matrix, title in zip(
        axes,
        (scipy.linalg.block_diag(*blocks), grid),
        ("three sequences", "class token and $4 \\times 6$ grid"),
        strict=True,
    ):
        ax.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for cut in (9, 14):
        axes[0].axhline(cut - 0.5, color="#808080", linewidth=0.6)
        axes[0].axvline(cut - 0.5, color="#808080", linewidth=0.6)
    return figure
