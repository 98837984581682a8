"""Linear attention under a Toeplitz mask, one head, float32: time of others / that of `auto`.

`literal` is the published algorithm as stated, in torch; `numpy` and `torch` are dense computations by blocks of rows,
the mask read through strides; `softmax` is torch's scaled_dot_product_attention with the logarithm of the mask as a
dense bias, which computes something else of the same size. `dense` and `stream` are those methods of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from benchmarks import peers
from benchmarks.contest import Contest, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import LowRank, Toeplitz, explain, masked_attention

LONGEST = 12.0  # seconds that a way may be expected to take
BLOCK = 256


def rows(settings: Settings) -> Iterator[Row]:
    m, e = (3, 2) if settings.tiny else (64, 64)
    for L in (1, 17) if settings.tiny else (64, 256, 512, 1024, 2048, 4096, 16384, 65536):
        yield run(contest(L, m, e), budget=settings.budget)


def contest(L: int, m: int, e: int) -> Contest:
    F, G, V, table = inputs(L, m, e)
    mask = Toeplitz(table)
    plan = explain(mask * LowRank(F, G), columns=e)
    ours: dict[str, Callable[[], Any] | str] = {"auto": lambda: _attention(F, G, V, mask, "auto")}
    for step in sorted(plan.steps, key=lambda step: step.method):
        ours[step.method] = (
            "- (long)" if step.seconds > LONGEST else lambda name=step.method: _attention(F, G, V, mask, name)
        )
    check = sampled_check(F, G, V, table)
    notes = {"choice": plan.method}
    return Contest(f"L={L} m={m} e={e}", ours, _peers(F, G, V, table), check, 1e-4, unchecked=("softmax",), notes=notes)


def inputs(L: int, m: int, e: int) -> tuple[np.ndarray, ...]:
    """Positive features, any values, and a table that decays onto a constant, with a wave on it."""
    rng = np.random.default_rng(L)
    F, G = np.abs(rng.standard_normal((2, L, m))).astype(np.float32)
    V = rng.standard_normal((L, e)).astype(np.float32)
    offset = np.arange(1.0 - L, L)
    table = np.exp(-np.abs(offset) / 200) + 0.1 + 0.05 * np.cos(offset / 17)
    return F, G, V, table.astype(np.float32)


def _attention(F: np.ndarray, G: np.ndarray, V: np.ndarray, mask: Toeplitz, method: str) -> np.ndarray:
    return masked_attention(F, G, V, mask=mask, features=None, method=method)


def _peers(F: np.ndarray, G: np.ndarray, V: np.ndarray, table: np.ndarray) -> dict[str, Callable[[], Any] | str]:
    L, stride = F.shape[0], table.strides[0]
    windows = as_strided(table[L - 1 :], (L, L), (stride, -stride), writeable=False)
    ways: dict[str, Callable[[], Any] | str] = {"numpy": lambda: peers.blocked_dense_numpy(F, G, V, windows, BLOCK)}
    torch = peers.torch_or_none()
    if torch is None:
        return {**ways, **dict.fromkeys(("torch", "literal", "softmax"), "- (no torch)")}
    f, g, v, t, r = map(torch.from_numpy, (F, G, V, table, table[::-1].copy()))
    ways["torch"] = lambda: peers.blocked_dense_torch(torch, f, g, v, r, BLOCK)
    free = peers.available_bytes()
    fits = peers.literal_bytes(L, F.shape[1], V.shape[1]) < 0.7 * free
    ways["literal"] = (lambda: peers.literal_algorithm(torch, f, g, v, t)) if fits else "- (memory)"
    if 0.5 * free < 12.0 * L * L:
        return {**ways, "softmax": "- (memory)"}
    bias = torch.log(torch.from_numpy(windows.copy()))[None]
    attend = torch.nn.functional.scaled_dot_product_attention
    ways["softmax"] = lambda: attend(f[None, None], g[None, None], v[None, None], attn_mask=bias)
    return ways


def sampled_check(F: np.ndarray, G: np.ndarray, V: np.ndarray, table: np.ndarray):
    """The largest error of a few rows, each relative to its largest entry, beside double precision."""
    L = F.shape[0]
    chosen = np.unique(np.r_[0, L - 1, np.random.default_rng(1).integers(0, L, 6)])
    F, G, V, table = (a.astype(float) for a in (F, G, V, table))
    A = F[chosen] @ G.T * table[chosen[:, None] - np.arange(L) + L - 1]
    exact = (A @ V) / A.sum(axis=1, keepdims=True)
    size = np.max(np.abs(exact), axis=1, keepdims=True)
    return lambda out: float(np.max(np.abs(np.asarray(out)[chosen] - exact) / size))
