"""Operations that the planner counts for one masked attention, dense, by transforms and by recurrences."""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm
from structmask.plotting import show_scaling


def draw():
    sizes = 4 ** np.arange(4, 9)
    counts = {"dense": [], "stream": [], "scan": []}
    for n in sizes:
        phi = sm.LowRank(np.ones((n, 16)), np.ones((n, 16)))
        masks = (sm.Causal(n), sm.Toeplitz(np.ones(2 * n - 1)))
        flops = {step.method: step.work.flops for M in masks for step in sm.explain(M * phi, columns=16).steps}
        for method, curve in counts.items():
            curve.append(flops[method])
    ax = show_scaling(sizes, counts, ax=plt.subplots(figsize=(5.5, 3.4), layout="constrained")[1])
    ax.set(ylabel="operations")
    return ax.figure
