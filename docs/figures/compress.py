"""Singular values of Hankel matrices, and the error of a fit at every offset."""

import numpy as np
from matplotlib import pyplot as plt

from structmask import Toeplitz


def draw():
    n, size = 4096, 200
    s = np.arange(float(n))
    x = np.unique(np.concatenate([np.geomspace(1, n // 2, size) - 1, np.linspace(0, n // 2 - 1, size)]).astype(int))
    tables = {
        "$1/(1+s)$": 1 / (1 + s),
        "Gaussian": np.exp(-((s / 500) ** 2)),
        "jumps": np.exp(-np.floor(np.log2(1 + s)) / 3),
        "noise": np.random.default_rng(0).standard_normal(n),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9))
    for name, f in tables.items():
        values = np.linalg.svd(f[x[:, None] + x], compute_uv=False)
        left.semilogy(values[:60] / values[0], label=name)
    left.set(title="singular values", xlabel="number", ylim=(1e-14, 3))
    left.legend(fontsize=8)
    f = tables["$1/(1+s)$"]
    mask = Toeplitz(np.concatenate([f[:0:-1], f])).compress(tol=1e-6)
    error = np.abs(mask.table - f)
    mean = (2 * f.sum() - f[0]) / (2 * n - 1)
    far = s >= mask.width
    right.loglog(s[far], error[far], linewidth=0.8)
    right.loglog(s[1:], 0.5e-6 * (f + mean)[1:], color="#808080", linestyle="--")
    right.set(title=f"error at every offset, {mask.rank} states", xlabel="$s$", ylim=(1e-13, 1e-5))
    return figure
