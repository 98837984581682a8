r"""
Heat that walks round walls
===========================

*Fill in measurements on a floor plan: distance as the crow flies leaks through walls, heat does not.*

The heat kernel :math:`e^{-tL}` of a graph says how much of a unit of heat at one node is at another after time
:math:`t`. As a mask it makes nodes attend along the graph. :func:`structmask.diffusion_kernel` multiplies by it with
a certified error and never forms it (:doc:`/theory/diffusion`).
"""

import networkx as nx
import numpy as np
import scipy.linalg
from matplotlib import pyplot as plt

import structmask as sm

# %%
# **A floor plan**: cells of a grid, walls left out, doors left in.

SIDE = 49
plan = np.ones((SIDE, SIDE), dtype=bool)
plan[16, :] = plan[32, :] = plan[:, 24] = False
plan[16, 6:10] = plan[16, 40:43] = plan[32, 20:23] = plan[32, 30:33] = plan[7:10, 24] = plan[38:41, 24] = True
graph = nx.grid_graph((SIDE, SIDE)).subgraph([tuple(cell) for cell in np.argwhere(plan)])
cells = np.array(list(graph))
n = len(cells)

# %%
# **Heat from one cell** at four times. One kernel with a batch of times, one recurrence for all.

times = np.array([10.0, 100.0, 400.0, 2000.0])
kernel = sm.diffusion_kernel(graph, times, tol=1e-10)
source = np.flatnonzero((cells == (4, 30)).all(axis=1))
heat = kernel @ np.eye(1, n, source[0]).T


def picture(values):
    """Values of the cells on the plan, nothing where walls are."""
    image = np.full(plan.shape, np.nan)
    image[cells[:, 0], cells[:, 1]] = values
    return image


figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
for ax, time, u in zip(axes, times, heat[..., 0], strict=True):
    ax.imshow(picture(np.maximum(u, 0) ** 0.33), cmap="magma")
    ax.set(title=f"$t = {time:g}$", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)

# %%
# **Fill in 40 measurements.** Each room has its own temperature. The estimate in a cell is the mean of what was
# measured, weighted by a mask: :math:`(M y)_i / (M 1)_i`, attention whose queries and keys are all alike.

room = 2 * (cells[:, 0] // 16.5).astype(int) + (cells[:, 1] > 24)
truth = np.array([20.0, 15.0, 22.0, 18.0, 12.0, 24.0])[room] + 0.05 * cells[:, 1]
rng = np.random.default_rng(0)
measured = rng.choice(n, 40, replace=False)
unknown = np.ones(n, dtype=bool)
unknown[measured] = False


def fill(mask):
    """Weighted means of the measured values."""
    same = np.ones((n, 1))
    return sm.masked_attention(same, same, truth[:, None], mask=mask, features=None, key_padding_mask=unknown)[:, 0]


walk = sm.diffusion_kernel(graph, 20.0, tol=1e-12)
squares = ((cells[:, None] - cells) ** 2).sum(-1)  # the crow's distances have no walls, and no graph
crow = sm.Dense(np.exp(-squares / (4 * 20.0)))
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained")
for ax, values, name in zip(axes, (truth, fill(crow), fill(walk)), ("truth", "as the crow flies", "heat"), strict=True):
    error = np.sqrt(np.mean((values - truth) ** 2))
    ax.imshow(picture(values), cmap="viridis", vmin=12, vmax=26)
    ax.set(title=name if name == "truth" else f"{name}: error {error:.1f}", xticks=[], yticks=[])
    ax.plot(cells[measured, 1], cells[measured, 0], ".", color="#e07b39", markersize=4)
    ax.spines[:].set_visible(False)

# %%
# **The same by the definition**, with the matrix exponential of scipy on the first two rows of rooms.

part = sm.as_adjacency(graph)[:800, :800]
L = sm.laplacian(part).toarray()
x = rng.standard_normal((800, 3))
fast = sm.diffusion_kernel(part, 100.0, tol=1e-10) @ x
expected = scipy.linalg.expm(-100.0 * L) @ x
assert np.linalg.norm(fast - expected, 2) <= 1e-10 * np.linalg.norm(x, 2)
print(f"largest difference: {np.abs(fast - expected).max():.0e}")
