"""
Attention over an image
=======================

Patches of an image attend to each other by how far apart they are. The mask is block-Toeplitz: an entry depends on the
offsets between two patches only, one for each axis.
"""

import numpy as np
from matplotlib import pyplot as plt

import structmask as sm

# %%
# A mask of 48 x 48 patches has 2304 rows. It is made of one table with an entry for every offset, and never formed.

side = 48
mask = sm.Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / 4), (side, side))
print(mask, "from", mask.offsets.shape, "numbers")

# %%
# An image with noise. Its patches are queries and keys: similar ones attend to each other, if they are near.

rng = np.random.default_rng(0)
y, x = np.mgrid[0:1:48j, 0:1:48j]
clean = np.sign(np.sin(9 * x + 4 * y**2)) + 0.5 * (np.hypot(x - 0.6, y - 0.4) < 0.2)
noisy = clean + 0.6 * rng.standard_normal(clean.shape)

pixels = np.pad(noisy, 1, mode="edge")
patches = np.stack([pixels[i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=-1)
q = k = 0.35 * patches.reshape(side**2, 9)
v = noisy.reshape(side**2, 1)

# %%
# Attention with the mask and without. The feature map makes the exponential kernel of the patches linear.

features = sm.positive_features(9, 256, rng=0)
near = sm.masked_attention(q, k, v, mask=mask, features=features)
anywhere = sm.masked_attention(q, k, v, features=features)

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
pictures = {
    "noisy": noisy,
    "no mask": anywhere,
    "mask": near,
    "row of the mask": mask.entries([24 * side + 20], slice(None)),
}
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(np.reshape(picture, (side, side)), cmap="magma" if "row" in title else "gray")
    ax.set(title=title, xticks=(), yticks=())
figure.tight_layout()

# %%
# The same by the definition: all entries of the mask times those of the kernel, rows divided by their sums.

F = features(q)
A = mask.to_dense() * (F @ F.T)
np.testing.assert_allclose(near, (A @ v) / A.sum(axis=1, keepdims=True), rtol=1e-9)
