"""Residuals of Krylov methods for four Toeplitz matrices, with and without circulants."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import Toeplitz, solve

ROWS = 1000


def draw():
    offset = np.arange(1 - ROWS, ROWS)
    matrices = {rf"$\rho = {rho}$": Toeplitz(rho ** abs(offset)) for rho in (0.5, 0.9, 0.98)}
    matrices["indefinite"] = Toeplitz(np.cos(2 * offset) / (1 + abs(offset)) - 0.5 * (offset == 0))
    b = np.random.default_rng(0).standard_normal(ROWS)
    figure, ax = plt.subplots(figsize=(5.5, 3.2))
    for (label, matrix), color in zip(matrices.items(), ("#4c8eda", "#3d9970", "#c8553d", "#8e6bbf"), strict=True):
        for preconditioner, style in (("none", "-"), ("circulant", "--")):
            seen = []
            given = {"preconditioner": preconditioner, "callback": lambda _, residual, seen=seen: seen.append(residual)}
            solve(matrix, b, **given)
            ax.loglog(1 + np.arange(len(seen)), seen, style, color=color, label=label if style == "-" else None)
    ax.set(xlabel="iteration", ylabel="relative residual")
    ax.legend()
    return figure
