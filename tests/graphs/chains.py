"""Chains of every kind, small enough for dense solutions."""

import numpy as np

from tests.cases import random_forest


def normalised(A):
    return A / A.sum(axis=1, keepdims=True)


def uniform(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).random(shape)


def symmetric(A):
    return A + A.T


def random_tree(n, seed=0):
    parents = random_forest(n, seed=seed) if seed else random_forest(n)
    A = np.zeros((n, n))
    for i, p in enumerate(parents):
        if p >= 0:
            A[i, p], A[p, i] = uniform(2, seed=i) + 0.1
    return A


def blocks_coupled(coupling, count=4, size=6):
    """Blocks of states that exchange next to nothing."""
    n = count * size
    A = uniform(n, n) * np.kron(np.eye(count), np.ones((size, size)))
    A += coupling * uniform(n, n, seed=1)
    np.fill_diagonal(A, 0)
    A /= 2 * A.sum(axis=1).max()
    return A + np.diag(1 - A.sum(axis=1))


N = 24
CYCLE = np.roll(np.eye(N), 1, axis=1)
BIRTH_DEATH = np.diag(uniform(N - 1) + 0.1, 1) + np.diag(uniform(N - 1, seed=1) + 0.1, -1)
IRREDUCIBLE = {
    "random": normalised(uniform(N, N) * (uniform(N, N, seed=1) < 0.2) + CYCLE),
    "dense": normalised(uniform(66, 66)),
    "reversible": normalised(symmetric(uniform(N, N) * (uniform(N, N, seed=1) < 0.1) + CYCLE)),
    "periodic": normalised(CYCLE + np.roll(np.eye(N), 4, axis=1)),
    "birth-death": normalised(BIRTH_DEATH),
    "tree": normalised(random_tree(N)),
    "directed": normalised(CYCLE + 0.1 * np.roll(np.eye(N), 3, axis=1) + 0.3 * np.eye(N)),
    "two": np.array([[0.5, 0.5], [1.0, 0.0]]),
}
PERIODS = {
    "random": 1,
    "dense": 1,
    "reversible": 1,
    "periodic": 3,
    "birth-death": 2,
    "tree": 2,
    "directed": 1,
    "two": 1,
}
REVERSIBLE = {"reversible", "birth-death", "tree", "two"}


def agree(got, want, tolerance=1e-10):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-14)
