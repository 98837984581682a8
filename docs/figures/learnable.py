"""Functions of the distance that learnable masks reach, from where they start."""

import math

import numpy as np
from matplotlib import pyplot as plt


def draw():
    s = np.arange(0, 33)
    x = s / s[-1]
    figure, axes = plt.subplots(1, 3, figsize=(7.6, 2.4), sharey=True)
    for a in ((0, 0), (-3, 0), (-6, 3), (2, -8), (0, -4)):
        axes[0].plot(s, np.exp(a[0] * x + a[1] * x**2), linewidth=2.6 if a == (0, 0) else 1.2)
    axes[0].set(title="$\\exp(a_1 x + a_2 x^2)$", xlabel="distance", ylim=(0, 1.25))
    for rho in (1 - 2**-5, 0.5, 0.8, 0.9, 0.99):
        axes[1].plot(s, rho**s, linewidth=2.6 if rho == 1 - 2**-5 else 1.2)
    axes[1].set(title="$\\rho^s$", xlabel="distance")
    cycle = np.cos(2 * np.pi * np.arange(64) / 64)  # eigenvalues of P
    start = [math.exp(-1) / math.factorial(power) for power in range(13)]
    for a in (start, [0.2] * 7, [0, 0, 1], [0.1] * 13):
        row = np.fft.ifft(np.polynomial.polynomial.polyval(cycle, a)).real[:33]
        axes[2].plot(s, row / row.max(), linewidth=2.6 if a is start else 1.2)
    axes[2].set(title="$\\sum_l a_l P^l$ on a cycle", xlabel="distance")
    return figure
