"""Random-walk kernels on a graph of Cora's size (2708 nodes, 5429 edges), 100 walks of 4 nodes: time of others / ours.

All ways end in the product of the normalised kernel with 8 columns, set-up included. `published` and `lists` sample
walks in Python loops: the first has the structure of the published GKAT walker (networkx, alias tables, a coin by
NumPy's choice a step), the second is as lean as pure Python gets: plain lists of neighbours. `powers` forms the exact
features by scipy.sparse. The last rows have 10^6 nodes, a ring with chords: the exact kernel, and a sampled one of 8
walks a node.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import as_adjacency, graph_random_features, random_walk_kernel
from structmask.graphs import walk_series

LENGTH = 4


def rows(settings: Settings) -> Iterator[Row]:
    n, edges, walks, many = (60, 120, 10, 500) if settings.tiny else (2708, 5429, 100, 1_000_000)
    W = citations(n, edges)
    X = np.random.default_rng(0).standard_normal((n, 8)) + 1
    for contest in (sampled(W, X, walks), exact(W, X, walks), features(W, X, walks)):
        yield run(contest, budget=settings.budget)
    A = ring(many)
    X = np.random.default_rng(1).standard_normal((many, 2)) + 1
    for contest in (large(A, X, None), large(A, X, 8)):
        yield run(contest, budget=settings.budget)


def citations(nodes: int, edges: int) -> scipy.sparse.csr_array:
    """A graph that grew by citing popular nodes; parallel edges count once."""
    rng = np.random.default_rng(0)
    ends = np.stack([rng.integers(nodes, size=edges), (nodes * rng.random(edges) ** 2).astype(int)])
    W = as_adjacency(nodes=nodes, edges=np.concatenate([ends, ends[::-1]], axis=1))
    W.data[:] = 1.0
    return W


def ring(nodes: int) -> scipy.sparse.csr_array:
    """Every node beside two, and two more at a distance."""
    i = np.arange(nodes)
    ends = np.concatenate([np.stack([i, (i + s) % nodes]) for s in (1, nodes // 7)], axis=1)
    return as_adjacency(nodes=nodes, edges=np.concatenate([ends, ends[::-1]], axis=1))


def sampled(W: Any, X: np.ndarray, walks: int) -> Contest:
    import networkx as nx

    G, target = nx.from_scipy_sparse_array(W), exact_product(W, X)
    return Contest(
        f"sampled kernel, n={W.shape[0]}",
        {
            "ours": lambda: random_walk_kernel(W, LENGTH, walks=walks, rng=0) @ X,
            "ours, repelling": lambda: random_walk_kernel(W, LENGTH, walks=walks, repelling=True, rng=0) @ X,
        },
        {
            "published": lambda: multiplied(published_features(G, walks), X),
            "lists": lambda: multiplied(list_features(W, walks), X),
        },
        lambda Y: relative_error(Y, target),
        0.5 if walks < 100 else 0.1,
    )


def exact(W: Any, X: np.ndarray, walks: int) -> Contest:
    import networkx as nx

    G, target = nx.from_scipy_sparse_array(W), exact_product(W, X)
    return Contest(
        f"exact kernel, n={W.shape[0]}",
        {"ours": lambda: random_walk_kernel(W, LENGTH) @ X},
        {
            "published": lambda: multiplied(published_features(G, walks), X),
            "lists": lambda: multiplied(list_features(W, walks), X),
            "powers": lambda: multiplied(powers(W), X),
        },
        lambda Y: relative_error(Y, target),
        1e-12,
        unchecked=("published", "lists"),
    )


def features(W: Any, X: np.ndarray, walks: int) -> Contest:
    d = np.asarray(W.sum(axis=1))
    root = np.divide(1, np.sqrt(d), out=np.zeros_like(d), where=d > 0)
    A = scipy.sparse.csr_array(scipy.sparse.diags_array(root) @ W @ scipy.sparse.diags_array(root))
    series = walk_series.heat(1.0)
    target = sum(
        a * power for a, power in zip(series.coefficients, applied(A, X, len(series.coefficients)), strict=True)
    )
    return Contest(
        f"graph random features of the heat kernel, n={W.shape[0]}",
        {"ours": lambda: graph_random_features(A, series, walks=walks, stop=0.25, rng=0) @ X},
        {},
        lambda Y: relative_error(Y, target),
        0.5,
    )


def large(A: Any, X: np.ndarray, walks: int | None) -> Contest:
    name = "exact kernel" if walks is None else f"sampled kernel, {walks} walks"
    target = ring_product(A, X) if walks is None else None

    def error(Y: np.ndarray) -> float:
        return float(not np.isfinite(Y).all()) if target is None else relative_error(Y, target)

    def ours() -> Any:
        return random_walk_kernel(A, LENGTH, walks=walks, rng=0) @ X

    return Contest(f"{name}, n={A.shape[0]}", {"ours": ours}, {}, error, 1e-12)


# --- the same in other ways -------------------------------------------------------------------------------------------


def published_features(G: Any, walks: int) -> scipy.sparse.csr_array:
    """Counts of visits with the structure of the published GKAT walker (its own code, none of it is here).

    A networkx graph; node2vec's alias tables, one a node for first steps, one an edge for later ones, of NumPy numbers;
    a coin by NumPy's choice before each step, whatever the probability to stop; counts in a dense matrix.
    """
    rng, n = np.random.RandomState(0), G.number_of_nodes()
    nodes = {v: alias_setup([1 / len(G[v])] * len(G[v])) for v in G if len(G[v])}
    edges = {(u, v): alias_setup([1 / len(G[v])] * len(G[v])) for a in G.edges() for u, v in (a, a[::-1])}
    F, paths = np.zeros((n, n)), []
    for _ in range(walks):
        paths += [published_walk(G, nodes, edges, v, rng, F) for v in rng.permutation(n)]
    return scipy.sparse.csr_array(F / walks)


def published_walk(G: Any, nodes: Any, edges: Any, start: int, rng: np.random.RandomState, F: np.ndarray) -> list[int]:
    walk = [start]
    F[start, start] += 1
    while len(walk) < LENGTH:
        near = list(G.neighbors(walk[-1]))
        if not near or not rng.choice([0, 1], p=[0.0, 1.0]):
            break
        table = nodes[walk[-1]] if len(walk) == 1 else edges[walk[-2], walk[-1]]
        walk.append(near[alias_draw(*table, rng)])
        F[start, walk[-1]] += 1
    return walk


def alias_setup(shares: list[float]) -> tuple[np.ndarray, np.ndarray]:
    q, alias = np.array(shares) * len(shares), np.zeros(len(shares), int)
    poor, rich = [i for i, x in enumerate(q) if x < 1], [i for i, x in enumerate(q) if x >= 1]
    while poor and rich:
        e, donor = poor.pop(), rich.pop()
        alias[e] = donor
        q[donor] += q[e] - 1
        (poor if q[donor] < 1 else rich).append(donor)
    return alias, q


def alias_draw(alias: np.ndarray, q: np.ndarray, rng: np.random.RandomState) -> int:
    slot = int(np.floor(rng.rand() * len(q)))
    return slot if rng.rand() < q[slot] else alias[slot]


def list_features(W: Any, walks: int) -> scipy.sparse.csr_array:
    """The same with no more than lists and the standard library."""
    draw, n = random.Random(0).random, W.shape[0]  # noqa: S311  walks are no secrets
    neighbours = [W.indices[a:b].tolist() for a, b in zip(W.indptr[:-1], W.indptr[1:], strict=True)]
    rows, columns = [], []
    for v in range(n):
        for _ in range(walks):
            u = v
            for step in range(LENGTH):
                rows.append(v)
                columns.append(u)
                if step + 1 == LENGTH or not neighbours[u]:
                    break
                near = neighbours[u]
                u = near[int(draw() * len(near))]
    return scipy.sparse.csr_array((np.full(len(rows), 1 / walks), (rows, columns)), shape=W.shape)


def powers(W: Any) -> scipy.sparse.csr_array:
    """I + P + P^2 + P^3."""
    d = np.asarray(W.sum(axis=1))
    P = scipy.sparse.csr_array(scipy.sparse.diags_array(np.divide(1, d, out=np.zeros_like(d), where=d > 0)) @ W)
    power = F = scipy.sparse.eye_array(W.shape[0], format="csr")
    for _ in range(LENGTH - 1):
        power = power @ P
        F = F + power
    return F


def multiplied(F: Any, X: np.ndarray) -> np.ndarray:
    """The normalised kernel of features times X."""
    norms = np.sqrt(np.asarray(F.multiply(F).sum(axis=1)))[:, None]
    return (F @ (F.T @ (X / norms))) / norms


def exact_product(W: Any, X: np.ndarray) -> np.ndarray:
    """By dense matrices."""
    F = powers(W).toarray()
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    return F @ (F.T @ X)


def ring_product(A: Any, X: np.ndarray) -> np.ndarray:
    """By powers, a block of rows of which gives the norms: on the ring all rows are alike."""
    degree = A[[0]].sum()
    row = np.zeros(A.shape[0])
    row[0] = 1.0
    F_row = sum(applied(A.T / degree, row[:, None], LENGTH))[:, 0]
    Y = sum(applied(A.T / degree, X, LENGTH))
    return sum(applied(A / degree, Y, LENGTH)) / np.sum(F_row**2)


def applied(A: Any, X: np.ndarray, terms: int) -> Iterator[np.ndarray]:
    """A^l X for l = 0, 1, ..."""
    for _ in range(terms):
        yield X
        X = A @ X
