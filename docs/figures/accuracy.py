"""Row by row, the error of single-precision attention by FFT and by dense blocks."""

import numpy as np
import scipy.fft
from matplotlib import pyplot as plt

LENGTH, FEATURES = 2048, 8


def draw():
    rng = np.random.default_rng(0)
    phi_q = rng.random((LENGTH, FEATURES), dtype=np.float32)
    spread = np.exp(np.linspace(-8, 8, LENGTH))[:, None]
    phi_k = (rng.random((LENGTH, FEATURES)) * spread).astype(np.float32)
    operand = np.concatenate([rng.standard_normal((LENGTH, 1)), np.ones((LENGTH, 1))], axis=1).astype(np.float32)
    offset = np.arange(1 - LENGTH, LENGTH)
    table = np.exp(-((offset / 32.0) ** 2)).astype(np.float32)
    mask = table[np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)) + LENGTH - 1]
    scores = phi_q.astype(float) @ phi_k.T.astype(float)
    exact = (mask * scores) @ operand
    dense = (mask * (phi_q @ phi_k.T)) @ operand
    stream = sum(phi_q[:, [r]] * _toeplitz(table, phi_k[:, [r]] * operand) for r in range(FEATURES))
    condition = scores.sum(axis=1) / exact[:, 1]
    figure, ax = plt.subplots(figsize=(5.5, 3.4))
    for label, result, color in (("streaming FFT", stream, "#c8553d"), ("dense blocks", dense, "#4c8eda")):
        error = np.abs(result[:, 0] / result[:, 1] - exact[:, 0] / exact[:, 1])
        ax.loglog(condition, np.maximum(error, 1e-9), ".", markersize=3, color=color, label=label, rasterized=True)
    line = np.array([condition.min(), condition.max()])
    ax.loglog(line, np.finfo(np.float32).eps / 2 * line, "--", color="#808080", label="$u\\,s_i/D_i$")
    ax.set(xlabel="$s_i/D_i$", ylabel="error of the row")
    ax.legend()
    return figure


def _toeplitz(table, columns):
    side = scipy.fft.next_fast_len(len(table), real=True)
    generator = np.roll(np.concatenate([table, np.zeros(side - len(table), np.float32)]), 1 - LENGTH)
    product = scipy.fft.rfft(generator)[:, None] * scipy.fft.rfft(columns, side, axis=0)
    return scipy.fft.irfft(product, side, axis=0)[:LENGTH]
