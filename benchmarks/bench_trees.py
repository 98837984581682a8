"""Masks of trees, float64: time of others / ours.

`levels` is decay in level-by-level numpy, `copy` is X.copy(), the floor: its ratio is below 1, and one over it is how
many copies a product costs. For general f the peer is a compiled loop over all pairs, one traversal of the tree and one
row of f a node, parallel over rows. `FTFI` is the algorithm of "Fast Tree-Field Integrators" rewritten: Python over the
parts of the tree, which are made before. `FTFI code` is what was published, where it can be imported.
`with set-up` counts the forest, the merge plan and the plan of f, made anew, over a product alone. The last rows give
the time of a product at the larger size over that at the smaller: `growth`, beside n log^2 n.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.contest import Contest, relative_error, run
from benchmarks.integrators import TreeFieldIntegrator, published
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import as_forest, tree_decay, tree_mask
from structmask.graphs.tree import root_sums

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp(-d^2)": lambda d: np.exp(-d * d),
    "1/(1+d)": lambda d: 1 / (1 + d),
    "cos d": np.cos,
    "d <= 3": lambda d: d <= 3,
}


def rows(settings: Settings) -> Iterator[Row]:
    for n in (50,) if settings.tiny else (100_000, 1_000_000):
        for kind in ("recursive", "path"):
            for k in (3,) if settings.tiny else (16, 64):
                yield run(decay(kind, n, k), budget=settings.budget)
    for kind in KINDS:
        for name in FUNCTIONS:
            yield run(general(kind, 60 if settings.tiny else 10_000, name), budget=settings.budget)
    for kind in KINDS:
        yield run(table(kind, 60 if settings.tiny else 10_000), budget=settings.budget)
    small, large = (40, 400) if settings.tiny else (10_000, 1_000_000)
    for kind in KINDS:
        for name in ("exp(-d^2)", "1/(1+d)"):
            yield run(growth(kind, small, large, name), budget=settings.budget)


# --- trees ------------------------------------------------------------------------------------------------------------


def path(n: int, _: np.random.Generator) -> np.ndarray:
    return np.arange(n) - 1


def recursive(n: int, rng: np.random.Generator) -> np.ndarray:
    """Each node hangs on an earlier one; numbered at random, so that nothing is in order by chance."""
    above = np.concatenate([[-1], (rng.random(n - 1) * np.arange(1, n)).astype(np.int64)])
    names, parents = rng.permutation(n), np.full(n, -1)
    parents[names[1:]] = names[above[1:]]
    return parents


def deep(n: int, rng: np.random.Generator) -> np.ndarray:
    """Each node hangs on one of the twenty before it."""
    i = np.arange(n)
    return i - 1 - (rng.random(n) * np.minimum(i, 20)).astype(np.int64)


KINDS = {"path": path, "recursive": recursive, "deep": deep}


def tree(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return KINDS[kind](n, rng), rng.random(n) + 0.1


# --- decay ------------------------------------------------------------------------------------------------------------


def level_bounds(forest: Any) -> np.ndarray:
    """Positions b[d] ... b[d + 1] - 1 have d edges above them."""
    edges = np.ones(forest.size)
    edges[: forest.roots] = 0
    depths = root_sums(forest.up, edges)[0].astype(np.int64)
    return np.searchsorted(depths, np.arange(depths[-1] + 2))


def decay(kind: str, n: int, k: int) -> Contest:
    parents, lengths = tree(kind, n)
    forest = as_forest(parents=parents, lengths=lengths)
    mask, X = tree_decay(forest, 0.3), np.random.default_rng(k).standard_normal((n, k))
    shallow = level_bounds(forest).size < 1000

    def levels() -> np.ndarray:
        return by_levels(forest, np.exp(-0.3 * forest.lengths), X)

    exact = levels() if shallow else line(forest, X)
    return Contest(
        f"decay, {kind}, n={n} k={k}",
        {"ours": lambda: mask @ X},
        {"levels": levels if shallow else "- (a level a node)", "copy": X.copy},
        lambda Y: relative_error(Y, exact),
        1e-12,
        unchecked=("copy",),
    )


def by_levels(forest: Any, factors: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Two sweeps in numpy, a level at a time."""
    order, up, bounds = forest.order, forest.up, level_bounds(forest)
    e, S = factors[order][:, None], X[order]
    stretches = list(itertools.pairwise(bounds[1:]))
    for a, b in reversed(stretches):
        parents, first = np.unique(up[a:b], return_index=True)
        S[parents] += np.add.reduceat(e[a:b] * S[a:b], first)
    for a, b in stretches:
        S[a:b] = e[a:b] * S[up[a:b]] + (1 - e[a:b] ** 2) * S[a:b]
    return S[forest.position]


def line(forest: Any, X: np.ndarray) -> np.ndarray:
    """On a path: two recurrences, to the right and to the left."""
    from structmask import Causal

    a = np.exp(-0.3 * forest.lengths)
    right = Causal(forest.size, decay=a)
    return right @ X + right.T @ X - X


# --- any function of the distance -------------------------------------------------------------------------------------


def all_pairs() -> tuple[Any, Any]:
    """Compiled loops: distances from some nodes, a traversal each; a product with the values for a block of rows."""
    from numba import njit, prange

    @njit(parallel=True)
    def distances(up, lengths, first, last):
        out = np.full((last - first, up.size), np.inf)
        for r in prange(last - first):
            d, v = out[r], first + r
            d[v] = 0.0
            while up[v] != v:
                d[up[v]] = d[v] + lengths[v]
                v = up[v]
            for v in range(up.size):
                if d[v] == np.inf and up[v] != v:
                    d[v] = d[up[v]] + lengths[v]
        return out

    @njit(parallel=True, fastmath=True)
    def product(values, X):
        Y = np.zeros((values.shape[0], X.shape[1]))
        for r in prange(values.shape[0]):
            for j in range(X.shape[0]):
                for c in range(X.shape[1]):
                    Y[r, c] += values[r, j] * X[j, c]
        return Y

    return distances, product


LOOPS: list[tuple[Any, Any]] = []


def by_pairs(forest: Any, f: Callable[[Any], Any], X: np.ndarray, chunk: int = 256) -> np.ndarray:
    if not LOOPS:
        LOOPS.append(all_pairs())
    distances, product = LOOPS[0]
    ordered, lengths, n = X[forest.order], forest.lengths[forest.order], forest.size
    parts = [
        product(f(distances(forest.up, lengths, a, min(a + chunk, n))).astype(float), ordered)
        for a in range(0, n, chunk)
    ]
    return np.concatenate(parts)[forest.position]


def rivals(tree: Any, f: Callable[[Any], Any], X: np.ndarray, one: Callable[[float], Any]) -> Any:
    """All pairs, and fast tree-field integrators of both kinds; f of an array, and of one number."""
    forest, parts = as_forest(parents=tree[0], lengths=tree[1]), TreeFieldIntegrator(*tree)
    return {
        "all pairs": lambda: by_pairs(forest, f, X),
        "FTFI": lambda: parts(f, X),
        "FTFI code": published(*tree, one, X),
    }


def general(kind: str, n: int, name: str, k: int = 16) -> Contest:
    (parents, lengths), f = tree(kind, n), FUNCTIONS[name]
    forest = as_forest(parents=parents, lengths=lengths)
    mask, X = tree_mask(forest, f), np.random.default_rng(k).standard_normal((n, k))
    exact = by_pairs(forest, f, X)

    def with_setup() -> Any:
        return tree_mask(as_forest(parents=parents, lengths=lengths), f) @ X

    return Contest(
        f"{name}, {kind}, n={n} k={k}",
        {"ours": lambda: mask @ X, "with set-up": with_setup},
        rivals((parents, lengths), f, X, f),
        lambda Y: relative_error(Y, exact),
        1e-9,
        unchecked=("FTFI code",),
    )


def table(kind: str, n: int, k: int = 16) -> Contest:
    rng = np.random.default_rng(n)
    parents, lengths = KINDS[kind](n, rng), rng.integers(1, 6, n)
    forest = as_forest(parents=parents, lengths=lengths)
    values = rng.standard_normal(int(forest.diameter) + 1)
    mask, X = tree_mask(forest, values), rng.standard_normal((n, k))

    def f(d: Any) -> Any:
        return values[d.astype(np.int64)]

    def with_setup() -> Any:
        return tree_mask(as_forest(parents=parents, lengths=lengths), values) @ X

    exact = by_pairs(forest, f, X)
    return Contest(
        f"random table, {kind}, n={n} k={k}",
        {"ours": lambda: mask @ X, "with set-up": with_setup},
        rivals((parents, lengths), f, X, lambda d: values[int(d)]),
        lambda Y: relative_error(Y, exact),
        1e-12,
        unchecked=("FTFI code",),
    )


def growth(kind: str, small: int, large: int, name: str, k: int = 16) -> Contest:
    f = FUNCTIONS[name]
    masks = [
        tree_mask(as_forest(parents=parents, lengths=lengths), f)
        for parents, lengths in (tree(kind, n) for n in (small, large))
    ]
    X, Z = (np.random.default_rng(n).standard_normal((n, k)) for n in (small, large))
    exact = by_pairs(masks[0].forest, f, X)
    bound = large * np.log2(large) ** 2 / (small * np.log2(small) ** 2)
    return Contest(
        f"{name}, {kind}, k={k}, n from {small} to {large}",
        {"ours": lambda: masks[0] @ X},
        {"growth": lambda: masks[1] @ Z},
        lambda Y: relative_error(Y, exact),
        1e-9,
        unchecked=("growth",),
        notes={"n log^2 n": f"{bound:.0f}"},
    )
