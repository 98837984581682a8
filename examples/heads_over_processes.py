"""
Heads over processes with torch.distributed
===========================================

Heads do not see one another, so each process takes its share of them: the forward and the backward pass of masked
attention need no communication at all, and one reduction per step makes the gradient of what the heads share. Here two
processes share eight heads under one learnable table of relative positions, by gloo on the CPU; the result is checked
against one process. Run it by ``python examples/heads_over_processes.py``.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing

import structmask as sm
from structmask.adapters.torch import masked_attention

WORLD, HEADS, LENGTH, SIZE = 2, 8, 256, 16


def inputs():
    """Queries, keys and values of all heads; logits of the table that they share."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, HEADS, LENGTH, SIZE, generator=generator, dtype=torch.float64)
    logits = -torch.arange(1 - LENGTH, LENGTH, dtype=torch.float64).abs() / 20
    return q, k, v, logits.requires_grad_()


def attention(q, k, v, logits):
    """Attention of some heads under the table of relative positions."""
    table = sm.Toeplitz(np.ones(2 * LENGTH - 1))
    return masked_attention(q, k, v, mask=table, parameters={"offsets": logits.exp()})


def work(rank, meeting):
    """One process: its own heads; the loss and the gradient of the table are summed over all processes."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    q, k, v, logits = inputs()
    own = slice(rank * HEADS // WORLD, (rank + 1) * HEADS // WORLD)
    loss = attention(q[own], k[own], v[own], logits).square().sum()
    loss.backward()
    total = loss.detach()
    dist.all_reduce(total)
    dist.all_reduce(logits.grad)
    if rank == 0:
        check(total, logits.grad)
    dist.destroy_process_group()


def check(total, gradient):
    """Compare with all heads in one process."""
    *operands, logits = inputs()
    loss = attention(*operands, logits).square().sum()
    loss.backward()
    torch.testing.assert_close(total, loss.detach())
    torch.testing.assert_close(gradient, logits.grad)
    print(f"{WORLD} processes, {HEADS} heads: loss and gradient are those of one process")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, args=(Path(folder) / "meeting",), nprocs=WORLD)
