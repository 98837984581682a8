"""Residuals of conjugate gradients on a grid, with every preconditioner."""

import numpy as np
import scipy.sparse
from matplotlib import pyplot as plt

from structmask import MarkovChain
from structmask.backends._numba.conjugate_gradients import conjugate_gradients

NAMES = {"jacobi": "diagonal", "aggregates": "diagonal and aggregates", "cholesky": "random elimination"}


def draw():
    side = 100
    path = scipy.sparse.diags_array([np.ones(side - 1), np.ones(side - 1)], offsets=[-1, 1])
    one = scipy.sparse.eye_array(side)
    W = scipy.sparse.csr_array(scipy.sparse.kron(path, one) + scipy.sparse.kron(one, path))
    laplacian = MarkovChain.from_graph(W)._passage(0)._certain_system.laplacian
    b = laplacian.diagonal
    network = laplacian.C.indptr, laplacian.C.indices, laplacian.C.data, b
    figure, ax = plt.subplots(figsize=(4.6, 3.2))
    for method, name in NAMES.items():
        parts, sizes, steps = laplacian.preconditioner(method), [], range(0, 340 if method == "jacobi" else 140, 4)
        for count in steps:
            _, size = conjugate_gradients(network, parts, b, np.zeros_like(b), 1 / b, 1e-10, count, count, np.inf)
            sizes.append(size)
        ax.semilogy(steps, sizes, label=name)
    ax.axhline(1e-10, color="#808080", linewidth=0.8, linestyle=":")
    ax.set(xlabel="steps", ylabel="largest residual", ylim=(1e-11, None))
    ax.legend()
    return figure
