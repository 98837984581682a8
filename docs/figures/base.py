"""Numbers stored by dense and structured matrices."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    n = np.logspace(1, 6, 50)
    lines = (
        ("Dense", n**2, "#c8553d"),
        ("LowRank, rank 16", 32 * n, "#8e6bbf"),
        ("Toeplitz, two levels", 4 * n, "#4c8eda"),
        ("Causal with gates", n, "#3aa76d"),
        ("Causal", np.ones_like(n), "#a0a030"),
    )
    figure, ax = plt.subplots(figsize=(5.5, 3.4))
    for label, stored, color in lines:
        ax.loglog(n, stored, color=color, label=label)
    ax.set(xlabel="size $n$", ylabel="numbers stored")
    ax.legend(loc="upper left")
    return figure
