"""A mask of the Hamming distance and its eigenvalues."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    d, a = 5, 0.6
    index = np.arange(2**d)
    distance = np.bitwise_count(index[:, None] ^ index)
    weight = np.arange(d + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0))
    left.imshow(a**distance, cmap="viridis", vmin=0, vmax=1)
    left.set(title="$0.6^{\\mathrm{distance}}$", xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    right.stem(weight, (1 - a) ** weight * (1 + a) ** (d - weight), basefmt=" ")
    right.set(title="eigenvalues", xlabel="bits of the character", yscale="log")
    return figure
