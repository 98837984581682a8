"""What circulants do: clustered eigenvalues, and iterations that do not grow."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import Toeplitz, solve
from structmask.linalg.circulant_preconditioner import circulant_inverse

COLORS = {"none": "#8e6bbf", "chan": "#c8553d", "parzen": "#3d9970", "strang": "#4c8eda"}


def draw():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1))
    n = 400
    T = Toeplitz(0.98 ** np.abs(np.arange(1 - n, n)))
    for name, color in COLORS.items():
        P = np.eye(n) if name == "none" else circulant_inverse(T, (name,), hermitian=True)[0](np.eye(n))
        values = np.linalg.eigvals(P @ T.to_dense()).real
        left.semilogy(np.sort(values), color=color, label=name)
    left.set(xlabel="index", ylabel="eigenvalue of $PT$")
    left.legend()
    sizes = 2 ** np.arange(6, 13)
    for name in ("none", "chan", "parzen"):
        right.loglog(sizes, [iterations(n, name) for n in sizes], "o-", color=COLORS[name], markersize=3)
    right.set(xlabel="size $n$", ylabel="iterations")
    figure.tight_layout()
    return figure


def iterations(n, name):
    table, seen = np.zeros(2 * n - 1), []
    table[n - 2 : n + 1] = -1.0, 2.0, -1.0
    b = np.random.default_rng(0).standard_normal(n)
    solve(Toeplitz(table), b, preconditioner=name, callback=lambda *args: seen.append(args))
    return len(seen)
