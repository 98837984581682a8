"""Spectra of a smooth and of a rough kernel, and of one that is not symmetric."""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_spectrum


def draw():
    masks = {
        "$e^{-(s/24)^2}$": sm.Toeplitz.from_function(lambda s: np.exp(-((s / 24) ** 2)), 512),
        "$e^{-|s|/8}$": sm.Toeplitz.from_function(lambda s: np.exp(-np.abs(s) / 8), 512),
        "causal, $e^{-s/8}$": sm.Causal(512, decay=np.exp(-1 / 8)),
    }
    figure, axes = plt.subplots(1, 3, figsize=(8.0, 2.8), layout="constrained")
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        show_spectrum(mask, ax=ax)
        ax.set(title=title)
    return figure
