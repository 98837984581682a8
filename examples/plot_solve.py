"""
Solving with a Toeplitz matrix
==============================

A covariance that depends on distance alone is a Toeplitz matrix. Conjugate gradients with a circulant beside it take a
few steps, whatever its size.
"""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# Noisy observations of a smooth process; the best linear estimate needs the inverse of the covariance.

n = 4000
rng = np.random.default_rng(1)
time = np.arange(n)
signal = np.sin(time / 150) + 0.5 * np.sin(time / 37)
observed = signal + 0.5 * rng.standard_normal(n)

kernel = sm.Toeplitz(np.exp(-((np.arange(1 - n, n) / 40) ** 2)))
covariance = kernel + 0.25 * sm.Toeplitz.from_column_row(np.eye(1, n)[0])

# %%
# Relative residuals while it iterates, with and without the circulant.

residuals: dict[str, list[float]] = {"none": [], "strang": []}


def solved(name: str) -> np.ndarray:
    """The solution with a preconditioner, its residuals kept."""
    keep = residuals[name].append
    return sm.solve(covariance, observed, tol=1e-10, preconditioner=name, callback=lambda _, residual: keep(residual))


solved("none")
weights = solved("strang")
estimate = kernel @ weights

figure, axes = plt.subplots(1, 2, figsize=(8, 3))
for name, history in residuals.items():
    axes[0].semilogy(history, label=f"preconditioner {name}")
axes[0].set(xlabel="iteration", ylabel="relative residual")
axes[0].legend(frameon=False)
axes[1].plot(observed[:1200], ".", ms=1, color="0.7")
axes[1].plot(estimate[:1200], lw=1.2, label="estimate")
axes[1].plot(signal[:1200], "--", lw=0.8, label="signal")
axes[1].legend(frameon=False)
figure.tight_layout()

# %%
# The residual of the whole system, and a smaller one beside a dense solution.

print("residual", f"{np.linalg.norm(covariance @ weights - observed) / np.linalg.norm(observed):.0e}")
m = 600
small = sm.Toeplitz(covariance.offsets[n - m : n + m - 1])
x = sm.solve(small, observed[:m], tol=1e-12)
np.testing.assert_allclose(x, np.linalg.solve(small.to_dense(), observed[:m]), rtol=1e-8, atol=1e-10)
