"""Bounds of the largest Laplacian eigenvalue by powers of D + W."""

import networkx as nx
import numpy as np
from matplotlib import pyplot as plt


def draw():
    figure, ax = plt.subplots(figsize=(5.0, 3.0))
    W = nx.to_numpy_array(nx.barabasi_albert_graph(400, 3, seed=1))
    Q, largest = np.diag(W.sum(axis=0)) + W, np.linalg.eigvalsh(np.diag(W.sum(axis=0)) - W)[-1]
    x, bounds = np.ones(len(W)), []
    for _ in range(12):
        bounds.append(np.max(Q @ x / x))
        x = Q @ x
        x /= x.max()
    ax.plot(bounds, "o-", color="#4c8eda", label="bound")
    ax.axhline(largest, color="#c8553d", label="largest eigenvalue")
    ax.set(xlabel="power", ylim=(0, None))
    ax.legend()
    figure.tight_layout()
    return figure
