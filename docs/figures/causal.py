"""A decay mask with gates, cut into chunks."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

ARROW = {"arrowstyle": "->", "color": "#808080"}


def draw():
    length, chunk = 32, 8
    rng = np.random.default_rng(1)
    gates = rng.uniform(0.75, 1.0, length)
    gates[19] = 0.0
    mask = np.eye(length)
    for i in range(1, length):
        mask[i, :i] = gates[i] * mask[i - 1, :i]
    figure, ax = plt.subplots(figsize=(4.0, 4.0))
    ax.imshow(np.where(np.tri(length, dtype=bool), mask, np.nan), cmap="viridis")
    for start in range(0, length, chunk):
        corner = start - 0.5
        ax.add_patch(Rectangle((corner, corner), chunk, chunk, fill=False, edgecolor="#e07b39", linewidth=2))
        ax.plot([-0.5, corner], [corner, corner], color="#808080", linewidth=0.8, linestyle=":")
        ax.annotate("", (length + 1.5, corner + chunk), (length + 1.5, corner), arrowprops=ARROW)
    ax.text(length + 2.6, length / 2, "state $S$", rotation=270, va="center")
    ax.text(20, 6, "dense tiles", color="#e07b39")
    ax.set(xlabel="key $j$", ylabel="query $i$", xticks=[], yticks=[], xlim=(-0.6, length + 3))
    ax.spines[:].set_visible(False)
    return figure
