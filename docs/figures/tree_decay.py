"""The decay mask of a binary tree, its nodes in two orders."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import as_forest, tree_decay


def draw():
    n = 63
    mask = tree_decay(as_forest(parents=(np.arange(n) + 1) // 2 - 1), factors=np.full(n, 0.6)).to_dense()
    preorder, stack = [], [0]
    while stack:
        v = stack.pop()
        preorder.append(v)
        stack += [c for c in (2 * v + 2, 2 * v + 1) if c < n]
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.2))
    for panel, order, title in zip(axes, (np.arange(n), preorder), ("breadth-first order", "preorder"), strict=True):
        panel.imshow(mask[np.ix_(order, order)], cmap="viridis", vmin=0, vmax=1)
        panel.set(title=title, xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure
