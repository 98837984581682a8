"""
Attention over a syntax tree
============================

Nodes of a tree attend to each other by their distance along it. exp(-rate d) takes two sweeps; any other function of
the distance is near-linear, too.
"""

import ast
import inspect

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# The syntax tree of a function of Python's standard library: every node knows its parent.

source = inspect.getsource(inspect.cleandoc)
nodes, parents = [], []
stack = [(ast.parse(source), -1)]
while stack:
    node, parent = stack.pop()
    stack.extend((child, len(nodes)) for child in ast.iter_child_nodes(node))
    nodes.append(type(node).__name__)
    parents.append(parent)
forest = sm.as_forest(parents=parents)
print(len(nodes), "nodes")

# %%
# Two masks: decay, and a bump at distance four (siblings' children, say).

decay = sm.tree_decay(forest, 0.5)
bump = sm.tree_mask(forest, lambda d: np.exp(-((d - 4) ** 2)))

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for ax, (title, mask) in zip(axes, {"exp(-d / 2)": decay, "exp(-(d - 4)^2)": bump}.items(), strict=True):
    ax.imshow(mask.to_dense(), cmap="magma")
    ax.set(title=title, xticks=(), yticks=())
figure.tight_layout()

# %%
# What is near a node? Attention with equal queries and keys is an average over the neighbourhood; here of kinds of
# nodes, around the deepest name.

kinds = sorted(set(nodes))
one_hot = (np.array(nodes)[:, None] == kinds).astype(float)
alike = np.ones((len(nodes), 1))
share = sm.masked_attention(alike, alike, one_hot, mask=decay, features=None)
name = max(i for i, kind in enumerate(nodes) if kind == "Name")
for kind in np.argsort(share[name])[::-1][:4]:
    print(f"{kinds[kind]:>12} {share[name, kind]:.2f}")

# %%
# All distances, written out by walking up from every node.

above = [[i] for i in range(len(parents))]
for i, parent in enumerate(parents):
    above[i] += above[parent] if parent >= 0 else []


def distance(i: int, j: int) -> int:
    """Steps from i to j."""
    common = len(set(above[i]) & set(above[j]))
    return len(above[i]) + len(above[j]) - 2 * common


D = np.array([[distance(i, j) for j in range(len(nodes))] for i in range(len(nodes))])
np.testing.assert_allclose(decay.to_dense(), np.exp(-0.5 * D), rtol=1e-12)
np.testing.assert_allclose(bump.to_dense(), np.exp(-((D - 4.0) ** 2)), atol=1e-10)
