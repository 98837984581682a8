"""Pairs of panels of f(x + y), and a table on a tree of unit lengths."""

import numpy as np
from matplotlib import patches
from matplotlib import pyplot as plt

from structmask import as_forest, tree_mask


def smooth(low, h):
    """Whether 1 / (1 + s) is a polynomial of degree 7 on [low, low + 2 h], to six digits."""
    x = np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    fit = np.polynomial.chebyshev.chebfit(x, 1 / (1 + low + h * (1 + x)), 7)
    t = np.linspace(-1, 1, 50)
    return np.abs(np.polynomial.chebyshev.chebval(t, fit) - 1 / (1 + low + h * (1 + t))).max() < 1e-6


def draw():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.2))
    stack, reach = [(0, 0, 0)], 100.0
    while stack:
        level, i, j = stack.pop()
        h = reach / 2**level
        if level == 7 or smooth((i + j) * h, h):
            colour = plt.get_cmap("viridis")(level / 7)
            left.add_patch(patches.Rectangle((i * h, j * h), h, h, facecolor=colour, edgecolor="white", linewidth=0.4))
        else:
            stack += [(level + 1, 2 * i + a, 2 * j + b) for a in (0, 1) for b in (0, 1)]
    left.set(
        title="panels for $1/(1 + x + y)$", xlim=(0, reach), ylim=(0, reach), aspect="equal", xlabel="$x$", ylabel="$y$"
    )
    n = 120
    rng = np.random.default_rng(3)
    tree = as_forest(parents=[-1, *(i - 1 - int(rng.integers(min(i, 3))) for i in range(1, n))])
    right.imshow(tree_mask(tree, np.cos(np.arange(n) / 2)).to_dense(), cmap="viridis")
    right.set(title="$\\cos(d/2)$ on a tree of 120 nodes", xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    return figure
