"""Products with P that a distribution on a path takes, against time."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import MarkovProcess
from structmask.graphs import uniformisation


def draw():
    n, tol = 30, 1e-10
    process = MarkovProcess(np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1))
    clock = uniformisation.Clock(process._A, functions=False)
    q, step = clock.rate, clock.step
    start, times = np.eye(n)[:, :1], np.geomspace(3, 3e5, 11)
    counts = {"all ticks": [], "until nothing changes": [], "Chebyshev": []}
    for time in times:
        first, weights = uniformisation.poisson_weights(q * time, tol / 2)
        counts["all ticks"].append(first + weights.size)
        calls = []
        clock.step = lambda X, calls=calls: calls.append(1) or step(X)
        clock._averaged(start, uniformisation.Weights(first, 0.0, weights), tol)
        counts["until nothing changes"].append(len(calls))
        counts["Chebyshev"].append(uniformisation.chebyshev_weights(q * time, tol / (2 * np.sqrt(n))).size - 1)
    figure, ax = plt.subplots(figsize=(4.6, 3.2))
    for name, values in counts.items():
        ax.loglog(q * times, values, "o-", markersize=4, label=name)
    ax.set(xlabel="expected ticks $qt$", ylabel="products with $P$")
    ax.legend()
    return figure
