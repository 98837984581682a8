"""T5's buckets and a mask made of them."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    n, half, largest = 64, 8, 64
    s = np.arange(1 - n, n)
    distance = np.abs(s)
    level = np.log(np.maximum(distance, 4) / 4) / np.log(largest / 4) * 4
    bucket = np.where(distance < 4, distance, np.minimum(half - 1, 4 + level.astype(int)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.9))
    left.step(s, bucket + np.where(s < 0, half, 0), where="mid", color="C0")
    left.set(title="bucket", xlabel="$i - j$")
    table = np.exp(-bucket / 3.0)
    i = np.arange(n)
    right.imshow(table[i[:, None] - i + n - 1], cmap="viridis", vmin=0, vmax=1)
    right.set(title="$M_{ij}$ = value of the bucket of $i - j$", xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    return figure
