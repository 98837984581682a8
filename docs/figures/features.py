"""Error of positive random features, independent and orthogonal."""

import numpy as np
from matplotlib import pyplot as plt

DIMENSION, PAIRS, DRAWS = 16, 12, 80


def draw():
    rng = np.random.default_rng(0)
    a, b = 0.5 * rng.standard_normal((2, PAIRS, DIMENSION)) / DIMENSION**0.25
    counts = 2 ** np.arange(4, 11)
    predicted = np.sqrt(np.mean(np.expm1(((a + b) ** 2).sum(axis=1))) / counts)
    figure, ax = plt.subplots(figsize=(5.0, 3.2))
    for label, sample, color in (("independent", _independent, "#c8553d"), ("orthogonal", _orthogonal, "#4c8eda")):
        errors = [_error(a, b, count, sample, rng) for count in counts]
        ax.loglog(counts, errors, "o-", color=color, label=label, base=2)
    ax.loglog(counts, predicted, "--", color="#808080", label="variance formula", base=2)
    ax.set(xlabel="features $m$", ylabel="relative error (r.m.s.)")
    ax.legend()
    return figure


def _independent(count, rng):
    return rng.standard_normal((count, DIMENSION))


def _orthogonal(count, rng):
    factors = [np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION))) for _ in range(0, count, DIMENSION)]
    directions = np.concatenate([(q * np.sign(np.diagonal(r))).T for q, r in factors])
    return directions * np.linalg.norm(rng.standard_normal((count, DIMENSION)), axis=1, keepdims=True)


def _error(a, b, count, sample, rng):
    squares = []
    for _ in range(DRAWS):
        w = sample(count, rng)
        log_terms = (a + b) @ w.T - ((a**2).sum(axis=1) + (b**2).sum(axis=1))[:, None] / 2
        estimate = np.exp(log_terms - (a * b).sum(axis=1)[:, None]).mean(axis=1)
        squares.append((estimate - 1.0) ** 2)
    return np.sqrt(np.mean(squares))
