"""A mask, a low-rank kernel matrix, and their elementwise product."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    rng = np.random.default_rng(3)
    position = np.arange(48)
    mask = np.exp(-np.abs(position[:, None] - position) / 8)
    wave = np.cumsum(rng.standard_normal((48, 3)), axis=0)
    kernel = np.exp(wave / 4) @ np.exp(np.roll(wave, 7, axis=0) / 4).T
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
    titles = (r"mask $M$", r"$\Phi_q\Phi_k^\top$, rank $m$", r"$A = M \circ \Phi_q\Phi_k^\top$")
    for ax, matrix, title in zip(axes, (mask, kernel, mask * kernel), titles, strict=True):
        ax.imshow(matrix, cmap="viridis")
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure
