"""Terms that a diffusion takes, by products with L and by its resolvent; and the coefficients of both."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import responses
from structmask.graphs.resolvent import eigenvalues, shortest_series
from structmask.linalg.chebyshev import certified_series, chebyshev_coefficients

BOUND, TOL = 8.0, 1e-10


def draw():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.0))
    times = np.logspace(0, 6, 25)
    heats = [responses.heat(t) for t in times]
    series = [certified_series(h, h.log_bound(BOUND), (0.0, BOUND), TOL) for h in heats]
    left.loglog(times, [s.coefficients.size - 1 for s in series], color="#4c8eda", label="products with $L$")
    solutions = [shortest_series(h, TOL)[1].coefficients.size - 1 for h in heats]
    left.loglog(times, solutions, color="#c8553d", label="solutions")
    left.set(xlabel="$t$", ylabel="$K$", ylim=(5, 3e4))
    left.legend()
    for ratio, color in ((2, "#8e6bbf"), (16, "#c8553d"), (128, "#3d9970")):
        c = chebyshev_coefficients(lambda y, t=ratio: np.exp(-t * eigenvalues(y, 1.0)), (0.0, 1.0), 256)
        right.semilogy(np.abs(c[:80]), color=color, label=f"$t/s = {ratio}$")
    right.semilogy((1 + np.sqrt(2.0)) ** -np.arange(45.0), ":", color="#888888")
    right.set(xlabel="$k$", ylabel="$|c_k|$", ylim=(1e-17, 2))
    right.legend()
    figure.tight_layout()
    return figure
