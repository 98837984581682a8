"""A table of offsets on a 5 x 6 grid and its two-level Toeplitz matrix."""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_mask


def draw():
    rows, columns = 5, 6
    dy, dx = np.meshgrid(np.arange(1 - rows, rows), np.arange(1 - columns, columns), indexing="ij")
    table = np.exp(-np.hypot(dy, dx) / 2.5) * (1 + 0.5 * np.cos(1.3 * dx + dy))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.2), width_ratios=(1, 1.2))
    left.imshow(table, cmap="viridis", extent=(0.5 - columns, columns - 0.5, rows - 0.5, 0.5 - rows))
    left.set(title="table $f(s_1, s_2)$", xlabel="$s_2$", ylabel="$s_1$")
    show_mask(sm.Toeplitz(table, levels=2), ax=right, colorbar=False)
    for cut in range(columns, rows * columns, columns):
        right.axhline(cut - 0.5, color="#808080", linewidth=0.6)
        right.axvline(cut - 0.5, color="#808080", linewidth=0.6)
    right.set(title="$M_{ij} = f(i - j)$", xlabel="", ylabel="", xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    return figure
