r"""
Attention over an image
=======================

*A filter that blurs within edges and not across them, as masked attention: radius and size do not change its cost per
pixel.*

Every pixel of an image looks at every other. How much it listens has two parts: how near the other is, and how alike.
The first is the mask, a function of the offset on each axis, hence a two-level Toeplitz matrix
(:doc:`/theory/toeplitz`). The second is a product of features. Together they are masked attention,

.. math::

   y_i = \frac{\sum_j A_{ij} a_j}{\sum_j A_{ij}},
   \qquad A_{ij} = M_{ij} \langle \phi(a_i), \phi(a_j) \rangle,

and with a Gaussian for either part it is what image processing calls the bilateral filter.
"""

import numpy as np
from matplotlib import cbook
from matplotlib import pyplot as plt
from PIL import Image

import structmask as sm

# %%
# The photograph that matplotlib brings along, in grey, with noise.

with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
    clean = np.asarray(file.convert("L").resize((128, 150)), dtype=np.float64) / 255
height, width = clean.shape
noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)
tokens = noisy.reshape(-1, 1)  # pixels in C order, one channel

# %%
# **The mask** is a Gaussian of the offset. It stands for a matrix with 369 million entries and holds 76,245 numbers.

mask = sm.Toeplitz.from_function(lambda dy, dx: np.exp(-(dy**2 + dx**2) / (2 * 3.0**2)), (height, width))
mask

# %%
# **The features** are bumps along the grey scale. Bumps whose distance is their width sum to a Gaussian of the
# difference, :math:`\sum_r \phi_r(a) \phi_r(b) \propto e^{-(a - b)^2 / 4 \sigma^2}`, to several digits.

SIGMA = 0.15
centres = np.arange(-0.5, 1.5 + SIGMA, SIGMA)


def bumps(x):
    """Gaussian bumps of width SIGMA at every centre, (..., L, 1) to (..., L, features)."""
    return np.exp(-((x - centres) ** 2) / (2 * SIGMA**2))


a, b = np.linspace(0, 1, 50)[:, None], 0.4
gaussian = np.exp(-((a[:, 0] - b) ** 2) / (4 * SIGMA**2))
ratio = bumps(a) @ bumps(np.array([[b]]))[0] / gaussian
print(f"ripple of the sum of bumps: {np.ptp(ratio) / np.mean(ratio):.0e}")

# %%
# Three ways to denoise: only near pixels (a blur), only like pixels (a curve of the grey values), and both.

blur = (mask @ tokens) / (mask @ np.ones_like(tokens))
alike = sm.masked_attention(tokens, tokens, tokens, features=bumps)
both = sm.masked_attention(tokens, tokens, tokens, mask=mask, features=bumps)

figure, axes = plt.subplots(1, 4, figsize=(9, 3), layout="constrained")
pictures = {"noisy": tokens, "near": blur, "alike": alike, "near and alike": both}
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    error = np.sqrt(np.mean((picture.reshape(clean.shape) - clean) ** 2))
    ax.imshow(picture.reshape(clean.shape), cmap="gray", vmin=0, vmax=1)
    ax.set(title=f"{name}\nerror {error:.3f}", xticks=[], yticks=[])

# %%
# One row of the attention matrix says what a pixel listens to: a disc cut along the edges of the picture. One product
# with a unit vector would give it; here are its two parts and their elementwise product.

y, x = 62, 70
pixel = y * width + x
near = mask.entries([pixel], slice(None)).reshape(clean.shape)
like = (bumps(tokens) @ bumps(tokens[pixel])).reshape(clean.shape)
figure, axes = plt.subplots(1, 3, figsize=(7.5, 3), layout="constrained")
window = (slice(y - 20, y + 21), slice(x - 20, x + 21))
for ax, part, name in zip(axes, (near, like, near * like), ("near", "alike", "attention"), strict=True):
    ax.imshow(part[window], cmap="magma")
    ax.set(title=name, xticks=[], yticks=[])

# %%
# **The same by the definition**, on a corner small enough for it: all pairs of 1,200 pixels.

corner = noisy[:30, :40].reshape(-1, 1)
small = sm.Toeplitz.from_function(lambda dy, dx: np.exp(-(dy**2 + dx**2) / (2 * 3.0**2)), (30, 40))
weights = small.to_dense() * (bumps(corner) @ bumps(corner).T)
expected = weights @ corner / weights.sum(axis=1, keepdims=True)
fast = sm.masked_attention(corner, corner, corner, mask=small, features=bumps)
assert np.allclose(fast, expected, rtol=1e-10)
print(f"largest difference: {np.abs(fast - expected).max():.0e}")
