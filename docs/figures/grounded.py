"""Residuals of conjugate gradients on a grid, with both preconditioners."""

import numpy as np
import scipy.sparse
from matplotlib import pyplot as plt

from structmask import MarkovChain
from structmask.backends._numba.conjugate_gradients import conjugate_gradients


def draw():
    side = 100
    path = scipy.sparse.diags_array([np.ones(side - 1), np.ones(side - 1)], offsets=[-1, 1])
    one = scipy.sparse.eye_array(side)
    W = scipy.sparse.csr_array(scipy.sparse.kron(path, one) + scipy.sparse.kron(one, path))
    laplacian = MarkovChain.from_graph(W)._passage(0)._certain_system[1]._laplacian
    b = laplacian.diagonal
    order, matrix, factor = laplacian._cholesky
    ways = {
        "diagonal": (
            b,
            (laplacian._matrix.indptr, laplacian._matrix.indices, laplacian._matrix.data),
            laplacian._jacobi,
        ),
        "random elimination": (b[order], matrix, factor),
    }
    x = np.zeros_like(b)
    conjugate_gradients(ways["diagonal"][1], laplacian._jacobi, b, x, 1 / b, 1e-300, 40, np.inf)
    figure, ax = plt.subplots(figsize=(4.6, 3.2))
    for name, start in (("diagonal", np.zeros_like(b)), ("random elimination", x[order])):
        b_, S, P = ways[name]
        steps = np.arange(0, 400 if name == "diagonal" else 75, 5)
        sizes = [conjugate_gradients(S, P, b_, start.copy(), 1 / b_, 1e-300, int(k), np.inf)[1] for k in steps]
        ax.semilogy(steps + (0 if name == "diagonal" else 40), sizes, label=name)
    ax.axhline(1e-10, color="#808080", linewidth=0.8, linestyle=":")
    ax.set(xlabel="steps", ylabel="largest residual")
    ax.legend()
    return figure
