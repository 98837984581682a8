"""A mask on a grid, one whose kernel turns negative, and a long one, as heat maps."""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_mask


def draw():
    heads = np.array([1.0, 4.0])[:, None, None]
    grid = sm.Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / heads), (16, 16))
    wave = sm.Toeplitz.from_function(lambda s: np.cos(s / 4) * np.exp(-np.abs(s) / 12), 64)
    long = sm.Causal(1_000_000, decay=1 - 1e-5)
    figure, axes = plt.subplots(1, 3, figsize=(9.0, 2.6), layout="constrained")
    show_mask(grid, head=1, ax=axes[0])
    show_mask(wave, ax=axes[1])
    show_mask(long, ax=axes[2])
    return figure
