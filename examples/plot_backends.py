"""
CPU or GPU: one setting
=======================

Where things run is a setting, not an argument: a script stays the same. On a machine with a usable GPU the setting
"cupy" moves it there; here it says why it cannot.
"""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm


def script() -> np.ndarray:
    """Attention under decay, written once for every backend."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 256, 16))
    return sm.to_numpy(sm.masked_attention(q, k, v, mask=sm.Causal(256, decay=0.95)))


# %%
# The same script on every backend that this machine has. `to_numpy` brings a result back, wherever it lives.

results = {}
for name in ("numpy", "numba", "cupy"):
    try:
        with sm.use_backend(name):
            results[name] = script()
    except sm.BackendError as reason:
        print(str(reason).split(";")[0])
print("ran on", ", ".join(results))

# %%
# They agree to rounding.

spread = {name: np.abs(result - results["numpy"]).max(axis=1) for name, result in results.items() if name != "numpy"}
figure, ax = plt.subplots(figsize=(6, 2.6))
for name, difference in spread.items():
    ax.semilogy(np.maximum(difference, 1e-18), ".", ms=3, label=f"{name} beside numpy")
ax.set(xlabel="row", ylabel="largest difference")
ax.legend(frameon=False)
figure.tight_layout()
for result in results.values():
    np.testing.assert_allclose(result, results["numpy"], atol=1e-12)

# %%
# Compared with the dense computation.

rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 256, 16))
A = sm.Causal(256, decay=0.95).to_dense() * (sm.elu_features(q) @ sm.elu_features(k).T)
np.testing.assert_allclose(results["numpy"], (A @ v) / A.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-12)
