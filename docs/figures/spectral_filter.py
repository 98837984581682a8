"""Named responses and their Chebyshev coefficients."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import responses
from structmask.linalg.chebyshev import chebyshev_coefficients

SHOWN = {
    "heat": (responses.heat(2.0), "#4c8eda"),
    "matern": (responses.matern(1.5, 3.0), "#3d9970"),
    "pagerank": (responses.pagerank(0.15), "#c8553d"),
    "wavelets": (responses.wavelets(1.5), "#8e6bbf"),
}


def draw():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0))
    x = np.linspace(0, 4, 200)
    for name, (response, color) in SHOWN.items():
        left.plot(x, response(x), color=color, label=name)
        right.semilogy(np.abs(chebyshev_coefficients(response, (0.0, 4.0), 60)), color=color)
    left.set(xlabel="$x$", ylabel="$h(x)$")
    left.legend()
    right.set(xlabel="$k$", ylabel="$|c_k|$", ylim=(1e-16, 2))
    figure.tight_layout()
    return figure
