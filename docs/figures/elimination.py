"""Digits of hitting times against the coupling of blocks."""

from fractions import Fraction

import numpy as np
from matplotlib import pyplot as plt

from structmask import MarkovChain


def exact(P):
    """Hitting times of state 0 in exact arithmetic, the off-diagonal entries being the data."""
    n = len(P)
    A = [[Fraction(float(x)) for x in row] for row in P]
    for i in range(n):
        A[i][i] = -sum(A[i][:i] + A[i][i + 1 :])
    A, b = [[-x for x in row[1:]] for row in A[1:]], [Fraction(1)] * (n - 1)
    for k in range(n - 1):
        for i in range(k + 1, n - 1):
            share = A[i][k] / A[k][k]
            A[i] = [x - share * y for x, y in zip(A[i], A[k], strict=True)]
            b[i] -= share * b[k]
    x = [Fraction(0)] * (n - 1)
    for k in range(n - 2, -1, -1):
        x[k] = (b[k] - sum(A[k][j] * x[j] for j in range(k + 1, n - 1))) / A[k][k]
    return np.array([float(value) for value in x])


def draw():
    rng, couplings = np.random.default_rng(0), 10.0 ** -np.arange(1, 14)
    errors = []
    blocks = rng.random((24, 24)) * np.kron(np.eye(4), np.ones((6, 6)))
    between = rng.random((24, 24))
    for coupling in couplings:
        A = blocks + coupling * between
        np.fill_diagonal(A, 0)
        A /= 2 * A.sum(axis=1).max()
        chain = MarkovChain(A + np.diag(1 - A.sum(axis=1)))
        P = chain.transition.toarray()
        want, lu = exact(P), np.linalg.solve(np.eye(23) - P[1:, 1:], np.ones(23))
        errors.append([np.abs(h / want - 1).max() for h in (chain.hitting_times(0)[1:], lu)])
    figure, ax = plt.subplots(figsize=(4.6, 3.2))
    ax.loglog(couplings, np.maximum(errors, 1e-17), "o-", markersize=4, label=["elimination", "LU of $I - P$"])
    ax.set(xlabel="coupling", ylabel="largest relative error", ylim=(1e-17, 1))
    ax.invert_xaxis()
    ax.legend()
    return figure
