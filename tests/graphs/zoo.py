"""Graphs to test on: meshes, hubs, chains, pieces, and weights over six decades."""

import networkx as nx
import numpy as np

from structmask import as_adjacency


def weighted(G, seed=0):
    """Weights between 1e-3 and 1e3."""
    rng = np.random.default_rng(seed)
    for _, _, data in G.edges(data=True):
        data["weight"] = 10 ** rng.uniform(-3, 3)
    return G


GRAPHS = {
    "random": nx.gnm_random_graph(40, 120, seed=1),
    "power-law": nx.barabasi_albert_graph(50, 3, seed=2),
    "mesh": nx.grid_graph((7, 6)),
    "geometric": nx.random_geometric_graph(50, 0.25, seed=3),
    "path": nx.path_graph(40),
    "star": nx.star_graph(40),
    "disconnected": nx.disjoint_union(nx.path_graph(9), nx.union(nx.empty_graph(2), nx.complete_graph(range(5, 12)))),
    "weighted": weighted(nx.gnm_random_graph(30, 60, seed=4)),
}
ADJACENCY = {name: as_adjacency(G) for name, G in GRAPHS.items()}
