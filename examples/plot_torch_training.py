"""
Learning a mask in torch
========================

The generators of a mask are the parameters of a torch module, with exact gradients. Here the mask of a convolution-like
task is found from examples.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt

import structmask as sm
from structmask.adapters.torch import as_module, masked_attention

# %%
# The task: every position is to be the mean of the tokens two to five places before it. Attention with equal queries
# and keys can do this, if its mask weights these offsets and no others.

n = 64
offsets = np.arange(1 - n, n)
wanted = sm.Toeplitz(((offsets >= 2) & (offsets <= 5)) * 1.0 + 1e-9)
alike = torch.ones(n, 1, dtype=torch.float64)

# %%
# The mask: a table of relative positions, positive as the exponential of what is learnt.

logits = torch.zeros(2 * n - 1, dtype=torch.float64, requires_grad=True)
table = sm.Toeplitz(np.ones(2 * n - 1))
optimiser = torch.optim.Adam([logits], lr=0.1)
generator, losses = torch.Generator().manual_seed(0), []
for _ in range(200):
    x = torch.randn(n, 16, generator=generator, dtype=torch.float64)
    target = masked_attention(alike, alike, x, mask=wanted, features=None)
    out = masked_attention(alike, alike, x, mask=table, parameters={"offsets": logits.exp()}, features=None)
    loss = ((out - target) ** 2)[8:-8].mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())

figure, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].semilogy(losses)
axes[0].set(xlabel="step", ylabel="loss")
axes[1].bar(offsets, logits.detach().exp().numpy() / logits.detach().exp().sum().item(), width=1.0)
axes[1].set(xlabel="offset", ylabel="learnt mask", xlim=(-20, 20))
figure.tight_layout()
print("loss", f"{losses[0]:.2f} -> {losses[-1]:.4f}")

# %%
# A whole mask as a module: its generators are parameters, which train, save and load like any others.

module = as_module(sm.Causal(n, decay=0.9))
print(dict(module.named_parameters()))

# %%
# Gradients compared with automatic differentiation through the dense form.

x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
out = masked_attention(alike, alike, x, mask=table, parameters={"offsets": logits.exp()}, features=None)
(ours,) = torch.autograd.grad((out**2).sum(), logits)
i = torch.arange(n)
A = logits.exp()[i[:, None] - i[None, :] + n - 1]
(dense,) = torch.autograd.grad((((A @ x) / A.sum(dim=1, keepdim=True)) ** 2).sum(), logits)
torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-12)
