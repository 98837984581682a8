"""Markov chains: hitting times of sparse graphs and trees, and a chain of 2000 states: time of others / ours.

Hitting times of 50 states from all others, to 1e-10, the set-up of the solver included on both sides; the peers get
their matrix I - P_ff, symmetrised, ready made, ours gets the chain (`graph`: the adjacency matrix, all checks and
classes included). `superlu` is scipy.sparse.linalg.splu with minimum degree, its best way on a tree.
`eigenvector` and `solve` are what dense toolkits do, written in plain NumPy: a left
eigenvector, and one dense system. `pydtmc` and `quantecon` are such toolkits, where they are installed: all start from
the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import splu, spsolve
from scipy.spatial import cKDTree

from benchmarks import peers
from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import MarkovChain

_FILLS = "- (fills in)"


def rows(settings: Settings) -> Iterator[Row]:
    tiny = settings.tiny
    yield run(hitting("grid", grid(5 if tiny else 316)), budget=settings.budget)
    yield run(hitting("geometric", geometric(60 if tiny else 100_000, 20)), budget=settings.budget)
    yield run(hitting("power law", preferential(60 if tiny else 100_000, 10), fills=True), budget=settings.budget)
    yield run(tree(100 if tiny else 1_000_000), budget=settings.budget)
    if not tiny:
        yield run(hitting("grid", grid(1000), fills=True), budget=settings.budget)
    yield from toolkit(40 if tiny else 2000, settings)


def hitting(name: str, W: Any, *, fills: bool = False) -> Contest:
    """One right-hand side; the check is the largest residual relative to the right-hand side, row by row."""
    n, rng = W.shape[0], np.random.default_rng(0)
    targets = rng.choice(n, min(50, n // 4), replace=False)
    f = np.setdiff1d(np.arange(n), targets)
    d = np.asarray(W.sum(axis=1)).ravel()
    L = scipy.sparse.csc_array(scipy.sparse.csr_array(scipy.sparse.diags_array(d) - W)[f][:, f])
    chain = MarkovChain.from_graph(W)
    chain.classes()

    def error(h: Any) -> float:
        return float(np.max(np.abs(L @ (h[f] if h.size == n else h) - d[f]) / d[f]))

    return Contest(
        f"hitting times, {name}, {n:,} nodes, {W.nnz // 2:,} edges",
        {
            "ours": lambda: chain.hitting_times(targets),
            "graph": lambda: MarkovChain.from_graph(W).hitting_times(targets),
        },
        {"spsolve": _FILLS if fills else lambda: spsolve(L, d[f]), "pyamg": _multigrid(L, d[f], skip=fills)},
        error,
        1e-6,
    )


def _multigrid(L: Any, b: Any, *, skip: bool) -> Callable[[], Any] | str:
    """Smoothed aggregation with conjugate gradients, to a relative residual of 1e-10."""
    if skip:
        return "- (left out)"
    try:
        import pyamg
    except ModuleNotFoundError:
        return "- (no pyamg)"
    A = scipy.sparse.csr_matrix(L)
    A.indices, A.indptr = A.indices.astype(np.int32), A.indptr.astype(np.int32)
    return lambda: pyamg.smoothed_aggregation_solver(A).solve(b, tol=1e-10, accel="cg")


def tree(n: int) -> Contest:
    W, targets = recursive_tree(n), np.arange(0, n, n // 50)
    chain, own = MarkovChain.from_graph(W), np.setdiff1d(np.arange(n), targets)
    P, d = chain.transition, np.asarray(W.sum(axis=1)).ravel()
    L = scipy.sparse.csc_array(scipy.sparse.csr_array(scipy.sparse.diags_array(d) - W)[own][:, own])
    chain.classes()

    def superlu() -> Any:
        h, symmetric = np.zeros(n), {"SymmetricMode": True}
        h[own] = splu(L, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric).solve(d[own])
        return h

    return Contest(
        f"hitting times, tree, {n:,} nodes",
        {
            "ours": lambda: chain.hitting_times(targets),
            "graph": lambda: MarkovChain.from_graph(W).hitting_times(targets),
        },
        {"superlu": superlu},
        lambda h: float(np.max(np.abs(h - P @ h - 1)[own]) / np.max(h)),
        1e-12,
    )


def toolkit(n: int, settings: Settings) -> Iterator[Row]:
    """A random sparse chain of n states; dense toolkits hold it as an array."""
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((n, n), density=min(0.2, 8 / n), rng=rng) + scipy.sparse.eye_array(n, k=1)
    A = scipy.sparse.csr_array(A + scipy.sparse.csr_array(([1.0], ([n - 1], [0])), shape=(n, n)))
    P = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / A.sum(axis=1)) @ A)
    dense, f = P.toarray(), slice(1, None)
    pi = MarkovChain(P).stationary()

    def eigenvector() -> Any:
        values, vectors = np.linalg.eig(dense.T)
        v = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        return v / v.sum()

    yield run(
        Contest(
            f"stationary distribution, {n} states",
            {"ours": lambda: MarkovChain(P).stationary()},
            {"eigenvector": eigenvector, **toolkits(dense, "stationary")},
            lambda p: float(np.max(np.abs(p @ dense - p)) / pi.max()),
            1e-8,
        ),
        budget=settings.budget,
    )
    exact = MarkovChain(P).hitting_times(0)[f]
    yield run(
        Contest(
            f"hitting times, {n} states",
            {"ours": lambda: MarkovChain(P).hitting_times(0)[f]},
            {
                "solve": lambda: np.linalg.solve(np.eye(n - 1) - dense[f, f], np.ones(n - 1)),
                **toolkits(dense, "hitting"),
            },
            lambda h: relative_error(h, exact),
            1e-8,
        ),
        budget=settings.budget,
    )


def toolkits(P: Any, question: str) -> dict[str, Callable[[], Any]]:
    """Dense toolkits that are installed and answer a question."""
    ways: dict[str, Callable[[], Any]] = {}
    if (pydtmc := peers.module_or_none("pydtmc")) is not None:
        ways["pydtmc"] = {
            "stationary": lambda: pydtmc.MarkovChain(P).steady_states[0],
            "hitting": lambda: pydtmc.MarkovChain(P).hitting_times([0])[1:],
        }[question]
    if question == "stationary" and (quantecon := peers.module_or_none("quantecon")) is not None:
        ways["quantecon"] = lambda: quantecon.MarkovChain(P).stationary_distributions[0]
    return ways


# --- graphs -----------------------------------------------------------------------------------------------------------


def _undirected(n: int, i: Any, j: Any) -> Any:
    W = scipy.sparse.csr_array(scipy.sparse.coo_array((np.ones(len(i)), (i, j)), shape=(n, n)))
    W = scipy.sparse.csr_array(W + W.T)
    W.data[:] = 1
    return W


def grid(side: int) -> Any:
    v = np.arange(side * side).reshape(side, side)
    ends = np.r_[v[:, 1:].ravel(), v[1:].ravel()], np.r_[v[:, :-1].ravel(), v[:-1].ravel()]
    return _undirected(side * side, *ends)


def geometric(n: int, degree: float) -> Any:
    """The largest component of a random geometric graph in the unit square."""
    points = np.random.default_rng(0).random((n, 2))
    pairs = cKDTree(points).query_pairs(np.sqrt(degree / (np.pi * n)), output_type="ndarray")
    W = _undirected(n, pairs[:, 0], pairs[:, 1])
    _, label = scipy.sparse.csgraph.connected_components(W, directed=False)
    largest = np.flatnonzero(label == np.bincount(label).argmax())
    return W[largest][:, largest]


def preferential(n: int, m: int) -> Any:
    """Barabasi and Albert's graph: each node joins m that are there, in proportion to their degrees."""
    rng, ends = np.random.default_rng(0), np.empty(2 * n * m, np.int64)
    ends[: 2 * m] = np.r_[np.full(m, m), np.arange(m)]
    used = 2 * m
    for v in range(m + 1, n):
        ends[used + m : used + 2 * m] = ends[rng.integers(0, used, m)]
        ends[used : used + m] = v
        used += 2 * m
    pairs = ends[:used].reshape(-1, 2, m)
    return _undirected(n, pairs[:, 0].ravel(), pairs[:, 1].ravel())


def recursive_tree(n: int) -> Any:
    i = np.arange(1, n)
    return _undirected(n, i, np.random.default_rng(0).integers(0, i))
