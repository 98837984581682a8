"""Linear attention under a block-Toeplitz mask on a grid of tokens, one head, float32: time of others / that of `auto`.

`literal` is the published algorithm as stated, in torch, all axes padded to good lengths; `numpy` is the dense
computation by rows of the grid, the mask read through strides. `dense` and `fused` are those methods of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import as_strided

from benchmarks import peers
from benchmarks.contest import Contest, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import LowRank, Toeplitz, explain, masked_attention

CASES = (((32, 32), 16), ((32, 32), 64), ((64, 64), 16), ((64, 64), 64), ((128, 128), 16), ((128, 128), 64))
TINY = (((2, 3), 2), ((1, 5), 3))


def rows(settings: Settings) -> Iterator[Row]:
    for grid, m in TINY if settings.tiny else CASES:
        yield run(contest(grid, m), budget=settings.budget)


def contest(grid: tuple[int, int], m: int) -> Contest:
    """As many values as features, both positive features and values random."""
    rng, L = np.random.default_rng(m), math.prod(grid)
    F, G = np.abs(rng.standard_normal((2, L, m))).astype(np.float32)
    V = rng.standard_normal((L, m)).astype(np.float32)
    offsets = np.meshgrid(*(np.arange(1 - n, n) for n in grid), indexing="ij")
    table = (np.exp(-np.hypot(*offsets) / 5) + 0.1 + 0.05 * np.cos(offsets[0] / 3)).astype(np.float32)
    mask = Toeplitz(table, levels=2)
    plan = explain(mask * LowRank(F, G), columns=m)
    ours: dict[str, Callable[[], Any] | str] = {
        name: lambda name=name: masked_attention(F, G, V, mask=mask, features=None, method=name)
        for name in ("auto", *sorted(step.method for step in plan.steps if step.method != "stream"))
    }
    windows = _windows(table, grid)
    ways: dict[str, Callable[[], Any] | str] = {"numpy": lambda: blocked_dense(F, G, V, windows)}
    torch = peers.torch_or_none()
    if torch is None:
        ways["literal"] = "- (no torch)"
    elif peers.literal_bytes(2 * L, m, m) > 0.7 * peers.available_bytes():
        ways["literal"] = "- (memory)"
    else:
        f, g, v, t = map(torch.from_numpy, (F, G, V, table))
        ways["literal"] = lambda: literal_algorithm(torch, f, g, v, t, grid)
    notes = {"choice": plan.method}
    name = f"{' x '.join(map(str, grid))} m=e={m}"
    return Contest(name, ours, ways, sampled_check(F, G, V, windows), 1e-4, notes=notes)


def _windows(table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The mask (n_1, n_2, n_1, n_2) as a view of its table."""
    (a, b), (s, t) = grid, table.strides
    return as_strided(table[a - 1 :, b - 1 :], (a, b, a, b), (s, t, -s, -t), writeable=False)


def blocked_dense(F: np.ndarray, G: np.ndarray, V: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """One row of the grid after the other."""
    width, L = windows.shape[1], F.shape[0]
    values = np.concatenate([V, np.ones_like(V[:, :1])], axis=1)
    out = np.empty_like(V)
    for row, a in enumerate(range(0, L, width)):
        A = (F[a : a + width] @ G.T).reshape(width, *windows.shape[2:])
        A *= windows[row]
        Y = A.reshape(width, L) @ values
        np.divide(Y[:, :-1], Y[:, -1:], out=out[a : a + width])
    return out


def literal_algorithm(torch: Any, F: Any, G: Any, V: Any, table: Any, grid: tuple[int, int]) -> Any:
    """All products of a feature and a value at once."""
    sides = [int(scipy.fft.next_fast_len(2 * n - 1, real=True)) for n in grid]
    padded = torch.zeros(sides)
    padded[: table.shape[0], : table.shape[1]] = table
    spectrum = torch.fft.rfft2(torch.roll(padded, [1 - n for n in grid], (0, 1)))[..., None]

    def product(X: Any) -> Any:
        transformed = torch.fft.rfft2(X.reshape(*grid, -1), s=sides, dim=(0, 1)) * spectrum
        Y = torch.fft.irfft2(transformed, s=sides, dim=(0, 1))
        return Y[: grid[0], : grid[1]].reshape(X.shape)

    pairs = product((G[:, :, None] * V[:, None, :]).reshape(F.shape[0], -1)).reshape(*F.shape, -1)
    return torch.einsum("lm,lme->le", F, pairs) / (F * product(G)).sum(1, keepdim=True)


def sampled_check(F: np.ndarray, G: np.ndarray, V: np.ndarray, windows: np.ndarray):
    """The largest error of a few rows, each relative to its largest entry, beside double precision."""
    L, width = F.shape[0], windows.shape[1]
    chosen = np.unique(np.r_[0, L - 1, np.random.default_rng(1).integers(0, L, 6)])
    mask = windows[chosen // width, chosen % width].reshape(len(chosen), L)
    A = F[chosen].astype(float) @ G.T.astype(float) * mask
    exact = (A @ V) / A.sum(axis=1, keepdims=True)
    size = np.max(np.abs(exact), axis=1, keepdims=True)
    return lambda out: float(np.max(np.abs(np.asarray(out)[chosen] - exact) / size))
