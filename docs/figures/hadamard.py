"""A mask, a low-rank kernel matrix, and their elementwise product."""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_mask


def draw():
    rng = np.random.default_rng(3)
    mask = sm.Toeplitz.from_function(lambda s: np.exp(-np.abs(s) / 8), 48)
    wave = np.cumsum(rng.standard_normal((48, 3)), axis=0)
    kernel = sm.LowRank(np.exp(wave / 4), np.exp(np.roll(wave, 7, axis=0) / 4))
    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
    titles = (r"mask $M$", r"$\Phi_q\Phi_k^\top$, rank $m$", r"$A = M \circ \Phi_q\Phi_k^\top$")
    for ax, matrix, title in zip(axes, (mask, kernel, mask * kernel), titles, strict=True):
        show_mask(matrix, ax=ax, colorbar=False)
        ax.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure
