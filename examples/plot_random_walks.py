"""
Walks on a graph: sampled or exact
==================================

Two nodes are alike if short random walks from them meet the same nodes. Sampled walks make a low-rank mask whose error
falls like the root of their number; for short walks the exact kernel is cheaper than any sample.
"""

import networkx as nx
import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# The kernel of a small social network, exact, and as a mask of attention.

graph = nx.karate_club_graph()
n, length = len(graph), 4
exact = sm.random_walk_kernel(graph, length)
q, k, v = np.random.default_rng(0).standard_normal((3, n, 8))
out = sm.masked_attention(q, k, v, mask=exact)

# %%
# The mean error of sampled kernels against the number of walks from every node.

counts = 2 ** np.arange(2, 11)
dense = exact.to_dense()


def error(walks: int, seed: int) -> float:
    """Error of a sampled kernel off the diagonal, relative to the exact one."""
    sampled = sm.random_walk_kernel(graph, length, walks=walks, rng=seed).to_dense()
    off = ~np.eye(n, dtype=bool)
    return float(np.linalg.norm((sampled - dense)[off]) / np.linalg.norm(dense[off]))


errors = [np.mean([error(int(walks), seed) for seed in range(8)]) for walks in counts]

figure, ax = plt.subplots(figsize=(5, 3.2))
ax.loglog(counts, errors, "o-", label="sampled")
ax.loglog(counts, errors[0] * (counts / counts[0]) ** -0.5, "--", color="0.6", label="walks$^{-1/2}$")
ax.set(xlabel="walks from every node", ylabel="relative error")
ax.legend(frameon=False)
figure.tight_layout()

# %%
# The exact kernel by its definition: visits of walks are powers of the transition matrix, and rows are normalised.

P = nx.to_numpy_array(graph)
P /= P.sum(axis=1, keepdims=True)
F = sum(np.linalg.matrix_power(P, step) for step in range(length))
F /= np.linalg.norm(F, axis=1, keepdims=True)
np.testing.assert_allclose(dense, F @ F.T, atol=1e-13)
A = (F @ F.T) * (sm.elu_features(q) @ sm.elu_features(k).T)
np.testing.assert_allclose(out, (A @ v) / A.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-12)
