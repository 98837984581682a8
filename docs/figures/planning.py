"""Operations per row of dense, streaming and chunked attention."""

import numpy as np
from matplotlib import pyplot as plt


def draw():
    length = np.logspace(np.log10(64), np.log10(262144), 60)
    padded = 2 * length
    figure, ax = plt.subplots(figsize=(5.5, 3.4))
    for size, style in ((16, "-"), (64, "--")):
        forms = (
            ("dense", 2 * length * (2 * size), "#c8553d"),
            ("stream (FFT)", size**2 * 5 * padded * np.log2(padded) / length, "#4c8eda"),
            ("scan (causal)", np.full_like(length, 2 * (64 * 2 * size + 2 * size**2)), "#3aa76d"),
        )
        for label, flops, color in forms:
            ax.loglog(length, flops, style, color=color, label=f"{label}, $m = e = {size}$")
    ax.set(xlabel="length $L$", ylabel="flops per row")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
