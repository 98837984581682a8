"""Estimates of a heat kernel by graph random features: error and diagonal."""

import networkx as nx
import numpy as np
from matplotlib import pyplot as plt

from structmask import Dense, graph_random_features, laplacian
from structmask.graphs import walk_series
from structmask.linalg import PowerSeries


def draw():
    graph, series = nx.connected_caveman_graph(4, 6), walk_series.heat(2.0)
    n = len(graph)
    W = np.eye(n) - laplacian(graph, kind="symmetric").toarray()
    exact = PowerSeries(Dense(W), series.coefficients).to_dense()

    def estimates(walks, count, **options):
        return [
            graph_random_features(W, series, walks=walks, stop=0.2, rng=seed, **options).to_dense()
            for seed in range(count)
        ]

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.7), layout="constrained")
    walks = 2 ** np.arange(2, 11)
    for repelling, label in ((False, "independent"), (True, "repelling")):
        errors = [np.sqrt(np.mean((np.array(estimates(m, 8, repelling=repelling)) - exact) ** 2)) for m in walks]
        axes[0].loglog(walks, errors, "o-", markersize=3, label=label)
    axes[0].loglog(walks, 0.25 * walks**-0.5, color="#808080", linewidth=1, label="walks$^{-1/2}$")
    axes[0].set(xlabel="walks from a node", title="error (root mean square)")
    axes[0].legend()
    axes[1].plot(np.diag(exact), color="#808080", linewidth=1, label="exact")
    for ensembles, label in ((2, "two ensembles"), (1, "one ensemble")):
        mean = np.mean(estimates(8, 200, ensembles=ensembles), axis=0)
        axes[1].plot(np.diag(mean), "o", markersize=3, label=label)
    axes[1].set(xlabel="node", title="diagonal: mean of estimates, 8 walks", ylim=(0, None))
    axes[1].legend(loc="lower right")
    return figure
