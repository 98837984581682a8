"""
How long until the walk is home?
================================

Expected hitting times of a random walk on a map, with the uncertainty of one walk: sparse systems, whatever the number
of states.
"""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# A map with a wall that has one gate. The walk moves to a neighbouring free cell, each equally likely.

side = 60
free = np.ones((side, side), dtype=bool)
free[30, :] = False
free[30, 44:47] = True
index = np.full(free.shape, -1)
index[free] = np.arange(free.sum())
right = free[:, :-1] & free[:, 1:]
down = free[:-1] & free[1:]
edges = np.concatenate(
    [
        np.stack([index[:, :-1][right], index[:, 1:][right]]),
        np.stack([index[:-1][down], index[1:][down]]),
    ],
    axis=1,
)
graph = sm.as_adjacency(nodes=int(free.sum()), edges=np.concatenate([edges, edges[::-1]], axis=1))
chain = sm.MarkovChain.from_graph(graph)
home = int(index[10, 10])

# %%
# The mean time to get home, and how far single walks are from it: hitting times have moments of any order.

mean = chain.hitting_times([home])
first, second = chain.hitting_moments([home], 2)
spread = np.sqrt(second - first**2)

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
for ax, (title, values) in zip(axes, {"mean steps": mean, "standard deviation": spread}.items(), strict=True):
    picture = np.full(free.shape, np.nan)
    picture[free] = values
    shown = ax.imshow(picture, cmap="viridis")
    ax.plot(10, 10, "w*")
    ax.set(title=title, xticks=(), yticks=())
    figure.colorbar(shown, ax=ax, shrink=0.8)
figure.tight_layout()

# %%
# Where does the walk go in the long run? To each cell in proportion to its neighbours.

stationary = chain.stationary()
degrees = np.asarray(graph.sum(axis=1))
np.testing.assert_allclose(stationary, degrees / degrees.sum(), rtol=1e-9)

# %%
# Compared with a dense solution of (I - P) h = 1.

P = graph.toarray() / degrees[:, None]
others = np.arange(len(P)) != home
dense = np.linalg.solve(np.eye(len(P) - 1) - P[np.ix_(others, others)], np.ones(len(P) - 1))
np.testing.assert_allclose(mean[others], dense, rtol=1e-8)
