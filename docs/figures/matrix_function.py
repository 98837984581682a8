"""Chebyshev coefficients of heat kernels, and one row of each."""

import numpy as np
from matplotlib import pyplot as plt
from scipy.special import ive

POINTS = 101


def draw():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0))
    k, j = np.arange(120), np.arange(1, POINTS + 1)
    V = np.sqrt(2 / (POINTS + 1)) * np.sin(np.pi * np.outer(j, j) / (POINTS + 1))
    values = 2 - 2 * np.cos(np.pi * j / (POINTS + 1))
    for time, color in ((1, "#4c8eda"), (10, "#3d9970"), (100, "#c8553d")):
        left.semilogy(k, np.maximum(2 * ive(k, 2 * time), 1e-20), color=color, label=f"$t = {time}$")
        right.plot(j, V[POINTS // 2] * np.exp(-time * values) @ V.T, color=color)
    left.set(xlabel="$k$", ylabel="$|c_k|$", ylim=(1e-16, 2))
    left.legend()
    right.set(xlabel="$j$", ylabel=r"$(e^{-tA})_{51,j}$")
    figure.tight_layout()
    return figure
