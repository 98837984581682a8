"""Trees of every shape, numbered at random, and their distances."""

import numpy as np

_UNIT = 2.0**30


def pruefer(n, rng):
    """A uniformly random labelled tree, decoded from its code, as parents towards the last node."""
    code = rng.integers(0, n, max(0, n - 2)).tolist()
    degree = np.bincount(code, minlength=n) + 1
    parents = np.full(n, -1)
    pointer = leaf = int(np.argmax(degree == 1)) if n > 1 else 0
    for v in [*code, n - 1][: max(0, n - 1)]:
        parents[leaf] = v
        degree[v] -= 1
        if degree[v] == 1 and v < pointer and v != n - 1:
            leaf = v
        else:
            pointer += 1
            while pointer < n - 1 and degree[pointer] != 1:
                pointer += 1
            leaf = pointer
    return parents


def _by_rule(rule):
    return lambda n, rng: np.array([-1, *(int(rule(i, rng)) for i in range(1, n))][:n], dtype=int)


KINDS = {
    "path": _by_rule(lambda i, _: i - 1),
    "star": _by_rule(lambda *_: 0),
    "binary": _by_rule(lambda i, _: (i - 1) // 2),
    "caterpillar": _by_rule(lambda i, _: i - 1 if i % 2 else max(i - 2, 0)),
    "recursive": _by_rule(lambda i, rng: rng.integers(i)),
    "deep": _by_rule(lambda i, rng: i - 1 - rng.integers(min(i, 20))),
    "pruefer": pruefer,
    "forest": _by_rule(lambda i, rng: -1 if i % 13 == 0 else i - 1 - rng.integers(min(i % 13, 4))),
}
LENGTHS = {
    "real": lambda n, rng: rng.random(n) + 0.1,
    "unit": lambda n, _: np.ones(n),
    "whole": lambda n, rng: rng.integers(0, 5, n).astype(float),
    "zeros": lambda n, rng: rng.random(n) * rng.integers(0, 2, n),
}


def tree(kind, n, seed=0):
    """Parents of a tree or forest of that kind, its nodes numbered at random."""
    rng = np.random.default_rng([seed, n])
    parents, names = KINDS[kind](n, rng), rng.permutation(n)
    shuffled = np.full(n, -1)
    shuffled[names] = np.where(parents < 0, -1, names[parents]) if n else parents
    return shuffled


def lengths(kind, n, seed=1):
    """Multiples of 2^-30: sums along paths are exact, whatever their order."""
    return np.round(_UNIT * LENGTHS[kind](n, np.random.default_rng([seed, n]))) / _UNIT


def distances(parents, lengths):
    """All distances, infinite between trees: row by row, each node from its parent, the ancestors of the row first."""
    n = len(parents)
    order, D = np.argsort(_depths(parents), kind="stable"), np.full((n, n), np.inf)
    for i in order:
        D[i, i] = 0.0
        if parents[i] >= 0:  # known nodes see i through its parent
            D[i] = np.minimum(D[i], D[parents[i]] + lengths[i])
            D[i, i] = 0.0
            D[:, i] = D[i]
    return D


def _depths(parents):
    depth = np.zeros(len(parents), int)
    at = np.array(parents)
    while (at >= 0).any():
        depth += at >= 0
        at = np.where(at >= 0, np.array(parents)[at], -1)
    return depth
