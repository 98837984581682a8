"""
Sequences: what is far fades
============================

A causal mask with decay is a linear recurrence, so that attention under it takes one pass over the sequence. Other
smooth masks are recurrences as well, up to an error that is measured.
"""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# A random walk is smoothed by attention to what came before, forgetting at three rates. Heads are a batch dimension of
# the mask.

n, rates = 2000, np.array([0.5, 0.05, 0.005])
rng = np.random.default_rng(0)
signal = np.cumsum(rng.standard_normal(n))[:, None]
decay = np.exp(-rates)[:, None] * np.ones(n)
heads = sm.Causal(n, decay=decay)
q = np.ones((n, 1))
smooth = sm.masked_attention(q, q, signal, mask=heads, features=None)
print(smooth.shape)

figure, ax = plt.subplots(figsize=(7, 3))
ax.plot(signal, color="0.7", lw=0.8, label="signal")
for rate, line in zip(rates, smooth[..., 0], strict=True):
    ax.plot(line, lw=1.2, label=f"rate {rate:g}")
ax.set(xlabel="position")
ax.legend(frameon=False)
figure.tight_layout()

# %%
# A table of relative positions, smooth away from the diagonal, is compressed to a small state space. The error is
# measured at every offset, and the method says no where there is no such recurrence.

offsets = np.arange(1 - n, n)
table = sm.Toeplitz(1 / (1 + np.abs(offsets) / 20))
small = table.compress(tol=1e-6)
print(small)

# %%
# It multiplies like the table, within the tolerance.

X = rng.standard_normal((n, 4))
Y, exact = small @ X, table.to_dense() @ X
print("error", f"{np.abs(Y - exact).max() / np.abs(exact).max():.1e}")
np.testing.assert_allclose(Y, exact, atol=1e-5 * np.abs(exact).max())
