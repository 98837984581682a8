"""Error and certificate of Lanczos's method, step by step."""

import numpy as np
from matplotlib import pyplot as plt
from scipy.linalg import eigh_tridiagonal

STEPS, TIME = 40, 200.0


def draw():
    figure, ax = plt.subplots(figsize=(5.5, 3.2))
    values = np.r_[np.linspace(0, 1, 300) ** 2, 100.0]
    x = np.random.default_rng(0).standard_normal(values.size)
    x /= np.linalg.norm(x)
    exact, v, before, iterates = np.exp(-TIME * values) * x, x, np.zeros_like(x), [x]
    basis, alpha, beta, errors, bounds = [], [], [], [], []
    for _ in range(STEPS):
        basis.append(v)
        w = values * v - (beta[-1] * before if beta else 0)
        alpha.append(v @ w)
        w -= alpha[-1] * v
        beta.append(np.linalg.norm(w))
        v, before = w / beta[-1], v
        theta, S = eigh_tridiagonal(np.array(alpha), np.array(beta[:-1]))
        theta = np.maximum(theta, 1e-300)
        iterates.append((S @ (np.exp(-TIME * theta) * S[0])) @ np.array(basis))
        errors.append(np.linalg.norm(iterates[-1] - exact))
        bounds.append(beta[-1] * abs(S[-1] @ (-np.expm1(-TIME * theta) / theta * S[0])))
    steps = np.arange(1, STEPS + 1)
    ax.semilogy(steps, errors, color="#c8553d", label="error")
    ax.semilogy(steps, bounds, color="#4c8eda", label="certificate")
    change = [np.linalg.norm(a - b) for a, b in zip(iterates[1:], iterates, strict=False)]
    ax.semilogy(steps, change, "--", color="#888888", label="change of the iterate")
    ax.set(xlabel="steps", ylim=(1e-15, 1e3))
    ax.legend()
    figure.tight_layout()
    return figure
