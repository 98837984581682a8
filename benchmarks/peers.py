"""The rivals, written as well as their libraries allow; torch and others only where they are installed."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.fft

from benchmarks.settings import threads


def torch_or_none() -> ModuleType | None:
    """Torch with as many threads as there are cores, or None where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads())
    return torch


def module_or_none(name: str) -> ModuleType | None:
    """A library that only a benchmark needs, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def available_bytes() -> float:
    """Memory that is free, as far as the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf


# --- Toeplitz products ---------------------------------------------------------------------------------------------


class CachedSpectrum:
    """A d-level Toeplitz product by scipy.fft with care: good lengths, the spectrum once, all threads."""

    def __init__(self, table: np.ndarray, grid: tuple[int, ...]) -> None:
        self.grid = grid
        self.axes = tuple(range(len(grid)))
        self.lengths = [scipy.fft.next_fast_len(2 * n - 1, real=True) for n in grid]
        padded = np.zeros(self.lengths, table.dtype)
        padded[tuple(slice(0, side) for side in table.shape)] = table
        rolled = np.roll(padded, [1 - n for n in grid], self.axes)
        self.spectrum = scipy.fft.rfftn(rolled, axes=self.axes)[..., None]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        spectrum = scipy.fft.rfftn(X.reshape(*self.grid, -1), self.lengths, self.axes, workers=threads())
        spectrum *= self.spectrum
        Y = scipy.fft.irfftn(spectrum, self.lengths, self.axes, workers=threads(), overwrite_x=True)
        return Y[tuple(slice(0, n) for n in self.grid)].reshape(X.shape)


# --- attention under a Toeplitz mask: features F, G (L, m), values V (L, e), table t of 2 L - 1 offsets -------------


def literal_algorithm(torch: Any, F: Any, G: Any, V: Any, table: Any) -> Any:
    """The published algorithm as it is stated: all products of a feature and a value at once."""
    L = F.shape[0]
    column = torch.cat([table[L - 1 :], torch.zeros(1), table[: L - 1]])
    spectrum = torch.fft.rfft(column)[:, None]

    def product(X: Any) -> Any:
        return torch.fft.irfft(torch.fft.rfft(X, n=2 * L, dim=0) * spectrum, n=2 * L, dim=0)[:L]

    pairs = product((G[:, :, None] * V[:, None, :]).reshape(L, -1)).reshape(L, F.shape[1], -1)
    return torch.einsum("lm,lme->le", F, pairs) / (F * product(G)).sum(1, keepdim=True)


def literal_bytes(L: int, m: int, e: int) -> float:
    """What the literal algorithm holds at its peak, in float32."""
    return 4.0 * m * e * (L + 3 * 2 * L)


def blocked_dense_numpy(F: np.ndarray, G: np.ndarray, V: np.ndarray, windows: np.ndarray, block: int) -> np.ndarray:
    """Blocks of rows by BLAS; the mask is read through strides: row i of `windows` is row i of the mask."""
    values = np.concatenate([V, np.ones_like(V[:, :1])], axis=1)
    out = np.empty_like(V)
    for a in range(0, F.shape[0], block):
        A = F[a : a + block] @ G.T
        A *= windows[a : a + block]
        Y = A @ values
        np.divide(Y[:, :-1], Y[:, -1:], out=out[a : a + block])
    return out


def blocked_dense_torch(torch: Any, F: Any, G: Any, V: Any, reversed_table: Any, block: int) -> Any:
    """The same in torch, which has no negative strides: within a block a copy turns the rows of the mask over."""
    L = F.shape[0]
    values = torch.cat([V, torch.ones_like(V[:, :1])], 1)
    windows = reversed_table.unfold(0, L, 1)  # row s is row L - 1 - s of the mask
    out = torch.empty_like(V)
    for a in range(0, L, block):
        b = min(L, a + block)
        A = (F[a:b] @ G.T).mul_(windows[L - b : L - a].flip(0))
        Y = A @ values
        torch.div(Y[:, :-1], Y[:, -1:], out=out[a:b])
    return out


# --- causal attention: features F, G (H, L, m), values V (H, L, e), one decay -----------------------------------------


def _chunked(F: Any, G: Any, V: Any, chunk: int) -> list[Any]:
    return [a.reshape(a.shape[0], -1, chunk, a.shape[-1]) for a in (F, G, V)]


def _with_mass(torch: Any, V: Any) -> Any:
    return torch.cat([V, torch.ones_like(V[..., :1])], -1)


def _decays(torch: Any, decay: float, chunk: int, like: Any) -> tuple[Any, Any, Any]:
    """The mask inside a chunk, the decay from its end backwards, and from before it to each of its positions."""
    steps = torch.arange(chunk, dtype=like.dtype)
    inside = torch.tril(decay ** (steps[:, None] - steps[None, :]).clamp(min=0))
    return inside, decay ** (chunk - 1 - steps)[:, None], decay ** (steps + 1)[:, None]


def causal_batched(torch: Any, F: Any, G: Any, V: Any, decay: float, chunk: int = 128) -> Any:
    """All chunks at once: batched products inside, one running sum of the states between."""
    q, k, v = _chunked(F, G, _with_mass(torch, V), chunk)
    inside, leaving, entering = _decays(torch, decay, chunk, F)
    states = (k * leaving if decay != 1.0 else k).transpose(-1, -2) @ v
    carried = _carried(torch, states, decay**chunk)
    Y = ((q @ k.transpose(-1, -2)) * inside) @ v + (q * entering if decay != 1.0 else q) @ carried
    return (Y[..., :-1] / Y[..., -1:]).reshape(V.shape)


def _carried(torch: Any, states: Any, factor: float) -> Any:
    """The state that enters each chunk."""
    if factor == 1.0:
        return torch.cumsum(states, 1) - states
    entering = [torch.zeros_like(states[:, 0])]
    for index in range(states.shape[1] - 1):
        entering.append(torch.add(states[:, index], entering[-1], alpha=factor))
    return torch.stack(entering, 1)


def causal_sequential(torch: Any, F: Any, G: Any, V: Any, decay: float, chunk: int = 128) -> Any:
    """One chunk after the other with the state carried along: fewer bytes, more calls."""
    q, k, v = _chunked(F, G, _with_mass(torch, V), chunk)
    inside, leaving, entering = _decays(torch, decay, chunk, F)
    state = torch.zeros(F.shape[0], F.shape[-1], v.shape[-1], dtype=F.dtype)
    out = []
    for c in range(q.shape[1]):
        A = (q[:, c] @ k[:, c].transpose(-1, -2)) * inside
        Y = torch.baddbmm(A @ v[:, c], q[:, c] * entering, state)
        out.append(Y[..., :-1] / Y[..., -1:])
        state = torch.baddbmm(state, (k[:, c] * leaving).transpose(-1, -2), v[:, c], beta=decay**chunk)
    return torch.cat(out, 1)
