"""
Heat on a graph, at all times at once
=====================================

The kernel exp(-t L) of a graph multiplies a block of columns by a Chebyshev series whose length follows from the
tolerance. Many times share one recurrence.
"""

import networkx as nx
import numpy as np
import scipy.linalg
from matplotlib import pyplot as plt

import structmask as sm

# %%
# Four communities, joined by a few edges; heat starts in one node of the first.

graph = nx.random_partition_graph([40, 40, 40, 40], 0.25, 0.005, seed=3)
n = len(graph)
start = np.zeros(n)
start[0] = 1.0
times = np.array([0.1, 1.0, 10.0, 1000.0])
heat = sm.heat_equation(graph, start, times, tol=1e-10)

place = nx.spring_layout(graph, seed=5)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for ax, time, u in zip(axes, times, heat, strict=True):
    nx.draw_networkx_edges(graph, place, ax=ax, alpha=0.1)
    nx.draw_networkx_nodes(graph, place, ax=ax, node_size=12, node_color=np.cbrt(np.maximum(u, 0)), cmap="magma")
    ax.set_title(f"t = {time:g}")
    ax.set_axis_off()
figure.tight_layout()

# %%
# The kernel is a matrix like any other: here as the mask of attention among the nodes. Its error is bounded.

kernel = sm.diffusion_kernel(graph, 1.0, tol=1e-10)
q, k, v = np.random.default_rng(0).standard_normal((3, n, 8))
out = sm.masked_attention(q, k, v, mask=kernel)
print(kernel, "error at most", f"{kernel.error_bound:.0e}")

# %%
# Compared with the matrix exponential, and with attention by definition.

L = sm.laplacian(graph).toarray()
dense = scipy.linalg.expm(-L)
np.testing.assert_allclose(kernel.to_dense(), dense, atol=1e-9)
np.testing.assert_allclose(heat[1], dense @ start, atol=1e-9)
A = dense * (sm.elu_features(q) @ sm.elu_features(k).T)
np.testing.assert_allclose(out, (A @ v) / A.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-8)
